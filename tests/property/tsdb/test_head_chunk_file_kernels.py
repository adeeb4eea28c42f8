"""Scanning and gathering head chunks equal their references, hostile bytes included."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import head_chunk_file as kernels
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import head_chunk_file as reference

PROFILE = examples(50)
HOSTILE = examples(100)
TIMES = st.integers(-(2**63), 2**63 - 1)
DATA = st.one_of(st.binary(max_size=20), st.integers(100, 400).map(lambda n: b"\1" * n))
CHUNKS = st.lists(
    st.tuples(st.integers(1, 2**64 - 1), TIMES, TIMES, st.integers(0, 255), DATA), max_size=5
)


def scanned(function, data, last, room=10):
    chunks, state = np.zeros(room, kernels.HEAD_CHUNK_DTYPE), np.zeros(2, np.int64)
    n = function(guarded(data), 0, last, chunks, state)
    return chunks[:n].tolist(), state.tolist()


@PROFILE
@given(CHUNKS, st.integers(0, 60), st.integers(0, 1), st.integers(1, 6))
def test_scan_equals_reference(chunks, zeros, last, room):
    """Whole chunks and a zero tail, with any room, are described as by the reference."""
    data = b"".join(reference.encode_chunk(*chunk) for chunk in chunks) + bytes(zeros)
    expected = scanned(reference.head_chunks_scan, data, last, room)
    assert expected == scanned(kernels.head_chunks_scan, data, last, room)
    if zeros >= 34 and room >= len(chunks):
        refs = [chunk[0] for chunk in chunks]
        assert (refs, 0) == ([row[0] for row in expected[0]], expected[1][0])


@HOSTILE
@given(CHUNKS, st.integers(0, 1), st.data())
def test_scan_hostile(chunks, last, data):
    """Mutated, truncated and random files give the reference's chunks and status."""
    whole = bytearray(b"".join(reference.encode_chunk(*chunk) for chunk in chunks))
    for _ in range(data.draw(st.integers(0, 3))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))]) + data.draw(st.binary(max_size=45))
    expected = scanned(reference.head_chunks_scan, cut, last)
    assert expected == scanned(kernels.head_chunks_scan, cut, last)


@HOSTILE
@given(CHUNKS.filter(bool), st.data())
def test_gather_equals_reference(chunks, data):
    """Chosen chunks are copied; wrong lengths, places and bytes refused, as by the reference."""
    encoded = [reference.encode_chunk(*chunk) for chunk in chunks]
    whole = bytearray(b"".join(encoded) + bytes(34))
    offsets = np.cumsum([100, *(len(chunk) for chunk in encoded)])[:-1].astype(np.int64)
    lengths = np.array([len(chunk[4]) for chunk in chunks], np.int64)
    starts = np.cumsum(lengths) - lengths
    picks = np.array(data.draw(st.lists(st.sampled_from(range(len(chunks))))), np.int64)
    if data.draw(st.booleans()):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1
    if data.draw(st.booleans()):
        column = data.draw(st.sampled_from([offsets, lengths, starts]))
        column[data.draw(st.integers(0, len(chunks) - 1))] += data.draw(st.integers(-500, 500))
    results = []
    for module in (reference, kernels):
        out = np.zeros(max(int(lengths.sum()), 0), np.uint8)
        source = guarded(whole)
        n = module.head_chunks_gather(source, 100, picks, offsets, lengths, starts, out)
        results.append((n, out.tobytes() if n >= 0 else b""))
    assert results[0] == results[1]
