"""A gRPC client on the `h2` package: the independent opinion about our own HTTP/2 side.

It compresses with framed snappy as a Thanos router does, cuts DATA frames at 16 KiB as grpc-go
does, keeps to the windows it is given, and can misbehave on request: `write` puts any bytes on the
wire.

    async with H2Client(port) as client:
        answer = await client.call("/thanos.WriteableStore/RemoteWrite", b"…")
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import cramjam
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

_GO_FRAME_BYTES = 1 << 14
_GOAWAY = 7


def snappy_message(body: bytes) -> bytes:
    """Return a gRPC message compressed with framed snappy."""
    packed = bytes(cramjam.snappy.compress(body))
    return struct.pack(">BI", 1, len(packed)) + packed


def plain_message(body: bytes) -> bytes:
    """Return a gRPC message that is not compressed."""
    return struct.pack(">BI", 0, len(body)) + body


@dataclass
class Answer:
    """What has come back on one stream; `done` when nothing more will come."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    reset_code: int | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> int:
        """Return grpc-status; -1 without one."""
        return int(self.headers.get("grpc-status", "-1"))

    @property
    def text(self) -> str:
        """Return grpc-message, decoded."""
        return unquote(self.headers.get("grpc-message", ""))

    @property
    def messages(self) -> list[bytes]:
        """Return the messages of the body."""
        found, position = [], 0
        while position < len(self.body):
            flag, length = struct.unpack_from(">BI", self.body, position)
            assert flag == 0
            found.append(bytes(self.body[position + 5 : position + 5 + length]))
            position += 5 + length
        return found


class H2Client:
    """One connection.

    Args:
        port: on 127.0.0.1.
        window: the initial stream window that the server is given.
        reads: whether to read answers; False to play a client that has stopped listening.
    """

    def __init__(self, port: int, *, window: int = 65535, reads: bool = True) -> None:
        self._port, self._reads = port, reads
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        codes = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(
            client=True, initial_values={codes.INITIAL_WINDOW_SIZE: window}
        )
        self.answers: dict[int, Answer] = {}
        self.closed = asyncio.Event()
        self.goaway_code: int | None = None
        self.goaway_last: int | None = None
        self._tail = b""
        self.pongs = 0
        self._windows = asyncio.Condition()

    async def __aenter__(self) -> Self:
        """Connect and greet."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.h2.initiate_connection()
        self.flush()
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self._task.cancel()
        self.writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self.writer.wait_closed()

    def flush(self) -> None:
        """Write what the h2 machine has to say."""
        self.writer.write(self.h2.data_to_send())

    def write(self, data: bytes) -> None:
        """Write any bytes."""
        self.writer.write(data)

    def begin(
        self, path: str, encoding: str | None = "snappy", *extra: tuple[str, str]
    ) -> tuple[int, Answer]:
        """Send a request's headers; return its stream and the answer to be."""
        stream_id = self.h2.get_next_available_stream_id()
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test"),
            ("content-type", "application/grpc"), ("te", "trailers"),
            *([("grpc-encoding", encoding)] if encoding else []), *extra,
        ]  # fmt: skip
        self.h2.send_headers(stream_id, headers)
        self.answers[stream_id] = Answer()
        self.flush()
        return stream_id, self.answers[stream_id]

    async def send(self, stream_id: int, data: bytes, *, end: bool = True) -> None:
        """Send a request's body, as fast as the windows allow."""
        while data:
            async with self._windows:
                while not (room := self.h2.local_flow_control_window(stream_id)):
                    await self._windows.wait()
            piece = data[: min(room, _GO_FRAME_BYTES)]
            self.h2.send_data(stream_id, piece)
            data = data[len(piece) :]
            self.flush()
        if end:
            self.h2.end_stream(stream_id)
        self.flush()

    async def call(
        self,
        path: str,
        body: bytes,
        *,
        encoding: str | None = "snappy",
        extra: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        """Make one call, compressed if the encoding is snappy, and wait for its end."""
        stream_id, answer = self.begin(path, encoding, *extra)
        message = snappy_message(body) if encoding == "snappy" else plain_message(body)
        with contextlib.suppress(h2.exceptions.StreamClosedError):  # refused half-way
            await self.send(stream_id, message)
        await asyncio.wait_for(answer.done.wait(), 10)
        return answer

    async def _read(self) -> None:
        while self._reads:
            data = await self.reader.read(1 << 16)
            if not data:
                break
            for event in self.h2.receive_data(self._without_goaway(data)):
                self._handle(event)
            self.flush()
            async with self._windows:
                self._windows.notify_all()
        if self._reads:
            self.closed.set()
            for answer in self.answers.values():
                answer.done.set()

    def _without_goaway(self, data: bytes) -> bytes:
        """Take GOAWAY out of complete frames: h2 would refuse whatever comes after one."""
        self._tail += data
        passed = b""
        while len(self._tail) >= 9:
            end = 9 + int.from_bytes(self._tail[:3], "big")
            if len(self._tail) < end:
                break
            frame, self._tail = self._tail[:end], self._tail[end:]
            if frame[3] == _GOAWAY:
                self.goaway_last = int.from_bytes(frame[9:13], "big")
                self.goaway_code = int.from_bytes(frame[13:17], "big")
            else:
                passed += frame
        return passed

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            self.answers[event.stream_id].headers.update(_texts(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            self.answers[event.stream_id].body.extend(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.answers[event.stream_id].done.set()
        elif isinstance(event, h2.events.StreamReset):
            self.answers[event.stream_id].reset_code = int(event.error_code)
            self.answers[event.stream_id].done.set()
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1


def _texts(headers: Iterable[tuple[str | bytes, str | bytes]]) -> dict[str, str]:
    """Return headers as the texts that h2 was told to make of them."""
    return {str(name): str(value) for name, value in headers}
