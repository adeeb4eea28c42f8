"""Our HTTP/2 machine against the `h2` package's client, and against broken clients."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import pytest

from thanostack.runtime import http2_frames as frames
from thanostack.runtime.http2_connection import STREAMS_MAX, Http2Connection
from thanostack.runtime.http2_frames import ConnectionFailed, H2Code
from thanostack.runtime.http2_machine import CONNECTION_WINDOW, Headers

REQUEST = [
    (":method", "POST"), (":scheme", "http"), (":path", "/x.Y/Z"), (":authority", "a"),
    ("content-type", "application/grpc"),
]  # fmt: skip
OK = frames.encode_headers([(b":status", b"200"), (b"grpc-status", b"0")])
END = frames.encode_headers([(b"grpc-status", b"0")])


class Recorder:
    def __init__(self) -> None:
        self.requests: dict[int, dict[bytes, bytes]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: list[int] = []
        self.resets: list[int] = []
        self.sent = 0

    def on_request(self, stream_id: int, headers: Headers) -> None:
        self.requests[stream_id] = dict(headers)
        self.bodies[stream_id] = b""

    def on_data(self, stream_id: int, data: bytes) -> None:
        self.bodies[stream_id] += data

    def on_end(self, stream_id: int) -> None:
        self.ended.append(stream_id)

    def on_reset(self, stream_id: int) -> None:
        self.resets.append(stream_id)

    def on_sent(self, _: int, n_bytes: int) -> None:
        self.sent += n_bytes


class Pair:
    """The machine and a client, joined without a network."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.server = Http2Connection(self.recorder)
        config = h2.config.H2Configuration(client_side=True)
        self.client = h2.connection.H2Connection(config)
        self.client.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.step()

    def step(self, now: float = 0.0) -> None:
        """Exchange bytes until both are silent."""
        while True:
            up, down = self.client.data_to_send(), self.server.take_output()
            if not up and not down:
                break
            self.server.receive(up, now)
            self.events += self.client.receive_data(down)
            self.server.check()

    def raw(self, data: bytes, now: float = 0.0) -> None:
        self.server.receive(data, now)

    def of(self, kind: type) -> list[h2.events.Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def begin(self, *, end: bool = False) -> int:
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(stream_id, REQUEST, end_stream=end)
        self.step()
        return stream_id


def test_a_call_and_its_answer() -> None:
    """Headers, data, end; headers, data, trailers: the client agrees with every frame."""
    pair = Pair()
    stream_id = pair.begin()
    pair.client.send_data(stream_id, b"question", end_stream=True)
    pair.step()
    assert pair.recorder.requests[stream_id][b":path"] == b"/x.Y/Z"
    assert pair.recorder.bodies == {stream_id: b"question"}
    assert pair.recorder.ended == [stream_id]
    pair.server.send_headers(stream_id, OK)
    pair.server.send_data(stream_id, b"answer")
    pair.server.send_trailers(stream_id, END)
    pair.step()
    assert [event.data for event in pair.of(h2.events.DataReceived)] == [b"answer"]
    assert len(pair.of(h2.events.StreamEnded)) == 1
    assert pair.server.n_streams == 0


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_bytes_may_come_in_any_pieces(step: int) -> None:
    """Frames are found wherever the network cuts them."""
    pair = Pair()
    stream_id = pair.client.get_next_available_stream_id()
    pair.client.send_headers(stream_id, REQUEST)
    pair.client.send_data(stream_id, b"x" * 500, end_stream=True, pad_length=9)
    data = pair.client.data_to_send()
    for start in range(0, len(data), step):
        pair.raw(data[start : start + step])
    assert pair.recorder.bodies == {stream_id: b"x" * 500}
    assert pair.recorder.ended == [stream_id]


def test_large_requests_get_credit() -> None:
    """A client that keeps to its windows can send far more than one window."""
    pair = Pair()
    stream_id = pair.begin()
    left, piece = CONNECTION_WINDOW * 2, b"x" * 16384
    while left:
        room = pair.client.local_flow_control_window(stream_id)
        if room < len(piece):
            pair.step()
            assert pair.client.local_flow_control_window(stream_id) >= len(piece)
            pair.recorder.bodies[stream_id] = b""
        pair.client.send_data(stream_id, piece)
        left -= len(piece)
    pair.client.end_stream(stream_id)
    pair.step()
    assert pair.recorder.ended == [stream_id]


def test_answers_wait_for_the_clients_window() -> None:
    """Data goes out as the client gives credit, and trailers follow it."""
    pair = Pair()
    stream_id = pair.begin(end=True)
    body = random.Random(1).randbytes(300_000)
    pair.server.send_headers(stream_id, OK)
    pair.server.send_data(stream_id, body)
    pair.server.send_trailers(stream_id, END)
    received = b""
    pair.step()
    assert pair.recorder.sent == 65535
    while pair.server.n_streams:
        data = pair.of(h2.events.DataReceived)
        pair.events.clear()
        assert data, "the server does not use the credit it has"
        for event in data:
            received += event.data
            pair.client.acknowledge_received_data(event.flow_controlled_length, stream_id)
        pair.step()
    received += b"".join(event.data for event in pair.of(h2.events.DataReceived))
    assert received == body
    assert pair.recorder.sent == len(body)


def test_corked_data_waits_and_goes_on() -> None:
    """While the socket is full, no data leaves the queue."""
    pair = Pair()
    stream_id = pair.begin(end=True)
    pair.server.cork(True)
    pair.server.send_headers(stream_id, OK)
    pair.server.send_data(stream_id, b"late")
    pair.server.send_trailers(stream_id, END)
    pair.step()
    assert pair.of(h2.events.DataReceived) == []
    pair.server.cork(False)
    pair.step()
    assert len(pair.of(h2.events.DataReceived)) == 1
    assert pair.server.n_streams == 0


def test_a_smaller_initial_window_applies_to_open_streams() -> None:
    """SETTINGS may make a window negative; it must grow above zero before data flows."""
    pair = Pair()
    stream_id = pair.begin(end=True)
    pair.server.send_headers(stream_id, OK)
    pair.server.send_data(stream_id, b"x" * 50_000)
    pair.step()
    pair.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100})
    pair.step()
    pair.server.send_data(stream_id, b"y")
    pair.step()
    assert pair.recorder.sent == 50_000
    pair.client.increment_flow_control_window(60_000, stream_id)
    pair.step()
    assert pair.recorder.sent == 50_001


