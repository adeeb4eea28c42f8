"""Whose an object is that has one of a stack's names: only what is the stack's own is written to.

An apply takes over every field that it names, so what somebody else has made under that name has to
be found before the first one. A stack may use an object that

- has the stack among its owners, or stands with its UID in the stack's inventory;
- is controlled by nobody, and has the labels of our objects: what a deletion with
  `--cascade=orphan` or a restored backup leaves, and what its owner gives away by labelling it.

Two stacks can want one name (ring `c` of `a-ingestor-b`, ring `b-ingestor-c` of `a`); whoever made
the object first has it.
"""

from __future__ import annotations

from collections.abc import Iterable

from thanostack_operator.api.stack import KIND, ThanosStack
from thanostack_operator.manifests.names import (
    FIELD_MANAGER,
    STACK_LABEL,
    Object,
    hashrings_name,
    receive_name,
)

from .checks import Problem
from .observed import Observed, Ref, dig, items_of

NAME_TAKEN = "NameTaken"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"


def is_owned(stack: ThanosStack, live: Object) -> bool:
    """Return whether an object is this stack's; a label alone anybody can write."""
    owners = dig(live, "metadata", "ownerReferences", default=[])
    return any(owner.get("uid") == stack.uid for owner in owners)


def name_problems(
    stack: ThanosStack, wanted: Iterable[tuple[str, str]], observed: Observed
) -> list[Problem]:
    """Return which objects have a name of the stack's and are somebody else's.

    Args:
        stack: whose names they are.
        wanted: kind and name of the objects that it is made of.
        observed: what there is.
    """
    # What comes once a ring is published is looked at before anything is made, too.
    names = {
        *wanted,
        ("ConfigMap", hashrings_name(stack.name)),
        ("Deployment", receive_name(stack.name)),
    }
    found = observed.objects | observed.namesakes
    return [
        Problem(NAME_TAKEN, _sentence(stack, ref, live))
        for ref, live in sorted(found.items(), key=lambda item: item[0])
        if (ref.kind, ref.name) in names and not _may_use(stack, ref, live)
    ]


def _may_use(stack: ThanosStack, ref: Ref, live: Object) -> bool:
    if is_owned(stack, live):
        return True
    if _controller(live):
        return False
    inventory = {str(dig(item, "uid")) for item in items_of(stack.status, "inventory")}
    labels = dig(live, "metadata", "labels", default={})
    is_given = labels.items() >= _labels_of_ours(stack).items()
    return is_given or (bool(ref.uid) and ref.uid in inventory)


def _labels_of_ours(stack: ThanosStack) -> dict[str, str]:
    return {STACK_LABEL: stack.name, MANAGED_BY_LABEL: FIELD_MANAGER}


def _controller(live: Object) -> Object:
    owners = dig(live, "metadata", "ownerReferences", default=[])
    return next((owner for owner in owners if owner.get("controller")), {})


def _sentence(stack: ThanosStack, ref: Ref, live: Object) -> str:
    what = f"{ref.kind} {ref.name} is there already and not this stack's: {_whose(live)}"
    owner = _controller(live)
    if (owner.get("kind"), owner.get("name")) == (KIND, stack.name):
        return f"{what}, which was deleted: it is collected soon; wait, or delete it"
    cure = "delete it, or rename it or the stack"
    if not owner:
        labels = " ".join(f"{key}={value}" for key, value in _labels_of_ours(stack).items())
        command = f"kubectl -n {stack.namespace} label {ref.kind.lower()} {ref.name} {labels}"
        cure += f"; to have the stack take it over: `{command} --overwrite`"
    return f"{what}; nothing is changed until that is mended: {cure}"


def _whose(live: Object) -> str:
    """Return who has an object, by the best that it tells."""
    owner = _controller(live)
    if owner:
        return f"{owner.get('kind')} {owner.get('name')} owns it"
    manager = dig(live, "metadata", "labels", MANAGED_BY_LABEL)
    if manager:
        return f"its label {MANAGED_BY_LABEL} is {manager}"
    writers = [entry.get("manager") for entry in dig(live, "metadata", "managedFields", default=[])]
    return f"{writers[0]} made it" if writers and writers[0] else "nobody says whose it is"
