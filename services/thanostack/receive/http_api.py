"""Remote write over HTTP: a raw ASGI callable, with the few other pages behind it.

    POST /api/v1/receive   POST /api/v1/write     the write path
    the same with slashes or case off             307 to it, as Go's router does
    anything else                                 the application behind

| what | 1.0 | 2.0 |
|---|---|---|
| stored, or an exact duplicate | 200 | 200 |
| malformed, bad tenant, bad replica | 400 | 400 |
| samples refused; the others are stored | 409 | 400 |
| a type or encoding that remote write does not have | not looked at | 415 |
| too large | 413 | 413 |
| bounds of a tenant | 429 | 429 |
| too many wait, or bytes in flight; a body that does not come; no quorum | 503 | 503 |
| not ready, disk full, quarantined | 503 | 503 |
| no hashring for the tenant | 500 | 500 |

429 and 503 carry `Retry-After`. 2.0 answers with the `…-Written` headers, counting what is stored.

No framework is in the way: its routing and request objects cost more than the write itself. Nor is
a task, where a request has come whole and storage takes it at once (`answer_now`). What a
sender can make us hold is bounded: the compressed body while it is read, its declared length before
memory is taken, all bodies together, and how many wait (`write_pace`).

Source: Thanos `pkg/receive/handler.go`; Prometheus remote-write specifications 1.0 and 2.0.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import Gauge

from thanostack.lib.foundation.errors import (
    InvalidInput,
    NotReady,
    ThanostackError,
    Unavailable,
)
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.model.label_runs import Uint8Array
from thanostack.lib.remotewrite.body_shape import check_shape
from thanostack.lib.remotewrite.negotiation import (
    UnsupportedMedia,
    Version,
    negotiate,
)
from thanostack.lib.remotewrite.snappy_body import BodyBuffers, checked_length, decode_into
from thanostack.lib.tenancy.rule import TenantRule
from thanostack.receive.admission import Admission, open_to_all
from thanostack.receive.failure_log import FailureLog
from thanostack.receive.metrics import ReceiveMetrics
from thanostack.receive.request_body import (
    BodyLimits,
    ClientGone,
    HeldBytes,
    InflightBytes,
    read_body,
)
from thanostack.receive.service import INLINE_BYTES_MAX, Outcome
from thanostack.receive.write_gate import Turn
from thanostack.receive.write_pace import WritePace
from thanostack.runtime.error_mapping import remote_write_status
from thanostack.runtime.http_common import (
    ASGI,
    CLIENT_CERTIFICATE,
    Answer,
    Receive,
    Scope,
    Send,
    failure_answer,
    send_answer,
)
from thanostack.runtime.logs import Logger
from thanostack.runtime.probes import Probes

WRITE_PATHS: Final = frozenset({"/api/v1/receive", "/api/v1/write"})
_SUCCESS: Final = Answer(200)
_ALLOW: Final = (b"allow", b"OPTIONS, POST")
_OPTIONS: Final = Answer(200, headers=(_ALLOW,))
_METHOD_NOT_ALLOWED: Final = Answer(405, b"Method Not Allowed\n", headers=(_ALLOW,))
_REPLICA_DIGITS_MAX: Final = 19


@dataclass(frozen=True)
class WriteOptions:
    """How requests are taken.

    Args:
        rule: finds the tenant.
        limits: what one sender may make us hold.
        replica_header: names the replica that a request is already; a number from 1.
    """

    rule: TenantRule
    limits: BodyLimits
    replica_header: str = "THANOS-REPLICA"


class WriteTarget(Protocol):
    """What takes a decoded request: this node's storage, or a router."""

    async def write(
        self, tenant: Tenant, body: Uint8Array, version: Version, replica: int = 0
    ) -> Outcome:
        """Write a request and return what happened.

        Args:
            tenant: whose it is.
            body: uint8[n]; must not change until this returns.
            version: of remote write.
            replica: number from 1 of a request that is a replica already; 0 for others.
        """

    def write_now(self, tenant: Tenant, body: Uint8Array, version: Version) -> Outcome | None:
        """Write a request if that takes no waiting, else do nothing and return None."""


