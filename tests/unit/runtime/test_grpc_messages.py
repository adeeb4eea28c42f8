"""Prefixes, compression and header texts of gRPC messages."""

from __future__ import annotations

import gzip
import random

import cramjam
import pytest

from thanostack.runtime import grpc_messages as messages
from thanostack.runtime.error_mapping import GrpcCode, GrpcFailure

STREAM_HEADER = b"\xff\x06\x00\x00sNaPpY"


def chunk(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3, "little") + body


def plain(body: bytes, encoding: bytes = b"snappy", size_max: int = 1 << 20) -> bytes:
    return messages.decompress(body, encoding, size_max=size_max, reserve=lambda _: None)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
@pytest.mark.parametrize("is_random", [False, True])
def test_snappy_round_trip(size: int, is_random: bool) -> None:
    """Framed snappy of any size decodes, and its size is known before."""
    body = random.Random(7).randbytes(size) if is_random else b"series" * size
    packed = bytes(cramjam.snappy.compress(body))
    assert plain(packed, size_max=len(body)) == body
    if packed:
        assert messages.snappy_decoded_size(packed) == len(body)


def test_padding_and_skippable_chunks_are_skipped() -> None:
    """Chunk types from 0x80 on carry no data."""
    body = bytes(cramjam.snappy.compress(b"abc" * 100))
    packed = body + chunk(0xFE, b"\0" * 50) + chunk(0x99, b"index")
    assert plain(packed) == b"abc" * 100


@pytest.mark.parametrize(
    "packed",
    [
        b"\x00",
        b"no framing at all",
        STREAM_HEADER + b"\x00\xff\xff\xff",
        STREAM_HEADER + b"\x00\x03",
        STREAM_HEADER + chunk(0x00, b"abc"),
        STREAM_HEADER + chunk(0x00, b"abcd\xff\xff\xff\xff\x0f"),
        STREAM_HEADER + chunk(0x00, b"abcd\x80\x80\x80\x80\x80"),
        STREAM_HEADER + chunk(0x00, b"abcd\x81\x80\x04"),
        STREAM_HEADER + chunk(0x01, b"abcd" + b"x" * 65537),
        STREAM_HEADER + chunk(0x02, b"reserved"),
        STREAM_HEADER + chunk(0x01, b"abcd" + b"wrong checksum"),
    ],
)
def test_malformed_snappy_is_an_error(packed: bytes) -> None:
    """Nothing that a chunk claims is believed."""
    with pytest.raises(GrpcFailure, match="snappy") as failure:
        plain(packed)
    assert failure.value.code is GrpcCode.INTERNAL


def test_a_snappy_bomb_is_refused_before_it_is_inflated() -> None:
    """The sum of the chunks' claims is checked against the limit, and reserved, first."""
    packed = bytes(cramjam.snappy.compress(b"\0" * 1_000_000))
    reserved: list[int] = []
    with pytest.raises(GrpcFailure, match="1000000 bytes") as failure:
        messages.decompress(packed, b"snappy", size_max=999_999, reserve=reserved.append)
    assert failure.value.code is GrpcCode.RESOURCE_EXHAUSTED
    assert reserved == []
    messages.decompress(packed, b"snappy", size_max=1_000_000, reserve=reserved.append)
    assert reserved == [1_000_000]


def test_mutated_snappy_never_escapes() -> None:
    """Whatever the bytes are, the outcome is plain bytes or a GrpcFailure."""
    source = random.Random(20)
    good = bytes(cramjam.snappy.compress(source.randbytes(300) * 40))
    for _ in range(500):
        bad = bytearray(good)
        for _ in range(source.randrange(1, 6)):
            bad[source.randrange(len(bad))] = source.randrange(256)
        try:
            plain(bytes(bad[: source.randrange(len(bad) + 1)]), size_max=1 << 17)
        except GrpcFailure:
            continue


def test_gzip_is_bounded_and_checked() -> None:
    """Gzip inflates up to the limit, and what is cut short or broken is an error."""
    packed = gzip.compress(b"\0" * 100_000)
    assert plain(packed, b"gzip", 100_000) == b"\0" * 100_000
    for bad, code in (
        (gzip.compress(b"\0" * 100_001), GrpcCode.RESOURCE_EXHAUSTED),
        (packed[:-9], GrpcCode.INTERNAL),
        (b"not gzip", GrpcCode.INTERNAL),
    ):
        with pytest.raises(GrpcFailure) as failure:
            plain(bad, b"gzip", 100_000)
        assert failure.value.code is code


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"1500m", 1.5), (b"7u", 7e-6), (b"8n", 8e-9)],
)
def test_timeouts(text: bytes, seconds: float) -> None:
    """Every unit of grpc-timeout is known."""
    assert messages.parse_timeout_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"1", b"S", b"1.5S", b"-1S", b"123456789S", b"1s"])
def test_malformed_timeouts_are_none(text: bytes) -> None:
    """What is no timeout does not become one."""
    assert messages.parse_timeout_s(text) is None


def test_status_text_is_percent_encoded_and_bounded() -> None:
    """Only printable ASCII reaches the header, and a cut leaves no half escape."""
    assert messages.encode_status_text("100% späť\n") == b"100%25 sp%C3%A4%C5%A5%0A"
    for padding in range(3):
        text = messages.encode_status_text("x" * padding + "ü" * 2000)
        assert len(text) <= messages.STATUS_TEXT_BYTES_MAX
        assert (len(text) - padding) % 3 == 0


def test_prefix() -> None:
    """The flag is 0 or 1, the length big endian."""
    assert messages.frame_message(b"abc") == b"\0\0\0\0\x03abc"
    assert messages.split_prefix(b"\x01\0\0\x01\0") == (True, 256)
    with pytest.raises(GrpcFailure, match="flag 2"):
        messages.split_prefix(b"\x02\0\0\0\0")
