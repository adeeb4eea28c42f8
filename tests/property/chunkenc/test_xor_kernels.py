"""XOR chunks: the kernels equal the plain reference, and hostile bytes end in a status."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.chunkenc.xor import decode_series, encode_chunk
from thanostack.lib.foundation.errors import ChunkCorrupt, ExecutionFailed, InvalidInput
from thanostack.lib.kernels import xor_chunk as kernels
from thanostack.lib.kernels.head_types import ROW_DTYPE
from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.model.series import CHUNK_DTYPE, SeriesBatch
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import xor_chunk as reference

PROFILE = examples(60)
BITS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 0x7FF0000000000002, 0x7FF8000000000001, 0x3FF0000000000000]),
    st.integers(0, 1000).map(lambda n: reference.float_to_bits(float(n))),
)
DELTAS = st.one_of(
    st.just(15000),
    st.integers(1, 40),
    st.integers(1, 2_000_000),
    st.sampled_from([8191, 8192, 8193, 65535, 65536, 65537, 524287, 524288, 524289, 2**40]),
)
SAMPLES = st.tuples(
    st.integers(-(2**40), 2**44), st.lists(st.tuples(DELTAS, BITS), min_size=1, max_size=130)
)


def columns(drawn):
    start, steps = drawn
    timestamps = start + np.cumsum([delta for delta, _ in steps])
    return timestamps.astype(np.int64), np.array([b for _, b in steps], np.uint64).view(np.float64)


def chunk_of(data, mint=-(1 << 63), maxt=(1 << 63) - 1):
    chunks = np.zeros(1, CHUNK_DTYPE)
    chunks[0] = (mint, maxt, 0, len(data), 1)
    return chunks


def decoded(module, data, mint, maxt):
    chunks, counts = chunk_of(data), np.zeros(1, np.int64)
    array = guarded(data)
    total = module.xor_sample_counts(array, chunks, counts)
    if total < 0:
        return int(total)
    offsets, timestamps = np.zeros(2, np.int64), np.zeros(total, np.int64)
    values = np.zeros(total)
    n = module.xor_decode(array, chunks, mint, maxt, offsets, timestamps, values)
    if n < 0:
        return int(n)
    return offsets.tolist(), timestamps[:n].tolist(), values[:n].view(np.uint64).tolist()


@PROFILE
@given(SAMPLES)
def test_encode_equals_reference(drawn):
    """Any columns encode to the reference's bytes."""
    timestamps, values = columns(drawn)
    results = []
    for module in (reference, kernels):
        out = np.full(20 * len(timestamps) + 64, 0xAA, np.uint8)
        length = module.xor_encode(timestamps, values, np.zeros(1, ROW_DTYPE), out)
        results.append(out[:length].tobytes())
    assert results[0] == results[1]


@PROFILE
@given(SAMPLES, st.integers(-(2**20), 2**44), st.integers(0, 2**43))
def test_decode_equals_reference(drawn, mint, span):
    """A chunk clipped to any range gives the reference's samples, bit for bit."""
    data = encode_chunk(*columns(drawn))
    assert decoded(reference, data, mint, mint + span) == decoded(kernels, data, mint, mint + span)


@PROFILE
@given(SAMPLES, st.data())
def test_damaged_chunks_end_in_the_reference_status(drawn, data):
    """Cut, flipped or random bytes: same status or same samples, nothing else."""
    whole = encode_chunk(*columns(drawn))
    kind = data.draw(st.sampled_from(["cut", "flip", "random"]))
    if kind == "cut":
        hostile = whole[: data.draw(st.integers(0, len(whole)))]
    elif kind == "flip":
        at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
        hostile = whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :]
    else:
        hostile = data.draw(st.binary(max_size=200))
    low, high = -(1 << 63), (1 << 63) - 1
    assert decoded(reference, hostile, low, high) == decoded(kernels, hostile, low, high)


def batch_of(data, encoding=1):
    chunks = chunk_of(data)
    chunks["encoding"] = encoding
    runs = LabelRuns.of_mappings([{"a": "b"}])
    return SeriesBatch(runs, np.array([0, 1]), chunks, guarded(data))


def test_corrupt_chunk_is_an_error():
    """Bytes that are no chunk raise, they are never an empty answer."""
    with pytest.raises(ChunkCorrupt, match=r'a chunk of {a="b"}'):
        decode_series(batch_of(b"\x00\x05abc"), 0, 1)


def test_histogram_chunk_is_refused():
    """A native histogram chunk says that it is not supported, and which series it is of."""
    one = encode_chunk(np.array([1]), np.array([1.0]))
    chunks = np.tile(chunk_of(one), 3)
    chunks["encoding"] = [1, 1, 2]
    runs = LabelRuns.of_mappings([{"a": "0"}, {"a": "1"}, {"a": "2"}])
    batch = SeriesBatch(runs, np.arange(4), chunks, guarded(one))
    for first in range(3):
        with pytest.raises(ExecutionFailed, match=r'native histograms.*leave {a="2"} out'):
            decode_series(batch, first, 3)


def test_encode_refuses_equal_timestamps():
    """Timestamps must rise."""
    with pytest.raises(InvalidInput):
        encode_chunk(np.array([1, 1]), np.array([1.0, 2.0]))