def test_early_answers_reset_the_request() -> None:
    """A call that is answered before it is complete is reset, and its late data ignored."""
    pair = Pair()
    stream_id = pair.begin()
    pair.server.send_trailers(stream_id, OK)
    before = pair.client.outbound_flow_control_window
    late = frames.pack_frame(frames.DATA, frames.END_STREAM, stream_id, b"late")
    pair.raw(late)
    pair.step()
    assert pair.recorder.bodies[stream_id] == b""
    assert pair.server.n_streams == 0
    assert before == pair.client.outbound_flow_control_window
    assert pair.begin() in pair.recorder.requests


def test_resets_pings_priorities_and_unknown_frames() -> None:
    """Each has its effect, or none."""
    pair = Pair()
    stream_id = pair.begin()
    pair.client.prioritize(stream_id, weight=5)
    pair.client.ping(b"12345678")
    pair.raw(frames.pack_frame(0xAB, 0xFF, 77, b"whatever"))
    pair.client.reset_stream(stream_id)
    pair.step()
    assert pair.recorder.resets == [stream_id]
    assert len(pair.of(h2.events.PingAckReceived)) == 1


def test_go_away_lets_open_calls_finish() -> None:
    """After GOAWAY new calls are refused, old ones answered."""
    pair = Pair()
    old = pair.begin(end=True)
    pair.server.go_away()
    new = pair.client.get_next_available_stream_id()
    pair.client.send_headers(new, REQUEST, end_stream=True)
    pair.server.receive(pair.client.data_to_send(), 0.0)
    pair.server.send_headers(old, OK)
    pair.server.send_trailers(old, END)
    output = pair.server.take_output()
    assert frames.pack_rst_stream(new, H2Code.REFUSED_STREAM) in output
    assert frames.pack_goaway(old, H2Code.NO_ERROR) in output
    assert list(pair.recorder.requests) == [old]


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ([(b":status", b"200")], False),
        ([hpack.NeverIndexedHeaderTuple(b"a" * 300, b"b" * 5000)], False),
        ([hpack.NeverIndexedHeaderTuple(b"accept", b"x" * 127)], False),
        ([(b"grpc-status", b"0")], True),
        ([(b":status", b"200"), hpack.NeverIndexedHeaderTuple(b"a", b""), (b"b", b"c")], True),
    ],
)
@pytest.mark.parametrize("huffman", [False, True])
def test_blocks_that_change_the_table_are_told_from_others(fields, changes, huffman) -> None:
    """As RFC 7541 lays fields out; the second time a field is a number and changes nothing."""
    encoder = hpack.Encoder()
    assert changes == frames.changes_table(encoder.encode(fields, huffman=huffman))
    assert not frames.changes_table(encoder.encode(fields, huffman=huffman))


