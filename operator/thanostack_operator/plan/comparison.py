"""Whether a live object is as desired, where it differs, and who made it differ.

Desired is a subset: what the API server, controllers and others add to an object is theirs. A
field that we no longer ask for would go unnoticed, so each object carries a fingerprint of what was
asked for:

    thanostack.io/applied: "<everything but the pods' template>.<the pods' template>"

- Same fingerprint, other content: drift. Somebody changed what we wrote.
- Other fingerprint: we ask for something else. What another manager owns is drift all the same.

Lists of objects are matched by the key that the API merges them by; quantities by value, as `1000m`
is `1`; a zero value is absent where Go leaves it out. `metadata.managedFields` names the managers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from thanostack_operator.api.stack import GROUP
from thanostack_operator.manifests.names import FIELD_MANAGER, Object

from .observed import dig

APPLIED_ANNOTATION = f"{GROUP}/applied"
_APPLIED_PATH = ("metadata", "annotations", APPLIED_ANNOTATION)
_TEMPLATE_KINDS = ("Deployment", "StatefulSet")
# By the field that holds the list: the keys, of which the first that every item has counts.
_LIST_KEYS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "containers": (("name",),),
    "initContainers": (("name",),),
    "env": (("name",),),
    "volumes": (("name",),),
    "volumeMounts": (("mountPath",),),
    "ports": (("containerPort", "protocol"), ("containerPort",), ("port", "protocol"), ("port",)),
    "ownerReferences": (("uid",),),
    "imagePullSecrets": (("name",),),
    "hostAliases": (("ip",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
}
# Fields of which a zero says something else than absence does.
_KEPT_ZEROS = frozenset({
    "replicas", "maxUnavailable", "maxSurge", "runAsUser", "runAsGroup", "fsGroup",
    "terminationGracePeriodSeconds", "allowPrivilegeEscalation", "automountServiceAccountToken",
    "enableServiceLinks", "readOnlyRootFilesystem", "runAsNonRoot", "privileged",
})  # fmt: skip
_QUANTITY_PARENTS = ("limits", "requests")
_QUANTITY_FIELDS = ("sizeLimit",)
_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal("1e3"), "M": Decimal("1e6"), "G": Decimal("1e9"), "T": Decimal("1e12"),
    "P": Decimal("1e15"), "E": Decimal("1e18"),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip

Path = tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """One field that is not as desired.

    Args:
        path: its keys; an item of a list is its key in brackets.
        old: what it is, None if absent.
        new: what it should be.
    """

    path: Path
    old: Any
    new: Any

    @property
    def name(self) -> str:
        """Return the path as people write it."""
        return written(self.path)


def written(path: Path) -> str:
    """Return a path as people write it.

    Example:
        >>> written(("spec", "ports", "[80]", "name"))
        'spec.ports[80].name'
    """
    return ".".join(path).replace(".[", "[")


@dataclass(frozen=True)
class Drift:
    """A field that somebody else changed, and who if that can be told."""

    difference: Difference
    manager: str = ""


def quantity(text: object) -> Decimal | None:
    """Return the value of a Kubernetes quantity; None if it is none.

    Example:
        >>> quantity("1500m") == quantity("1.5")
        True
    """
    written = str(text)
    number = written.rstrip("numkKMGTPEi")
    try:
        return Decimal(number) * _SUFFIXES[written[len(number) :]]
    except (ArithmeticError, KeyError):
        return None


def stamped(desired: Object) -> Object:
    """Return a desired object with its fingerprint."""
    template = dig(desired, "spec", "template") if has_template(desired) else None
    rest = desired
    if template is not None:
        rest = desired | {"spec": {k: v for k, v in desired["spec"].items() if k != "template"}}
    return _with_fingerprint(desired, f"{_digest(rest)}.{_digest(template)}")


def has_template(wanted: Object) -> bool:
    """Return whether an object is a workload."""
    return wanted["kind"] in _TEMPLATE_KINDS


def template_changes(target: Object, live: Object, found: list[Difference]) -> bool:
    """Return whether applying a stamped workload would change its pods' template.

    Args:
        target: it, stamped.
        live: what there is.
        found: their differences.
    """
    if _fingerprint(target).rpartition(".")[2] != _fingerprint(live).rpartition(".")[2]:
        return True
    return any(difference.path[:2] == ("spec", "template") for difference in found)


def with_live_template(target: Object, live: Object) -> Object:
    """Return a stamped workload that leaves the pods' template as it is."""
    held = target | {"spec": target["spec"] | {"template": live["spec"]["template"]}}
    rest = _fingerprint(target).rpartition(".")[0]
    return _with_fingerprint(held, f"{rest}.{_fingerprint(live).rpartition('.')[2]}")


