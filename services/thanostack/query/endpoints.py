"""One StoreAPI endpoint as the fan-out sees it: behind a socket, or in this process.

Calls to remote endpoints run on the event loop and hand raw bytes on; local ones are asked in the
thread that merges. Messages have no size limit of gRPC's own; what a query may fetch is bounded by
its `Call`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import grpc
import grpc.aio

from thanostack.lib.foundation.errors import EndpointUnavailable, LimitExceeded
from thanostack.lib.model.matchers import Matcher
from thanostack.lib.promql.engine.options import Deadline
from thanostack.lib.storeapi.info import EndpointInfo
from thanostack.lib.storeapi.server import StoreServer
from thanostack.query.discovery import EndpointSpec
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.grpc_call import FinishedCall, Observer
from thanostack.runtime.grpc_metrics import code_name
from thanostack.runtime.tls_options import ClientTLSOptions
from thanostack.runtime.tls_ports import TLS, ClientTLS
from thanostack.runtime.tls_wire import open_wire

T = TypeVar("T")
SERIES: Final = "/thanos.Store/Series"
LABEL_NAMES: Final = "/thanos.Store/LabelNames"
LABEL_VALUES: Final = "/thanos.Store/LabelValues"
INFO: Final = "/thanos.info.Info/Info"

_END: Final[Any] = grpc.aio.EOF  # type: ignore[attr-defined]
_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
# A group: calls go round its addresses, and once more elsewhere if one is down.
_GROUP_CONFIG: Final = (
    '{"loadBalancingConfig":[{"round_robin":{}}],"methodConfig":[{"name":[{}],"retryPolicy":'
    '{"maxAttempts":3,"initialBackoff":"0.1s","maxBackoff":"0.4s","backoffMultiplier":2,'
    '"retryableStatusCodes":["UNAVAILABLE"]}}]}'
)


@dataclass(slots=True)
class Call:
    """What goes with every call of one request.

    Args:
        deadline: when to give up.
        metadata: sent along: tenant and path.
        response_timeout_s: longest wait for the next message; 0 is none.
        bytes_max: what all calls together may fetch.
        abort: whether one failed endpoint fails the request.
        store_matchers: alternatives, each on `__address__`; empty chooses all endpoints.
    """

    deadline: Deadline = field(default_factory=Deadline)
    metadata: tuple[tuple[str, str], ...] = ()
    response_timeout_s: float = 0.0
    bytes_max: int = 4 << 30
    abort: bool = False
    store_matchers: tuple[tuple[Matcher, ...], ...] = ()
    fetched_bytes: int = 0

    def add_bytes(self, count: int) -> None:
        """Count fetched bytes.

        Raises:
            LimitExceeded: when the request has fetched too much.
        """
        self.fetched_bytes += count
        if self.fetched_bytes > self.bytes_max:
            raise LimitExceeded("query.fetched-bytes-max", self.bytes_max, self.fetched_bytes)


class Endpoint(Protocol):
    """An endpoint: its name, its own description, and whether a socket lies between."""

    @property
    def name(self) -> str:
        """Return its address, or a name for one in this process."""
        ...

    @property
    def info(self) -> EndpointInfo:
        """Return what it last said about itself."""
        ...

    @property
    def local(self) -> StoreServer | None:
        """Return the server itself if it is in this process."""
        ...

    async def series(self, request: bytes, call: Call) -> list[bytes]:
        """Return the frames of a Series call."""
        ...

    async def unary(self, method: str, request: bytes, call: Call) -> bytes:
        """Return the answer to a call of one message."""
        ...


def describe(endpoint: Endpoint) -> str:
    """Return an endpoint as upstream writes it in warnings."""
    info = endpoint.info
    sets = ",".join(
        "{" + ", ".join(f'{n.decode()}="{v.decode(errors="replace")}"' for n, v in labels) + "}"
        for labels in info.label_sets
    )
    return f"Addr: {endpoint.name} LabelSets: {sets} MinTime: {info.mint} MaxTime: {info.maxt}"


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A StoreServer in this process, as an endpoint without a wire."""

    name: str
    local: StoreServer

    @property
    def info(self) -> EndpointInfo:
        """Return what it says about itself now."""
        return self.local.describe()

    async def series(self, request: bytes, call: Call) -> list[bytes]:
        """Refuse: whoever merges takes `local.select`, without frames."""
        del request, call
        raise AssertionError("local endpoints are not streamed")

    async def unary(self, method: str, request: bytes, call: Call) -> bytes:
        """Return the answer to a call of one message."""
        del call
        methods: dict[str, Callable[[bytes], bytes]] = {
            LABEL_NAMES: self.local.label_names,
            LABEL_VALUES: self.local.label_values,
        }
        return await asyncio.to_thread(methods[method], request)


class EndpointTLS:
    """TLS towards endpoints, one object for all that ask for the same.

    Args:
        tls: of the process.
        observer: told about every call to one of them.
    """

    def __init__(self, tls: TLS, observer: Observer | None = None) -> None:
        self._tls, self._observer = tls, observer
        self._known: dict[ClientTLSOptions, ClientTLS] = {}

    def prepare(self, specs: Iterable[EndpointSpec]) -> None:
        """Try the files of all endpoints, and forget those of others.

        Raises:
            SettingsInvalid: if a file is bad; then nothing has changed.
        """
        wanted = {spec.tls for spec in specs if spec.tls is not None}
        made = {
            options: self._known.get(options) or ClientTLS(self._tls, "endpoints", options=options)
            for options in wanted
        }
        self._known = made

    def connect(self, spec: EndpointSpec, info: EndpointInfo) -> RemoteEndpoint:
        """Return an endpoint that was prepared."""
        tls = None if spec.tls is None else self._known[spec.tls]
        return RemoteEndpoint(spec, info, tls, observer=self._observer)


