"""What others add to the specs of a stack's objects: a variable, a sidecar, a selector of nodes.

Server-side apply takes back the fields that we ask for and leaves all others to whoever wrote them,
so an addition stays and no comparison with what is desired sees it. `metadata.managedFields` does:

    f:env: {k:{"name":"FOO"}: {...}}  of kubectl-set, and no FOO in what we ask for: an addition

Nothing is taken away here; additions are told. None is what the API server or a webhook fills in
(it has no manager, or ours), what comes by a subresource (status, a scale), what Kubernetes's own
controllers write, a restart by `kubectl rollout restart`, an address that is allocated, or a value
that a field has anyway. Labels and annotations of the objects themselves are everybody's.

Source: Kubernetes, server-side apply, the format of `fieldsV1`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from thanostack_operator.manifests.names import FIELD_MANAGER, Object

from .comparison import Path, written
from .observed import dig, items_of

_KNOWN_MANAGERS = frozenset({
    FIELD_MANAGER, "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet",
    "cloud-controller-manager",
})  # fmt: skip
_ALLOWED = frozenset({
    "kubectl.kubernetes.io/restartedAt",
    "clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort",
})  # fmt: skip
# Who creates an object or an item of a list owns the defaults in it, too.
_DEFAULTS: Mapping[str, Any] = {
    "allocateLoadBalancerNodePorts": True, "dnsPolicy": "ClusterFirst",
    "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
    "progressDeadlineSeconds": 600, "protocol": "TCP", "resources": {}, "restartPolicy": "Always",
    "revisionHistoryLimit": 10, "schedulerName": "default-scheduler", "sessionAffinity": "None",
    "terminationGracePeriodSeconds": 30, "terminationMessagePath": "/dev/termination-log",
}  # fmt: skip
# Maps of which each entry stands for itself.
_MAPS = ("annotations", "labels", "nodeSelector", "limits", "requests")


@dataclass(frozen=True, order=True)
class Addition:
    """A field of an object's spec that is there and was not asked for, and whose it is.

    Args:
        name: its path as people write it.
        manager: who owns it, in the words of `managedFields`.
    """

    name: str
    manager: str


def additions(desired: Object, live: Object) -> list[Addition]:
    """Return what others added to the spec of an object, in a fixed order.

    Args:
        desired: what is asked for, pods' template included, whether it is applied yet or not.
        live: the object with its managed fields.

    Cost: O(fields that others own).
    """
    found: set[Addition] = set()
    for entry in items_of(dig(live, "metadata"), "managedFields"):
        manager = str(entry.get("manager"))
        if not entry.get("subresource") and manager not in _KNOWN_MANAGERS:
            fields = dig(entry, "fieldsV1", "f:spec", default={})
            paths = _unasked(fields, desired.get("spec", {}), live.get("spec", {}), ("spec",))
            found |= {Addition(written(path), manager) for path in paths}
    return sorted(found)


def _unasked(fields: Mapping[str, Any], wanted: Any, live: Any, path: Path) -> Iterator[Path]:
    """Yield the outermost fields of a `fieldsV1` set that are not wanted; of lists, the items."""
    owned = {key: child for key, child in fields.items() if key != "."}
    if wanted is None and not _is_collection(owned, path):
        yield path
        return
    for key, child in owned.items():
        step = _step(key)
        here = _at(live, key)
        if step not in _ALLOWED and not (step in _DEFAULTS and here == _DEFAULTS[step]):
            yield from _unasked(child, _at(wanted, key), here, (*path, step))


def _is_collection(owned: Mapping[str, Any], path: Path) -> bool:
    return any(path[-1] in _MAPS or not key.startswith("f:") for key in owned)


def _step(key: str) -> str:
    """Return a key of a `fieldsV1` set as a step of a path; of an item, its key in brackets."""
    kind, _, text = key.partition(":")
    if kind == "f":
        return text
    value = json.loads(text)
    values = value.values() if isinstance(value, dict) else [value]
    return f"[{','.join(map(str, values))}]"


def _at(tree: Any, key: str) -> Any:
    """Return what a tree has at a key of a `fieldsV1` set, or None."""
    kind, _, text = key.partition(":")
    if kind == "f":
        return dig(tree, text)
    value = json.loads(text)
    if kind == "i":
        return dig(tree, value)
    items = tree if isinstance(tree, list) else []
    return next((item for item in items if _is_item(item, value)), None)


def _is_item(item: Any, wanted: Any) -> bool:
    """Return whether an item of a list has a key's values, or is the value of a set."""
    if not isinstance(wanted, dict) or not isinstance(item, dict):
        return bool(item == wanted)
    return all(item.get(key, _DEFAULTS.get(key)) == value for key, value in wanted.items())