def differences(target: Object, live: Object) -> list[Difference]:
    """Return every field of a desired object that the live one does not have so.

    Cost: O(fields of the desired object).
    """
    return list(_unlike(target, live, ()))


def was_applied(target: Object, live: Object) -> bool:
    """Return whether a stamped object is what was applied last, whatever it is by now."""
    return _fingerprint(target) == _fingerprint(live)


def drifts(target: Object, live: Object, found: list[Difference]) -> list[Drift]:
    """Return which of the differences between a stamped object and a live one others made."""
    if not found:
        return []
    unchanged = was_applied(target, live)
    owners = _foreign_owners(live)
    drifted = []
    for difference in found:
        manager = _owner_of(difference.path, owners)
        if (unchanged or manager) and difference.path != _APPLIED_PATH:
            drifted.append(Drift(difference, manager))
    return drifted


def _with_fingerprint(wanted: Object, fingerprint: str) -> Object:
    metadata = wanted["metadata"]
    annotations = (metadata.get("annotations") or {}) | {APPLIED_ANNOTATION: fingerprint}
    return wanted | {"metadata": metadata | {"annotations": annotations}}


def _fingerprint(wanted: Object) -> str:
    return str(dig(wanted, *_APPLIED_PATH, default=""))


def _digest(tree: Any) -> str:
    if tree is None:
        return ""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _unlike(wanted: Any, live: Any, path: Path) -> Iterator[Difference]:
    """Yield differences of two trees, found at a path."""
    field = path[-1] if path else ""
    if wanted == live or (_is_empty(wanted, field) and _is_empty(live, field)):
        return
    if isinstance(wanted, dict) and isinstance(live, dict):
        for key, value in wanted.items():
            yield from _unlike(value, live.get(key), (*path, key))
    elif isinstance(wanted, list) and isinstance(live, list):
        yield from _unlike_lists(wanted, live, path)
    elif not _are_same_quantity(wanted, live, path):
        yield Difference(path, live, wanted)


def _is_empty(value: Any, field: str = "") -> bool:
    """Return whether the API server may leave a value out, as Go leaves out zero values."""
    if field in _KEPT_ZEROS:
        return value is None
    return not value


def _are_same_quantity(wanted: Any, live: Any, path: Path) -> bool:
    if path[-1] in _QUANTITY_FIELDS or (len(path) > 1 and path[-2] in _QUANTITY_PARENTS):
        value = quantity(wanted)
        return value is not None and value == quantity(live)
    return False


def _unlike_lists(wanted: list[Any], live: list[Any], path: Path) -> Iterator[Difference]:
    keys = _keys(wanted, path)
    if keys:
        others = {_key_of(item, keys): item for item in live if isinstance(item, dict)}
        for item in wanted:
            key = _key_of(item, keys)
            yield from _unlike(item, others.get(key), (*path, f"[{','.join(key)}]"))
        return
    if len(wanted) != len(live) or not any(isinstance(item, dict) for item in wanted):
        yield Difference(path, live, wanted)
        return
    for index, (item, other) in enumerate(zip(wanted, live, strict=True)):
        yield from _unlike(item, other, (*path, f"[{index}]"))


def _keys(wanted: list[Any], path: Path) -> tuple[str, ...]:
    if not all(isinstance(item, dict) for item in wanted):
        return ()
    for keys in _LIST_KEYS.get(path[-1] if path else "", ()):
        if all(key in item for item in wanted for key in keys):
            return keys
    return ()


def _key_of(item: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(item.get(key)) for key in keys)


def _foreign_owners(live: Object) -> list[tuple[str, Any]]:
    """Return the managers of an object other than ours, with the fields that they own."""
    entries = dig(live, "metadata", "managedFields", default=[])
    return [
        (str(entry.get("manager", "")), entry.get("fieldsV1"))
        for entry in entries
        if not (entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply")
        and entry.get("subresource") != "status"
    ]


def _owner_of(path: Path, owners: list[tuple[str, Any]]) -> str:
    return next((name for name, fields in owners if _owns(fields, path)), "")


def _owns(fields: Any, path: Path) -> bool:
    """Return whether a `fieldsV1` set has a path, or the atomic list or map that it lies in."""
    for index, step in enumerate(path):
        if not isinstance(fields, dict):
            return False
        if index and not fields.keys() - {"."}:
            return True
        fields = _child(fields, step)
    return isinstance(fields, dict)


def _child(fields: Mapping[str, Any], step: str) -> Any:
    if not step.startswith("["):
        return fields.get(f"f:{step}")
    wanted = set(step[1:-1].split(","))
    for key, child in fields.items():
        if key.startswith("k:") and wanted <= set(map(str, json.loads(key[2:]).values())):
            return child
    return None
