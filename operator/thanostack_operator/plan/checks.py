"""Why nothing is done for a stack: what is wrong in one sentence each, with its cure.

What a spec has wrong by itself is found by `manifests/checks.py`; here are its rings, objects that
it mentions and that are not there, and fields that the API server lets nobody change.

A plan for a stack with problems changes nothing: half of a wrong spec is worse than the former
whole. What is running goes on running.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from thanostack_operator.api.receive import Ring
from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.checks import problems
from thanostack_operator.manifests.names import STACK_NAME_MAX, Object, ingestor_name

from .comparison import differences
from .observed import Observed, dig
from .volumes import is_less

_FIXED_FIELDS = ("serviceName", "podManagementPolicy", "selector")


@dataclass(frozen=True)
class Problem:
    """Why nothing is done.

    Args:
        reason: one word for the condition.
        message: what is wrong and what to do.
    """

    reason: str
    message: str


def spec_problems(stack: ThanosStack, observed: Observed) -> list[Problem]:
    """Return what is wrong with a stack's spec by itself and with what it mentions."""
    found = [*_ring_problems(stack), *problems(stack)]
    return [Problem("SpecInvalid", message) for message in found] + [
        Problem("ReferenceMissing", f"{name} does not exist: create it in {stack.namespace}")
        for name in sorted(observed.missing or ())
    ]


def _ring_problems(stack: ThanosStack) -> Iterator[str]:
    """Yield what the schema's own rules refuse too, where they are enforced."""
    if len(stack.name) > STACK_NAME_MAX:
        yield (
            f"metadata.name: it has {len(stack.name)} characters and may have {STACK_NAME_MAX}: "
            "create the stack under a shorter name"
        )
    receive = stack.spec.receive
    for index, ring in enumerate(receive.rings):
        path = f"spec.receive.rings[{ring.name}]"
        before = receive.rings[:index]
        if any(other.name == ring.name for other in before):
            yield f"{path}.name: it is there twice: rename one"
        catch_all = next((other.name for other in before if not other.tenants), None)
        if catch_all is not None:
            yield (
                f"{path}: no tenant gets here, because ring {catch_all} before it lists none and "
                "so takes all: put the ring without tenants last"
            )
        if ring.replicas < receive.replication_factor:
            yield (
                f"{path}.replicas: {ring.replicas} ingestors cannot hold "
                f"{receive.replication_factor} copies: raise it, or lower "
                "spec.receive.replicationFactor"
            )


def fixed_field_problems(stack: ThanosStack, targets: Mapping[tuple[str, str], Object],
                         observed: Observed) -> list[Problem]:  # fmt: skip
    """Return what a desired StatefulSet changes that the API server lets nobody change.

    Volumes that grow are not among it: see `growth.py`.

    Args:
        stack: whose they are.
        targets: the desired objects by kind and name.
        observed: what there is.
    """
    found = []
    for ring in stack.spec.receive.rings:
        name = ingestor_name(stack.name, ring.name)
        live = observed.find("StatefulSet", name)
        target = targets.get(("StatefulSet", name))
        if live is not None and target is not None:
            found += [*_volume_problems(ring, name, target, live)]
            found += [*_fixed_problems(name, target, live)]
    return [Problem("FieldImmutable", message) for message in found]


def _volume_problems(ring: Ring, name: str, target: Object, live: Object) -> Iterator[str]:
    wanted, present = _claims(target), _claims(live)
    if wanted.keys() != present.keys():
        yield _recreate(name, "its volume claims have other names")
        return
    for claim, (size, storage_class) in wanted.items():
        size_now, class_now = present[claim]
        if storage_class is not None and storage_class != class_now:
            what = f"its volumes are of class {class_now} and cannot become {storage_class}"
            yield f"{name}: {what}: set spec.receive.rings[{ring.name}].storage.className back"
        if is_less(size, size_now):
            what = f"its volumes have {size_now} and cannot shrink to {size}"
            yield f"{name}: {what}: set spec.receive.rings[{ring.name}].storage.size back"


def _claims(wanted: Object) -> dict[str, tuple[str, str | None]]:
    return {
        str(dig(claim, "metadata", "name")): (
            str(dig(claim, "spec", "resources", "requests", "storage")),
            dig(claim, "spec", "storageClassName"),
        )
        for claim in dig(wanted, "spec", "volumeClaimTemplates", default=[])
    }


def _fixed_problems(name: str, target: Object, live: Object) -> Iterator[str]:
    wanted = {key: target["spec"][key] for key in _FIXED_FIELDS if key in target["spec"]}
    for difference in differences(wanted, live["spec"]):
        what = f"spec.{difference.name} cannot change from {difference.old} to {difference.new}"
        yield _recreate(name, what)


def _recreate(name: str, what: str) -> str:
    command = f"kubectl delete statefulset {name} --cascade=orphan"
    return f"{name}: {what}; then run `{command}`: its pods run on, the operator makes it anew"
