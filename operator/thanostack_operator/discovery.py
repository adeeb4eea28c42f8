"""Whether the API server serves what is watched, before anything is.

kopf looks for the kinds that it watches once, at its start, and never again for want of rights to
watch CustomResourceDefinitions. A CRD that is installed after the operator would go unnoticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from .kube import STACKS, WATCHED, ApiError, KubeClient

RETRY_S = 5.0

log = logging.getLogger(__name__)


class NotServed(RuntimeError):
    """The API server serves no longer what is watched."""


async def await_served(kube: KubeClient, stop: asyncio.Event) -> bool:
    """Return True once all kinds that are watched are served, False if ``stop`` is set before."""
    told = ""
    while not stop.is_set():
        problem = await unserved(kube)
        if not problem:
            return True
        if problem != told:
            log.warning("waiting: %s", problem)
            told = problem
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), RETRY_S)
    return False


async def unserved(kube: KubeClient) -> str:
    """Return what keeps the operator from watching; empty if nothing does."""
    kinds = (STACKS, *WATCHED)
    try:
        known = await asyncio.gather(*(kube.knows(kind) for kind in kinds))
    except ApiError as error:
        return str(error)
    missing = [kind for kind, is_known in zip(kinds, known, strict=True) if not is_known]
    if STACKS in missing:
        return f"the API server does not serve {STACKS[1]} of {STACKS[0]}: install the CRD"
    names = [f"{kind} of {version}" for version, kind in missing]
    return f"the API server does not serve {', '.join(names)}" if names else ""
