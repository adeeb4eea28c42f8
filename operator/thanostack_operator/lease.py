"""One active operator at a time, by a Lease in the operator's own namespace.

Whoever holds it reconciles; whoever cannot renew it within `RENEW_S` stops, before the Lease can
pass to another after `LEASE_S`. A clean stop gives it back, so that the next one need not wait.

Whether a Lease has expired is judged by this process's own clock, from when it last saw the Lease
change: clocks of other machines do not matter. Every write names the version that it replaces.
Our own rather than the client library's, which cannot create a Lease (its `pretty=True` fails its
own validation in release 37).
Source: client-go, `tools/leaderelection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from .kube import LEASES, ApiError, KubeClient
from .manifests.names import Object
from .plan.observed import dig
from .settings import LEASE_NAME

LEASE_S = 15
RENEW_S = 10
RETRY_S = 2

log = logging.getLogger(__name__)


class LeaseLost(RuntimeError):
    """The Lease was held and could not be renewed in time, or another took it."""


@dataclass
class Lease:
    """The Lease as this process sees it.

    Args:
        namespace: where it is.
        identity: who would hold it; no two processes may share one.
        name: of the Lease; operators that share one take turns.
    """

    kube: KubeClient
    namespace: str
    identity: str
    name: str = LEASE_NAME
    _version: str = ""
    _seen: Object = field(default_factory=dict)
    _seen_at: float = 0.0

    async def acquire(self) -> None:
        """Return once this process holds the Lease."""
        while not await self._try_acquire():  # noqa: ASYNC110 - nobody here would set an event
            await asyncio.sleep(RETRY_S)

    async def renew(self) -> None:
        """Renew for as long as it can be done.

        Raises:
            LeaseLost: once it cannot.
        """
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(RETRY_S)
            begun = time.monotonic()
            try:
                async with asyncio.timeout(renewed + RENEW_S - begun):
                    await self._renew_once()
                renewed = begun
            except (ApiError, TimeoutError) as error:
                log.warning("lease not renewed: %s", str(error) or "the API server does not answer")
                if time.monotonic() - renewed >= RENEW_S:
                    raise LeaseLost(f"the lease could not be renewed for {RENEW_S} s") from error

    async def give_back(self) -> None:
        """Let the next one have it at once; that this fails costs the next one `LEASE_S`."""
        with contextlib.suppress(ApiError):
            await self._write({"holderIdentity": None})

    async def _try_acquire(self) -> bool:
        try:
            lease = await self.kube.get(LEASES, self.namespace, self.name)
            if lease is None:
                await self.kube.create(self._new(), self.namespace)
                lease = await self.kube.get(LEASES, self.namespace, self.name) or {}
            self._look(lease)
            holder = dig(self._seen, "holderIdentity")
            expired = time.monotonic() - self._seen_at > LEASE_S
            if holder not in (None, "", self.identity) and not expired:
                return False
            now = _now()
            taken = {"holderIdentity": self.identity, "acquireTime": now, "renewTime": now}
            await self._write(taken | {"leaseDurationSeconds": LEASE_S})
        except ApiError as error:
            if error.status != 409:  # another was quicker
                log.warning("lease not acquired: %s", error)
            return False
        return True

    async def _renew_once(self) -> None:
        """Renew; where somebody wrote the Lease meanwhile, see who holds it and renew that.

        Raises:
            ApiError: if it is not renewed.
            LeaseLost: if another holds it.
        """
        try:
            await self._write({"renewTime": _now()})
        except ApiError as error:
            if error.status != 409:
                raise
            self._look(await self.kube.get(LEASES, self.namespace, self.name) or {})
            if (holder := dig(self._seen, "holderIdentity")) != self.identity:
                raise LeaseLost(f"{holder or 'nobody'} holds the lease now") from error
            await self._write({"renewTime": _now()})

    def _look(self, lease: Object) -> None:
        self._version = dig(lease, "metadata", "resourceVersion", default="")
        spec = lease.get("spec") or {}
        if spec != self._seen:
            self._seen, self._seen_at = spec, time.monotonic()

    async def _write(self, spec: dict[str, Any]) -> None:
        body = {"metadata": {"resourceVersion": self._version}, "spec": spec}
        lease = await self.kube.merge(LEASES, self.namespace, self.name, body)
        self._look(lease)

    def _new(self) -> Object:
        return {
            "apiVersion": LEASES[0],
            "kind": LEASES[1],
            "metadata": {"name": self.name},
            "spec": {},
        }


async def lead(lease: Lease, run: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Wait for the Lease, run while holding it, and give it back at the end.

    Returns without having run if ``stop`` is set before the Lease is had.

    Raises:
        LeaseLost: if it could not be renewed; ``run`` has been cancelled by then.
        Exception: what ``run`` raises.
    """
    where = f"{lease.namespace}/{lease.name}"
    log.info("waiting for the lease lease=%s identity=%s", where, lease.identity)
    if not await _before(stop, lease.acquire()):
        return
    log.info("lease acquired lease=%s identity=%s", where, lease.identity)
    renewing = asyncio.ensure_future(lease.renew())
    running = asyncio.ensure_future(run())
    try:
        await asyncio.wait((renewing, running), return_when=asyncio.FIRST_COMPLETED)
        if renewing.done():
            renewing.result()
    finally:
        await _end(renewing, running)
    await lease.give_back()
    running.result()


async def _before(stop: asyncio.Event, work: Awaitable[None]) -> bool:
    """Return whether the work ended well before ``stop`` was set; it is cancelled otherwise."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    ended = working.done()
    await _end(working, stopping)
    if ended:
        working.result()
    return ended


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
