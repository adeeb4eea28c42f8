"""Our HTTP/2 client machine against the `h2` package's server, and against broken servers."""

from __future__ import annotations

import struct

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest

from thanostack.runtime import http2_frames as frames
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.http2_client import OK_END, Http2Client
from thanostack.runtime.http2_frames import ConnectionFailed, H2Code

BLOCK = frames.encode_headers(
    [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x.Y/Z"), (b":authority", b"a")]
)
HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


class Pair:
    """The machine and a server, joined without a network."""

    def __init__(self, window: int = 65535) -> None:
        self.client = Http2Client()
        self.server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        codes = h2.settings.SettingCodes
        self.server.local_settings = h2.settings.Settings(
            client=False, initial_values={codes.INITIAL_WINDOW_SIZE: window}
        )
        self.server.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.complete: list[int] = []
        self.resets: dict[int, int] = {}
        self.reads = True
        self.exchange()

    def exchange(self) -> None:
        while True:
            up = b"".join(bytes(piece) for piece in self.client.take_pieces())
            for event in self.server.receive_data(up) if up else ():
                self.handle(event)
            down = self.server.data_to_send()
            if down:
                self.client.receive(down, 0.0)
            self.client.check()
            if not up and not down:
                return

    def handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
            if self.reads:
                self.server.acknowledge_received_data(len(event.data), event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.complete.append(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = int(event.error_code)

    def call(self, body: bytes = b"message") -> tuple[int, list]:
        ends: list = []
        stream = self.client.call(BLOCK, [memoryview(body)], ends.append)
        self.exchange()
        return stream, ends

    def answer(self, stream: int, *trailers: tuple[str, str], body: bytes = b"") -> None:
        self.server.send_headers(stream, HEADERS)
        if body:
            self.server.send_data(stream, body)
        self.server.send_headers(stream, list(trailers), end_stream=True)
        self.exchange()


def test_a_call_is_sent_and_its_end_is_told() -> None:
    """The server sees the message and its end; OK comes back with an empty message before it."""
    pair = Pair()
    stream, ends = pair.call(b"0123456789")
    assert (pair.bodies[stream], pair.complete) == (b"0123456789", [stream])
    assert ends == []
    pair.answer(stream, ("grpc-status", "0"), body=bytes(5))
    assert ends == [OK_END]
    assert pair.client.n_streams == 0


def test_a_failure_is_told_with_its_text() -> None:
    """Trailers alone, and a text with escapes."""
    pair = Pair()
    stream, ends = pair.call()
    fields = [*HEADERS, ("grpc-status", "6"), ("grpc-message", "refused: 50%25 of %C3%BC")]
    pair.server.send_headers(stream, fields, end_stream=True)
    pair.exchange()
    assert [(end.code, end.text, end.may_repeat) for end in ends] == [
        (GrpcCode.ALREADY_EXISTS, "refused: 50% of ü", False)
    ]


@pytest.mark.parametrize(
    ("status", "code"),
    [("503", GrpcCode.UNAVAILABLE), ("404", GrpcCode.UNIMPLEMENTED), ("418", GrpcCode.UNKNOWN)],
)
def test_an_answer_without_grpc_status_is_mapped_from_http(status: str, code: GrpcCode) -> None:
    """As a proxy would answer."""
    pair = Pair()
    stream, ends = pair.call()
    pair.server.send_headers(stream, [(":status", status)])
    pair.server.send_data(stream, b"no", end_stream=True)
    pair.exchange()
    assert [end.code for end in ends] == [code]


@pytest.mark.parametrize("status", ["99", "9" * 5000, "1e1", "²"])
def test_an_unknown_status_number_is_unknown(status: str) -> None:
    """A number that gRPC does not have, nor anybody else, or none at all."""
    pair = Pair()
    stream, ends = pair.call()
    pair.answer(stream, ("grpc-status", status))
    assert [end.code for end in ends] == [GrpcCode.UNKNOWN]


def test_messages_wait_for_the_servers_windows() -> None:
    """Nothing beyond a window leaves; all of it arrives once the server reads."""
    pair = Pair(window=1000)
    pair.reads = False
    body = bytes(range(256)) * 1000
    stream, _ = pair.call(body)
    assert len(pair.bodies[stream]) == 1000
    pair.reads = True
    pair.server.acknowledge_received_data(1000, stream)
    pair.exchange()
    assert pair.bodies[stream] == body
    assert pair.complete == [stream]


def test_a_corked_call_sends_nothing_more() -> None:
    """Back-pressure of the socket holds data, not headers."""
    pair = Pair()
    pair.client.cork(True)
    stream, _ = pair.call(b"abc")
    assert pair.bodies == {}
    pair.client.cork(False)
    pair.exchange()
    assert pair.bodies == {stream: b"abc"}


def test_a_cancelled_call_ends_with_what_is_given() -> None:
    """The server hears of it, and its late answer is nobody's."""
    pair = Pair()
    stream, ends = pair.call()
    pair.client.cancel(stream, OK_END._replace(text="enough"))
    pair.exchange()
    assert pair.resets == {stream: H2Code.CANCEL}
    assert [end.text for end in ends] == ["enough"]
    late = frames.pack_frame(frames.HEADERS, frames.END_HEADERS, stream, b"\x88")
    pair.client.receive(late, 0.0)
    assert len(ends) == 1


def test_goaway_gives_back_what_was_not_looked_at() -> None:
    """Calls above the last stream may be repeated; those below are still answered."""
    pair = Pair()
    first, ends_of_first = pair.call()
    _, ends_of_second = pair.call()
    pair.client.receive(frames.pack_goaway(first, H2Code.NO_ERROR), 0.0)
    assert pair.client.is_leaving
    assert [(end.code, end.may_repeat) for end in ends_of_second] == [(GrpcCode.UNAVAILABLE, True)]
    assert ends_of_first == []
    pair.answer(first, ("grpc-status", "0"))
    assert ends_of_first == [OK_END]


def test_a_refused_stream_may_be_repeated_and_others_not() -> None:
    """RST_STREAM by its code."""
    pair = Pair()
    for code, expected in (
        (h2.errors.ErrorCodes.REFUSED_STREAM, (GrpcCode.UNAVAILABLE, True)),
        (h2.errors.ErrorCodes.CANCEL, (GrpcCode.CANCELLED, False)),
        (h2.errors.ErrorCodes.INTERNAL_ERROR, (GrpcCode.INTERNAL, False)),
    ):
        stream, ends = pair.call()
        pair.server.reset_stream(stream, code)
        pair.exchange()
        assert [(end.code, end.may_repeat) for end in ends] == [expected]


def test_an_answer_before_the_request_is_complete_ends_the_request() -> None:
    """The rest of the message is not sent."""
    pair = Pair(window=10)
    pair.reads = False
    stream, ends = pair.call(bytes(100))
    pair.server.send_headers(stream, [*HEADERS, ("grpc-status", "8")], end_stream=True)
    pair.exchange()
    assert [end.code for end in ends] == [GrpcCode.RESOURCE_EXHAUSTED]
    assert pair.resets == {stream: H2Code.NO_ERROR}
    assert len(pair.bodies[stream]) == 10


def test_a_lost_connection_ends_every_call_repeatably() -> None:
    """Whoever sends what may be repeated can do so."""
    pair = Pair()
    _, first = pair.call()
    _, second = pair.call()
    pair.client.lose("gone")
    assert [(e.code, e.text, e.may_repeat) for e in (*first, *second)] == [
        (GrpcCode.UNAVAILABLE, "gone", True)
    ] * 2


def test_pings_are_answered_both_ways() -> None:
    """Ours until its answer comes, the server's at once."""
    pair = Pair()
    pair.client.ping()
    assert pair.client.awaits_pong
    pair.server.ping(b"12345678")
    pair.exchange()
    assert not pair.client.awaits_pong


@pytest.mark.parametrize(
    "data",
    [
        frames.pack_frame(frames.PUSH_PROMISE, 0, 1, bytes(4)),
        frames.pack_frame(frames.GOAWAY, 0, 0, bytes(7)),
        frames.pack_frame(frames.GOAWAY, 0, 1, bytes(8)),
        frames.pack_frame(frames.HEADERS, frames.END_HEADERS, 5, b"\x88"),
        frames.pack_frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff\xff"),
        frames.pack_frame(frames.RST_STREAM, 0, 7, bytes(4)),
        frames.pack_frame(frames.RST_STREAM, 0, 1, bytes(3)),
        frames.pack_frame(frames.DATA, 0, 9, b"x"),
        frames.pack_frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 31)),
        frames.pack_frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)),
        frames.pack_frame_header(1 << 20, frames.DATA, 0, 1),
    ],
)
def test_a_broken_server_costs_the_connection(data: bytes) -> None:
    """What the RFC calls a connection error is one."""
    pair = Pair()
    pair.call()
    with pytest.raises(ConnectionFailed):
        pair.client.receive(data, 0.0)
