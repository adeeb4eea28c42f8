"""Decompression that believes no length."""

from __future__ import annotations

import random

import cramjam
import pytest

from thanostack.lib.foundation.errors import InvalidInput, LimitExceeded
from thanostack.lib.remotewrite.snappy_body import (
    BodyBuffers,
    checked_length,
    declared_length,
    decode_into,
)


def snappy(body):
    return bytes(cramjam.snappy.compress_raw(body))


@pytest.mark.parametrize(
    "body", [b"", b"a", b"a" * 63, b"ab" * 100_000, random.Random(1).randbytes(70_000)]
)
def test_what_was_compressed_comes_back(body):
    """Also where compression is at its best and where it does not help."""
    block = snappy(body)
    length = checked_length(block)
    assert length == len(body)
    buffer = BodyBuffers().take(length)
    decode_into(block, buffer, length)
    assert buffer[:length].tobytes() == body


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"", "cut off"),
        (b"\x80", "cut off"),
        (b"\xff" * 9, "cut off"),
        (b"\xff\xff\xff\xff\x0f", "cannot hold"),
        (b"\x64\x00", "cannot hold"),
        (b"\xff\xff\xff\xff\x7f" + b"a" * 99, "cannot hold"),
    ],
)
def test_a_length_is_checked_before_memory_is_taken(block, message):
    """What the compressed bytes could never hold is a lie."""
    with pytest.raises(InvalidInput, match=message):
        declared_length(block)


def test_the_ceiling_counts_declared_bytes():
    """A true length above the ceiling is a limit, below it is none; 0 is no ceiling."""
    block = snappy(b"a" * 1000)
    assert checked_length(block, 1000) == checked_length(block, 0) == 1000
    with pytest.raises(LimitExceeded, match="write request too large"):
        checked_length(block, 999)


def test_corrupt_blocks_are_invalid_input():
    """Cut, mutated and random blocks raise one error, and only that."""
    randomness = random.Random(2)
    block = snappy(b"".join(randomness.randbytes(5) * 3 for _ in range(200)))
    buffer = BodyBuffers().take(len(block) * 22)
    corrupt = 0
    for _ in range(300):
        data = bytearray(block[: randomness.randint(0, len(block))])
        for _ in range(randomness.randint(0, 3)):
            if data:
                data[randomness.randrange(len(data))] = randomness.randrange(256)
        try:
            decode_into(bytes(data), buffer, declared_length(bytes(data)))
        except InvalidInput:
            corrupt += 1
    assert corrupt > 200


def test_buffers_are_reused_within_a_bound():
    """A buffer given back is the next one taken; beyond the bound it is let go."""
    pool = BodyBuffers(kept_bytes_max=300_000)
    first, second = pool.take(200_000), pool.take(10)
    assert len(first) >= 200_000
    pool.give_back(first)
    pool.give_back(second)
    assert pool.take(100_000) is first
    pool.give_back(first)
    third = pool.take(300_000)
    pool.give_back(third)
    assert pool.take(300_000) is not third