class WriteAPI:
    """The write port's ASGI application.

    Args:
        target: does the writing.
        options: how requests are taken.
        metrics: told about every request.
        probes: until ready, writes are answered 503.
        log: told about failures of ours.
        pages: answers every other path.
        admission: limits and relabeling; None for none.
        pace: how many are taken on before the loop looks at everything else, and the bytes in
            flight; None for one of its own.
    """

    def __init__(
        self,
        target: WriteTarget,
        options: WriteOptions,
        *,
        metrics: ReceiveMetrics,
        probes: Probes,
        log: Logger,
        pages: ASGI,
        admission: Admission | None = None,
        pace: WritePace | None = None,
    ) -> None:
        self._admission = admission or open_to_all(log)
        self._target, self._rule, self._limits = target, options.rule, options.limits
        self._replica_header = options.replica_header.lower().encode()
        self._metrics, self._probes, self._pages = metrics, probes, pages
        self._failures = FailureLog(log, metrics.failed)
        self._pace = pace or WritePace(None, InflightBytes(options.limits.inflight_bytes_max))
        self._inflight, self.when_turn = self._pace.inflight, self._pace.when_turn
        self._buffers = BodyBuffers()
        self._pending = 0
        metrics.pending.set_function(lambda: self._pending)
        metrics.inflight_bytes.set_function(lambda: self._inflight.held)
        self.direct_paths = frozenset(path.encode() for path in WRITE_PATHS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] not in WRITE_PATHS:
            moved = moved_to(scope) if scope["type"] == "http" else None
            await (self._pages(scope, receive, send) if moved is None else send_answer(send, moved))
        elif scope["method"] == "OPTIONS":
            await send_answer(send, _OPTIONS)
        elif scope["method"] != "POST":
            await send_answer(send, _METHOD_NOT_ALLOWED)
        else:
            self._pending += 1
            try:
                request = _Request(scope["headers"], scope.get(CLIENT_CERTIFICATE))
                await self._write(request, receive, send)
            finally:
                self._pending -= 1

    async def _write(self, request: _Request, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        held, turn = HeldBytes(self._inflight), self._admission.turn()
        try:
            outcome = await self._take(request, receive, held, turn)
            answer = self._answered(request, outcome)
        except ClientGone:
            return
        except Exception as error:
            answer = self._failed(request, error)
        finally:
            held.release()
            turn.end()
            if request.had_turn:
                self._pace.leave()
            if request.in_flight is not None:
                request.in_flight.dec()
        if answer.status == 503:
            await self._pace.to_refuse()
        await send_answer(send, answer)
        self._observe(request, answer, started)

    def answer_now(
        self,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        refused: Unavailable | None = None,
    ) -> Answer | None:
        """Return the answer to a write whose body is there, or None if it cannot be had at once.

        Args:
            headers: names in lower case.
            body: all of it; not looked at if it is refused.
            refused: why its turn does not come.
        """
        started = time.perf_counter()
        request = _Request(headers)
        held, turn = HeldBytes(self._inflight), self._admission.turn()
        try:
            self._identify(request, refused)
            outcome = self._take_now(request, body, held, turn)
            if outcome is None:
                return None
            turn.count()
            answer = self._answered(request, outcome)
        except Exception as error:
            answer = self._failed(request, error)
        finally:
            held.release()
            turn.end()
        self._observe(request, answer, started)
        return answer

    def _answered(self, request: _Request, outcome: Outcome) -> Answer:
        answer = answer_of(outcome, request.version)
        self._metrics.observe(outcome, answer.status)
        error = outcome.error()
        if error is not None and answer.status >= 500:
            self._failures.add(request.tenant, error)
        for tenant, reasons in outcome.refusals():
            self._failures.refused(tenant, reasons)
        return answer

    def _failed(self, request: _Request, error: Exception) -> Answer:
        if not isinstance(error, ThanostackError):
            self._failures.add(request.tenant, error)
        return failure_of(error, request.version)

    def _observe(self, request: _Request, answer: Answer, started: float) -> None:
        self._metrics.http.bound("receive", "post", request.tenant, answer.status).observe(
            time.perf_counter() - started, request.received_bytes, len(answer.body)
        )

    # The same steps twice: as they come, and without ever waiting.

    async def _take(
        self, request: _Request, receive: Receive, held: HeldBytes, turn: Turn
    ) -> Outcome:
        self._identify(request)
        request.in_flight = self._metrics.http.in_flight("receive", "post", request.tenant)
        request.in_flight.inc()
        await turn.come()
        declared = int(request.headers.get(b"content-length", b"0"))
        self._check_head(request, declared)
        block = await read_body(receive, declared, self._limits, held)
        length = self._decoded_length(request, block)
        await self._pace.come()
        request.had_turn = True
        held.add(length)
        buffer = self._buffers.take(length)
        await self._decode(block, buffer, length)
        check_shape(buffer[:length], request.version)
        admitted = await self._admission.admit(request.tenant, buffer[:length], request.version)
        outcome = await self._target.write(
            request.tenant, admitted.body, request.version, request.replica
        )
        outcome.dropped = (admitted.dropped_samples, admitted.dropped_histograms)
        # Only now: after an exception storage might still read it, and a lost buffer costs little.
        self._buffers.give_back(buffer)
        return outcome

    def _take_now(
        self, request: _Request, block: bytes, held: HeldBytes, turn: Turn
    ) -> Outcome | None:
        if not turn.come_now():
            return None
        self._limits.check_size(len(block))
        self._check_head(request, len(block))
        held.add(len(block))
        length = self._decoded_length(request, block)
        if length > INLINE_BYTES_MAX:
            return None
        held.add(length)
        buffer = self._buffers.take(length)
        decode_into(block, buffer, length)
        check_shape(buffer[:length], request.version)
        admitted = self._admission.admit_now(request.tenant, buffer[:length], request.version)
        outcome = None
        if admitted is not None:
            outcome = self._target.write_now(request.tenant, admitted.body, request.version)
            if outcome is not None:
                self._admission.used(admitted)
                outcome.dropped = (admitted.dropped_samples, admitted.dropped_histograms)
        self._buffers.give_back(buffer)
        return outcome

    def _identify(self, request: _Request, refused: Unavailable | None = None) -> None:
        if not self._probes.takes_requests:
            raise NotReady(f"not ready: {self._probes.reason}")
        request.tenant = self._rule.tenant_of(request.headers, request.certificate)
        if refused is not None:
            raise refused

    def _check_head(self, request: _Request, declared: int) -> None:
        self._admission.check_active_series(request.tenant)
        request.version = negotiate(request.headers)
        request.replica = self._replica_of(request.headers)
        self._admission.check_size(request.tenant, declared)

    def _decoded_length(self, request: _Request, block: bytes | bytearray) -> int:
        request.received_bytes = len(block)
        length = checked_length(block, self._limits.decoded_bytes_max)
        self._admission.check_size(request.tenant, length)
        return length

    async def _decode(self, block: bytes | bytearray, buffer: Uint8Array, length: int) -> None:
        if length <= INLINE_BYTES_MAX:
            decode_into(block, buffer, length)
        else:
            await asyncio.to_thread(decode_into, block, buffer, length)

    def _replica_of(self, headers: Mapping[bytes, bytes]) -> int:
        value = headers.get(self._replica_header)
        if not value:
            return 0
        # Upstream: an unsigned number of 64 bits.
        if not value.isdigit() or len(value) > _REPLICA_DIGITS_MAX:
            raise InvalidInput("could not parse replica header")
        return int(value)


class _Request:
    """What is known about a request so far."""

    __slots__ = (
        "certificate",
        "had_turn",
        "headers",
        "in_flight",
        "received_bytes",
        "replica",
        "tenant",
        "version",
    )

    def __init__(
        self, headers: Sequence[tuple[bytes, bytes]], certificate: bytes | None = None
    ) -> None:
        # The first of a name counts.
        self.headers, self.certificate = dict(reversed(headers)), certificate
        self.in_flight: Gauge | None = None
        self.had_turn = False
        self.received_bytes = self.replica = 0
        self.tenant = Tenant("")
        self.version: Version = 1


def moved_to(scope: Scope) -> Answer | None:
    """Return where a write to a path that is nearly right belongs; None for any other request.

    Senders configured with a slash too many work with upstream by being sent on, body and all; a
    404 would make a Prometheus drop what it has.
    """
    meant = "/" + "/".join(part for part in scope["path"].lower().split("/") if part)
    if scope["method"] != "POST" or meant not in WRITE_PATHS:
        return None
    query: bytes = scope.get("query_string", b"")
    return Answer(307, headers=((b"location", meant.encode() + (b"?" + query if query else b"")),))


def answer_of(outcome: Outcome, version: Version) -> Answer:
    """Return the answer to a request that reached storage."""
    error = outcome.error()
    if version == 1:
        return _SUCCESS if error is None else failure_of(error, version)
    written = _written_headers(outcome)
    if error is None:
        return Answer(200, headers=written)
    failure = failure_of(error, version)
    return Answer(failure.status, failure.body, headers=failure.headers + written)


def _written_headers(outcome: Outcome) -> tuple[tuple[bytes, bytes], ...]:
    """Count what is stored; results count histograms as seen, and refused where they are not."""
    results, (samples, histograms) = outcome.results, outcome.dropped
    counts = {
        b"samples": samples + sum(result.stored + result.duplicates for result in results),
        b"histograms": histograms
        + sum(r.histograms - r.rejected.get("histogram", 0) for r in results),
        # Exemplars are not stored yet, whatever was seen.
        b"exemplars": 0,
    }
    return tuple(
        (b"x-prometheus-remote-write-%s-written" % kind, b"%d" % count)
        for kind, count in counts.items()
    )


def failure_of(error: Exception, version: Version) -> Answer:
    """Return the answer to a request that could not be carried out, or not wholly."""
    status = 415 if isinstance(error, UnsupportedMedia) else remote_write_status(error, version)
    return failure_answer(status, error)