def test_our_own_blocks_change_nothing() -> None:
    """They are literals without indexing."""
    assert not frames.changes_table(
        frames.encode_headers([(b"x" * 200, b"y" * 70_000), (b"", b"")])
    )
    encoder = hpack.Encoder()
    encoder.header_table_size = 100
    assert frames.changes_table(encoder.encode([(b":status", b"200")]))


def test_a_repeated_block_means_what_the_table_says_now() -> None:
    """A block of numbers is decoded anew after another one changed the table."""
    pair = Pair()
    encoder = hpack.Encoder()
    values = []
    for n, field in enumerate([b"1", b"1", b"1", b"2", b"2", b"2"]):
        block = encoder.encode([*REQUEST, (b"x-n", field)])
        stream_id = 2 * n + 1
        pair.raw(frames.pack_frame(frames.HEADERS, frames.END_HEADERS, stream_id, block))
        values.append(pair.recorder.requests[stream_id][b"x-n"])
    assert values == [b"1", b"1", b"1", b"2", b"2", b"2"]


def test_too_many_streams_are_refused_one_by_one() -> None:
    """The bound on streams costs the newest call, not the connection."""
    pair = Pair()
    block = hpack.Encoder().encode(REQUEST[:1])
    for stream_id in range(1, 2 * STREAMS_MAX + 3, 2):
        pair.raw(frames.pack_frame(frames.HEADERS, frames.END_HEADERS, stream_id, block))
    assert pair.server.n_streams == STREAMS_MAX
    refused = frames.pack_rst_stream(2 * STREAMS_MAX + 1, H2Code.REFUSED_STREAM)
    assert pair.server.take_output().endswith(refused)


def headers_frame(stream_id: int, flags: int = frames.END_HEADERS) -> bytes:
    return frames.pack_frame(frames.HEADERS, flags, stream_id, b"\x83")


