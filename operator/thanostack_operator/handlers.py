"""kopf's part: watch stacks and what belongs to them, and wake the loop of the stack concerned.

Only `on.event`, which writes nothing on anything: no finalizer, no annotation, no progress. A stack
that is deleted while no operator runs is not held back by one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import kopf

from .api.stack import GROUP, PLURAL, VERSION
from .kube import KINDS, WATCHED
from .loop import Loops
from .manifests.names import STACK_LABEL

# As kopf has them: group, version, plural. A change of a child wakes its stack; pods and endpoint
# slices carry the labels of their workload.
_WATCHED = tuple(
    (api_version.rpartition("/")[0], api_version.rpartition("/")[2], KINDS[api_version, kind])
    for api_version, kind in WATCHED
)


def register(loops: Loops, stop: asyncio.Event) -> kopf.OperatorRegistry:
    """Return a registry whose handlers wake ``loops``, and end them when kopf is told to end.

    Args:
        loops: of the stacks.
        stop: kopf's flag, which it waits for itself even after a signal.
    """
    registry = kopf.OperatorRegistry()

    async def stack_seen(namespace: str | None, name: str | None, **_: Any) -> None:
        loops.ensure(namespace or "", name or "")

    async def child_seen(namespace: str | None, labels: Any, **_: Any) -> None:
        loops.wake(namespace or "", labels[STACK_LABEL])

    async def ending(**_: Any) -> None:
        # kopf waits 5 s for every task that was begun meanwhile, ours among them.
        await loops.stop()
        stop.set()

    kopf.on.login(registry=registry)(_login)
    kopf.on.cleanup(registry=registry)(ending)
    kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(stack_seen)
    for group, version, plural in _WATCHED:
        kopf.on.event(
            group, version, plural, registry=registry, labels={STACK_LABEL: kopf.PRESENT}
        )(child_seen)
    return registry


def _login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Return the credentials of the pod's service account, else those of the kubeconfig."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings: no peering, no posting of its own, watches that end by themselves."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True
    chosen.scanning.disabled = True  # the chart brings the CRD; fewer rights are needed
    chosen.posting.enabled = False
    # Never set, by handlers of these kinds. kopf takes its finalizer off what needs none, so it
    # must not be the one that plans set.
    chosen.persistence.finalizer = f"{GROUP}/kopf"
    # Filtered and listed in pieces by the API server: other people's pods are many.
    for resource in _WATCHED:
        chosen.watching.label_selectors[resource] = STACK_LABEL
    chosen.watching.chunk_size = 500
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 310
    chosen.networking.request_timeout = 30
    return chosen