class RemoteEndpoint:
    """An endpoint behind a socket; made and used on the event loop.

    Args:
        spec: address, strictness, whether it is a group.
        info: what is assumed until it answers.
        tls: towards it, as the spec asks for; None for plain text.
        observer: told about every call.
    """

    local: Final = None

    def __init__(
        self,
        spec: EndpointSpec,
        info: EndpointInfo,
        tls: ClientTLS | None = None,
        *,
        observer: Observer | None = None,
    ) -> None:
        self.spec, self.info = spec, info
        self._observer = observer or Observer()
        is_looked_up = spec.group and tls is None
        address = f"dns:///{spec.address}" if is_looked_up else spec.address
        self._wire = open_wire(address, tls, members=spec.members)
        options: list[tuple[str, Any]] = [*_OPTIONS, *self._wire.options]
        if spec.group:
            options.append(("grpc.service_config", spec.service_config or _GROUP_CONFIG))
        self._channel = _connect(self._wire.target, options)

    @property
    def name(self) -> str:
        """Return its address."""
        return self.spec.address

    async def ask_info(self, timeout_s: float) -> bytes:
        """Return an InfoResponse.

        Raises:
            EndpointUnavailable: if it does not answer in time.
        """
        return await self._guarded(INFO, self._unary(INFO, b"", (), timeout_s))

    async def unary(self, method: str, request: bytes, call: Call) -> bytes:
        """Return the answer to a call of one message.

        Raises:
            EndpointUnavailable: for any failure.
            LimitExceeded: when the request has fetched too much.
        """
        timeout_s = _remaining_s(call.deadline)
        if call.response_timeout_s:
            timeout_s = min(call.response_timeout_s, timeout_s or call.response_timeout_s)
        work = self._unary(method, request, call.metadata, timeout_s)
        answer = await self._guarded(method, work)
        call.add_bytes(len(answer))
        return answer

    async def series(self, request: bytes, call: Call) -> list[bytes]:
        """Return the frames of a Series call.

        Raises:
            EndpointUnavailable: for any failure.
            LimitExceeded: when the request has fetched too much.
        """
        frames: list[bytes] = []
        await self._guarded(SERIES, self._stream(request, call, frames), frames)
        return frames

    async def close(self, grace_s: float | None = None) -> None:
        """Close the connection once its calls have ended, or after a while.

        Args:
            grace_s: the while; None to cancel calls at once.
        """
        await self._channel.close(grace_s)
        await self._wire.close()

    async def _guarded(self, method: str, work: Awaitable[T], frames: Sequence[bytes] = ()) -> T:
        """Return what a call answers; `frames` is where a stream's messages gather."""
        is_stream, started_s = method == SERIES, time.monotonic()
        self._observer.started(method, is_stream=is_stream)
        code = GrpcCode.CANCELLED  # unless it comes to an end of its own
        try:
            answer = await work
            code = GrpcCode.OK
        except grpc.aio.AioRpcError as error:
            code = GrpcCode(error.code().value[0])
            details = self._wire.explain(error.details() or "")
            text = f"rpc error: code = {code_name(code)} desc = {details}"
            raise EndpointUnavailable(text) from error
        finally:
            duration_s = time.monotonic() - started_s
            n_received = len(frames) if is_stream else int(code is GrpcCode.OK)
            self._observer.ended(FinishedCall(method, is_stream, code, duration_s, n_received, 1))
        return answer

    async def _unary(
        self, method: str, request: bytes, metadata: Any, timeout_s: float | None
    ) -> bytes:
        answer: bytes = await self._channel.unary_unary(method, None, None)(
            request, metadata=metadata, timeout=timeout_s
        )
        return answer

    async def _stream(self, request: bytes, call: Call, frames: list[bytes]) -> None:
        stream = self._channel.unary_stream(SERIES, None, None)(
            request, metadata=call.metadata, timeout=_remaining_s(call.deadline)
        )
        try:
            while True:
                frame = await self._read(stream, call.response_timeout_s)
                if frame is _END:
                    return
                frames.append(frame)
                call.add_bytes(len(frame))
        finally:
            stream.cancel()

    @staticmethod
    async def _read(stream: Any, timeout_s: float) -> Any:
        if not timeout_s:
            return await stream.read()
        try:
            async with asyncio.timeout(timeout_s):
                return await stream.read()
        except TimeoutError as error:
            text = f"failed to receive any data in {timeout_s:g}s"
            raise EndpointUnavailable(text) from error


def _connect(target: str, options: list[tuple[str, Any]]) -> Any:
    # Any: the stubs do not know that serializers may be None, which hands bytes through.
    return grpc.aio.insecure_channel(target, options)


def _remaining_s(deadline: Deadline) -> float | None:
    if deadline.expires_s is None:
        return None
    return max(deadline.expires_s - time.monotonic(), 0.001)
