"""The first bytes of a connection, in every order and broken in every way."""

from __future__ import annotations

import random
import struct

import hpack
import pytest

from thanostack.runtime import http2_frames as h2
from thanostack.runtime.grpc_handshake import Handshake, Route
from thanostack.runtime.http2_frames import ConnectionFailed

ACK = h2.pack_frame(h2.SETTINGS, h2.ACK, 0)
SETTINGS = h2.pack_settings([(h2.SETTING_INITIAL_WINDOW_SIZE, 1 << 20)])
GREETING = h2.PREFACE + SETTINGS
WRITE = "/thanos.WriteableStore/RemoteWrite"


def block(encoding: str | None, **extra: str) -> bytes:
    headers = {":method": "POST", ":path": "/thanos.Store/Series", **extra}
    if encoding:
        headers["grpc-encoding"] = encoding
    return hpack.Encoder().encode(list(headers.items()), huffman=True)


def request(encoding: str | None, **extra: str) -> bytes:
    return h2.pack_frame(h2.HEADERS, h2.END_HEADERS, 1, block(encoding, **extra))


def after(data: bytes, *, step: int = 0) -> Handshake:
    handshake = Handshake(frozenset({WRITE.encode()}))
    for start in range(0, len(data), step or len(data)):
        if handshake.route is not None:
            handshake._pending += data[start : start + (step or len(data))]
        else:
            handshake.feed(data[start : start + (step or len(data))])
    return handshake


@pytest.mark.parametrize(
    ("encoding", "route"),
    [
        (None, Route.GRPCIO),
        ("identity", Route.GRPCIO),
        ("gzip", Route.GRPCIO),
        ("snappy", Route.OURS),
        ("zstd", Route.OURS),
    ],
)
@pytest.mark.parametrize("ack_first", [True, False])
@pytest.mark.parametrize("step", [0, 1, 7])
def test_route(encoding: str | None, route: Route, ack_first: bool, step: int) -> None:
    """All but our acknowledgement is handed on in order."""
    data = h2.pack_frame(h2.DATA, h2.END_STREAM, 1, b"\0\0\0\0\0")
    head = [ACK, request(encoding)] if ack_first else [request(encoding), ACK]
    handshake = after(GREETING + b"".join(head) + data, step=step)
    assert handshake.route is route
    assert handshake.held == GREETING + request(encoding) + data
    assert handshake.take_reply() == h2.pack_settings()


@pytest.mark.parametrize("encoding", [None, "identity", "gzip", "snappy", "zstd"])
def test_what_is_queued_is_ours(encoding: str | None) -> None:
    """Whatever it is encoded with, but for what is not decoded here."""
    writes = {":path": WRITE}
    assert after(GREETING + ACK + request(encoding, **writes)).route is Route.OURS
    assert after(GREETING + ACK + request("deflate", **writes)).route is Route.GRPCIO


def test_nothing_is_decided_without_acknowledgement() -> None:
    """A second acknowledgement would confuse the server that comes after us."""
    handshake = after(GREETING + request("snappy"))
    assert handshake.route is None
    handshake.feed(ACK + ACK)
    assert handshake.route is Route.OURS
    assert handshake.held.count(ACK) == 1


def test_pings_are_answered_while_waiting() -> None:
    """A client that keeps an idle connection alive is answered, and grpcio never hears of it."""
    handshake = after(GREETING + ACK + h2.pack_frame(h2.PING, 0, 0, b"12345678"))
    assert handshake.take_reply().endswith(h2.pack_frame(h2.PING, h2.ACK, 0, b"12345678"))
    assert handshake.is_settled
    assert handshake.held == GREETING


@pytest.mark.parametrize("n_pieces", [2, 5])
def test_headers_with_continuation_padding_and_priority(n_pieces: int) -> None:
    """The optional parts of a header block are understood."""
    whole = block("snappy", filler="x" * 100)
    size = -(-len(whole) // n_pieces)
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    first = b"\x04" + struct.pack(">IB", 0, 15) + pieces[0] + b"\0" * 4
    frames = h2.pack_frame(h2.HEADERS, h2.PADDED | h2.HAS_PRIORITY, 1, first)
    for index, piece in enumerate(pieces[1:], start=2):
        flags = h2.END_HEADERS if index == len(pieces) else 0
        frames += h2.pack_frame(h2.CONTINUATION, flags, 1, piece)
    assert after(GREETING + ACK + frames).route is Route.OURS


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSX",
        h2.PREFACE + request("snappy"),
        GREETING + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        GREETING + h2.pack_frame(h2.CONTINUATION, 4, 1, b""),
        GREETING + h2.pack_frame(h2.HEADERS, 0, 1, b"") + h2.pack_frame(h2.PING, 0, 0, b"8" * 8),
        GREETING + h2.pack_frame(h2.PING, 0, 0, b"short"),
        GREETING + h2.pack_frame(h2.HEADERS, h2.PADDED | h2.END_HEADERS, 1, b"\x09abc"),
        GREETING + h2.pack_frame(h2.HEADERS, h2.HAS_PRIORITY | h2.END_HEADERS, 1, b"abc"),
        GREETING + h2.pack_frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        GREETING + h2.pack_frame(h2.HEADERS, 0, 1, b"x" * 16000)
        + h2.pack_frame(h2.CONTINUATION, 0, 1, b"x" * 16000) * 4,
        GREETING + h2.pack_window_update(0, 1) * 30000,
        GREETING + h2.pack_goaway(0, h2.H2Code.NO_ERROR),
    ],
)  # fmt: skip
def test_broken_beginnings_end_the_connection(data: bytes) -> None:
    """Every violation is found, and what is held stays bounded."""
    with pytest.raises(ConnectionFailed):
        after(data)


def test_random_bytes_never_escape() -> None:
    """Any bytes lead to a route, a wait or ConnectionFailed."""
    source = random.Random(3)
    good = GREETING + ACK + request("snappy", other="y" * 50)
    for _ in range(1000):
        bad = bytearray(good)
        for _ in range(source.randrange(1, 5)):
            bad[source.randrange(len(bad))] = source.randrange(256)
        try:
            after(bytes(bad), step=source.choice([0, 5]))
        except ConnectionFailed:
            continue
