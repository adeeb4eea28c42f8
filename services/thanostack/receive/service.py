"""One write: its series by tenant, handed to storage, and the sum of what happened.

    body ──[split label]──> parts ──TSDB of each tenant──> Outcome

A part that fails does not stop the others, and nothing is taken back: what was stored stays, and
the outcome names the rest. What a sender should do decides which failure speaks for the request:
if anything is worth a retry, the answer says so; samples stored by then are exact duplicates next
time, which is success.

Bodies up to a bound are appended on the event loop, as that takes less than a millisecond; larger
ones, and the first write of a tenant, which opens its TSDB, in a thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final, Protocol

from thanostack.lib.foundation.errors import (
    LimitExceeded,
    Quarantined,
    SampleRejected,
    ThanostackError,
    Unavailable,
)
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.model.label_runs import Uint8Array
from thanostack.lib.remotewrite.negotiation import Version
from thanostack.lib.remotewrite.split import Part, count_series, split_by_label
from thanostack.lib.tenancy.names import tenant_of_bytes
from thanostack.lib.tsdb.options import WriteResult

INLINE_BYTES_MAX: Final = 1 << 20
"""Largest decoded body that is appended on the loop: about 5,000 samples, a millisecond."""


Done = Callable[["WriteResult | Exception"], None]


class Writer(Protocol):
    """A tenant's TSDB, as far as writing goes."""

    def append(self, body: Uint8Array, done: Done, *, version: int = 1) -> None:
        """Append a decoded request; `done` is called inline or later, from any thread."""

    def append_now(self, body: Uint8Array, *, version: int = 1) -> WriteResult | None:
        """Append a decoded request if that takes no waiting, else do nothing and return None."""

    def append_and_wait(self, body: Uint8Array, *, version: int = 1) -> WriteResult:
        """Append a decoded request and return what happened."""


class Storage(Protocol):
    """All tenants' TSDBs."""

    def tsdb(self, tenant: Tenant) -> Writer:
        """Return a tenant's TSDB, opened if need be; may block."""

    def tenants(self) -> Mapping[Tenant, Writer]:
        """Return the TSDBs that are open."""


@dataclass
class Outcome:
    """What became of one request.

    Args:
        parts: tenant, number of series, and its result or failure.
        failure: of the request as a whole, where that is not known by part.
        dropped: samples and histograms that relabeling took out on purpose: they count as written.
    """

    parts: list[tuple[Tenant, int, WriteResult | Exception]] = field(default_factory=list)
    failure: Exception | None = None
    dropped: tuple[int, int] = (0, 0)

    @property
    def results(self) -> list[WriteResult]:
        """Return the results of the parts that did not fail."""
        return [result for _, _, result in self.parts if not isinstance(result, Exception)]

    @property
    def rejected(self) -> Counter[str]:
        """Return how many samples were refused, by reason."""
        total: Counter[str] = Counter()
        for result in self.results:
            total.update(result.rejected)
        return total

    def refusals(self) -> Iterator[tuple[Tenant, Mapping[str, int]]]:
        """Yield whose samples were refused here, and how many of them for each reason."""
        for tenant, _, result in self.parts:
            if not isinstance(result, Exception) and result.rejected:
                yield tenant, result.rejected

    def error(self) -> Exception | None:
        """Return the failure that speaks for the request, None if all was stored."""
        if self.failure is not None:
            return self.failure
        failures = [result for _, _, result in self.parts if isinstance(result, Exception)]
        limits = [r.series_limit for r in self.results if "series_limit" in r.rejected]
        if limits:
            # Worth a retry, and what is stored by then is an exact duplicate; so it goes before
            # what else was refused, and the text names that too.
            failures.append(self._above_series_limit(max(limits)))
        elif any(result.rejected for result in self.results):
            failures.append(SampleRejected(self._rejection()))
        return min(failures, key=_precedence, default=None)

    def _above_series_limit(self, limit: int) -> LimitExceeded:
        text, detail = "tenant is above active series limit", self._rejection()
        return LimitExceeded("head_series_limit", limit, limit + 1, text=text, detail=detail)

    def _rejection(self) -> str:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(self.rejected.items()))
        stored = sum(result.stored + result.duplicates for result in self.results)
        samples = sum(result.samples for result in self.results)
        example = next((result.example for result in self.results if result.example), "")
        text = f"refused: {reasons}; {stored} of {samples} samples are stored"
        return f"{text}; for example: {example}" if example else text


def _precedence(error: Exception) -> int:
    if isinstance(error, Unavailable | Quarantined):
        return 0
    if not isinstance(error, ThanostackError):
        return 1
    if isinstance(error, LimitExceeded):
        return 2
    return 4 if isinstance(error, SampleRejected) else 3