BROKEN = {
    "data on stream 0": (frames.pack_frame(0, 0, 0, b"x"), H2Code.PROTOCOL_ERROR),
    "data on an idle stream": (frames.pack_frame(0, 0, 9, b"x"), H2Code.PROTOCOL_ERROR),
    "headers on an even stream": (headers_frame(2), H2Code.PROTOCOL_ERROR),
    "headers in mid-request": (headers_frame(1) * 2, H2Code.PROTOCOL_ERROR),
    "a lonely continuation": (frames.pack_frame(9, 4, 1, b""), H2Code.PROTOCOL_ERROR),
    "an interrupted block": (headers_frame(1, 0) + headers_frame(3), H2Code.PROTOCOL_ERROR),
    "continuations without end": (
        headers_frame(1, 0) + frames.pack_frame(9, 0, 1, b"") * 100,
        H2Code.ENHANCE_YOUR_CALM,
    ),
    "a huge block": (
        headers_frame(1, 0) + frames.pack_frame(9, 0, 1, b"x" * 70_000),
        H2Code.ENHANCE_YOUR_CALM,
    ),
    "a header bomb": (
        frames.pack_frame(1, 4, 1, b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 60_000),
        H2Code.ENHANCE_YOUR_CALM,
    ),
    "a broken block": (frames.pack_frame(1, 4, 1, b"\xff" * 9), H2Code.COMPRESSION_ERROR),
    "too much padding": (
        headers_frame(1) + frames.pack_frame(0, 8, 1, b"\x05abc"),
        H2Code.PROTOCOL_ERROR,
    ),
    "a huge frame": (b"\xff\xff\xff" + b"\0" * 6, H2Code.FRAME_SIZE_ERROR),
    "a short ping": (frames.pack_frame(6, 0, 0, b"x"), H2Code.FRAME_SIZE_ERROR),
    "a ping on a stream": (frames.pack_frame(6, 0, 1, b"x" * 8), H2Code.PROTOCOL_ERROR),
    "odd settings": (frames.pack_frame(4, 0, 0, b"x"), H2Code.FRAME_SIZE_ERROR),
    "a window of 2^32": (frames.pack_settings([(4, 1 << 31)]), H2Code.FLOW_CONTROL_ERROR),
    "tiny frames": (frames.pack_settings([(5, 1)]), H2Code.PROTOCOL_ERROR),
    "a window that overflows": (
        frames.pack_window_update(0, frames.WINDOW_MAX),
        H2Code.FLOW_CONTROL_ERROR,
    ),
    "a window of zero": (frames.pack_window_update(0, 0), H2Code.PROTOCOL_ERROR),
    "a push": (frames.pack_frame(5, 0, 1, b"x" * 8), H2Code.PROTOCOL_ERROR),
    "a reset of nothing": (frames.pack_rst_stream(9, H2Code.CANCEL), H2Code.PROTOCOL_ERROR),
    "a flood of pings": (
        frames.pack_frame(6, 0, 0, b"x" * 8) * 20_000,
        H2Code.ENHANCE_YOUR_CALM,
    ),
    "a flood of empty data": (
        headers_frame(1) + frames.pack_frame(0, 0, 1) * 20_000,
        H2Code.ENHANCE_YOUR_CALM,
    ),
    "rapid resets": (
        b"".join(
            headers_frame(stream) + frames.pack_rst_stream(stream, H2Code.CANCEL)
            for stream in range(1, 40_000, 2)
        ),
        H2Code.ENHANCE_YOUR_CALM,
    ),
    "data beyond the end": (
        headers_frame(1, 5) + frames.pack_frame(0, 0, 1, b"x"),
        H2Code.STREAM_CLOSED,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_violations_fail_the_connection(name: str) -> None:
    """Each gets the code that the RFC names, or a request to calm down."""
    data, code = BROKEN[name]
    pair = Pair()
    with pytest.raises(ConnectionFailed) as failure:
        pair.raw(data)
    assert failure.value.code is code


def test_control_frames_at_a_normal_rate_are_no_flood() -> None:
    """The bound is a rate, not a total."""
    pair = Pair()
    ping = frames.pack_frame(frames.PING, 0, 0, b"x" * 8)
    for second in range(30):
        pair.raw(ping * 1000, now=second * 1.01)


def test_mutated_connections_never_escape() -> None:
    """Whatever the bytes are, the machine answers, waits or raises ConnectionFailed."""
    source = random.Random(11)
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    for stream_id in (1, 3, 5):
        client.send_headers(stream_id, REQUEST)
        client.send_data(stream_id, b"x" * 50, pad_length=stream_id)
        client.ping(b"12345678")
        client.end_stream(stream_id)
    good = client.data_to_send()
    for _ in range(1000):
        bad = bytearray(good)
        for _ in range(source.randrange(1, 8)):
            bad[source.randrange(24, len(bad))] = source.randrange(256)
        cuts = sorted(source.sample(range(len(bad)), 3))
        server = Http2Connection(Recorder())
        try:
            for start, stop in pairwise([0, *cuts, len(bad)]):
                server.receive(bytes(bad[start:stop]), 0.0)
        except ConnectionFailed:
            continue
        server.check()


def test_long_header_values_are_encoded() -> None:
    """Lengths above 126 need more than one byte."""
    for size in (0, 126, 127, 128, 254, 255, 5000):
        block = frames.encode_headers([(b"grpc-message", b"m" * size)])
        decoded = hpack.Decoder().decode(block, raw=True)
        assert list(decoded) == [(b"grpc-message", b"m" * size)]


def test_frame_layout() -> None:
    """Frames are laid out as the RFC draws them."""
    assert frames.pack_frame(6, 1, 0, b"12345678") == b"\0\0\x08\x06\x01\0\0\0\x0012345678"
    assert frames.pack_settings([(4, 7)])[9:] == struct.pack(">HI", 4, 7)
