"""Stacks for tests, and how to find an object among those of a stack."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from thanostack_operator.api.reading import read_stack
from thanostack_operator.api.stack import ThanosStack
from thanostack_operator.manifests.hashrings import Member
from thanostack_operator.manifests.names import Object
from thanostack_operator.manifests.stack_objects import desired_objects

VERSION = "0.1.0"


def stack_of(**spec: Any) -> ThanosStack:
    """Return a stack `x` in the namespace `ns`, its spec as in YAML."""
    return read_stack({"metadata": {"name": "x", "namespace": "ns", "uid": "u"}, "spec": spec})


def stack_of_file(path: Path) -> ThanosStack:
    """Return the stack of a file, as if it had been applied."""
    resource = yaml.safe_load(path.read_text(encoding="utf-8"))
    resource["metadata"] |= {"uid": "00000000-0000-0000-0000-000000000001"}
    return read_stack(resource)


def complete_rings(stack: ThanosStack) -> dict[str, list[Member]]:
    """Return the rings of a stack with all their ingestors, in three zones."""
    return {
        ring.name: [Member(i, f"zone-{i % 3}") for i in range(ring.replicas)]
        for ring in stack.spec.receive.rings
    }


def objects_at_rest(stack: ThanosStack) -> list[Object]:
    """Return the objects of a stack whose rings are complete."""
    return desired_objects(stack, VERSION, complete_rings(stack), {})


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    """Return the one object of that kind and name."""
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


def container_of(objects: Iterable[Object], kind: str, name: str) -> Object:
    """Return the one container of a workload."""
    found: Object
    (found,) = named(objects, kind, name)["spec"]["template"]["spec"]["containers"]
    return found