def _settle(
    answer: asyncio.Future[WriteResult | Exception], result: WriteResult | Exception
) -> None:
    if not answer.done():  # nobody waits any more once the request was cancelled
        answer.set_result(result)


class WriteService:
    """Writes requests to the TSDBs of their tenants.

    Args:
        storage: all tenants' TSDBs.
        pool: where large bodies are appended and TSDBs are opened.
        split_label: label whose value is the tenant; empty for none.
    """

    def __init__(self, storage: Storage, pool: Executor, *, split_label: str = "") -> None:
        self._storage, self._pool = storage, pool
        self._split_label = split_label.encode()

    async def write(
        self, tenant: Tenant, body: Uint8Array, version: Version, replica: int = 0
    ) -> Outcome:
        """Write one decoded request; return when storage has answered for all of it.

        Args:
            tenant: of series without the split label.
            body: uint8[n]; must not change until this returns.
            version: of remote write.
            replica: not looked at: an ingestor stores whatever it is sent.

        Raises:
            InvalidInput: if the body is malformed at its top level, or names an invalid tenant.
            LimitExceeded: if it would be split into too many parts.
        """
        del replica
        if not self._split_label:
            n_series = count_series(body, version)
            result = await self._append(tenant, body, version) if n_series else None
            return Outcome([(tenant, n_series, result)] if result is not None else [])
        parts = await self._split(tenant, body, version)
        appended = [self._append(name, part, version) for name, part in parts]
        results = await asyncio.gather(*appended)
        return Outcome(
            [
                (name, count_series(part, version), result)
                for (name, part), result in zip(parts, results, strict=True)
            ]
        )

    def write_now(self, tenant: Tenant, body: Uint8Array, version: Version) -> Outcome | None:
        """Write one decoded request if that takes no waiting, else do nothing and return None.

        Args:
            tenant: of all series.
            body: uint8[n], at most INLINE_BYTES_MAX.
            version: of remote write.

        Raises:
            InvalidInput: if the body is malformed at its top level.
        """
        tsdb = None if self._split_label else self._storage.tenants().get(tenant)
        if tsdb is None:
            return None
        try:
            result = tsdb.append_now(body, version=version)
        except ThanostackError as error:
            return Outcome([(tenant, count_series(body, version), error)])
        if result is None:
            return None
        return Outcome([(tenant, result.series, result)] if result.series else [])

    def write_parts(self, parts: Sequence[Part], default: Tenant) -> Outcome:
        """Write each tenant's part of a forwarded request and wait; not for the event loop.

        Raises:
            InvalidInput: if a tenant's name is invalid; nothing was written then.
        """
        named = [(tenant_of_bytes(p.tenant) if p.tenant else default, p.body) for p in parts]
        outcome = Outcome()
        for tenant, body in named:
            outcome.parts.append((tenant, count_series(body), self._append_and_wait(tenant, body)))
        return outcome

    async def _split(
        self, tenant: Tenant, body: Uint8Array, version: Version
    ) -> list[tuple[Tenant, Uint8Array]]:
        if version == 1 and len(body) <= INLINE_BYTES_MAX:
            parts = split_by_label(body, self._split_label)
        else:
            parts = await asyncio.get_running_loop().run_in_executor(
                self._pool, split_by_label, body, self._split_label, version
            )
        return [(tenant_of_bytes(p.tenant) if p.tenant else tenant, p.body) for p in parts]

    async def _append(
        self, tenant: Tenant, body: Uint8Array, version: Version
    ) -> WriteResult | Exception:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[WriteResult | Exception] = loop.create_future()
        here = threading.get_ident()

        def done(result: WriteResult | Exception) -> None:
            # A future belongs to its loop's thread, and storage answers on whichever has the work.
            if threading.get_ident() == here:
                _settle(answer, result)
            else:
                loop.call_soon_threadsafe(_settle, answer, result)

        try:
            tsdb = self._storage.tenants().get(tenant)
            if tsdb is not None and len(body) <= INLINE_BYTES_MAX:
                tsdb.append(body, done, version=version)
            else:
                await loop.run_in_executor(
                    self._pool, self._open_and_append, tenant, body, done, version
                )
        except ThanostackError as error:
            return error
        return await answer

    def _open_and_append(
        self, tenant: Tenant, body: Uint8Array, done: Done, version: Version
    ) -> None:
        self._storage.tsdb(tenant).append(body, done, version=version)

    def _append_and_wait(self, tenant: Tenant, body: Uint8Array) -> WriteResult | Exception:
        try:
            return self._storage.tsdb(tenant).append_and_wait(body)
        except ThanostackError as error:
            return error
