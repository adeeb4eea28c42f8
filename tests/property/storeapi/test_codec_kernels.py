"""Frame kernels equal their references; hostile bytes give a status."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import storeapi_codec as kernels
from thanostack.lib.kernels import storeapi_shards
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_runs import LabelRuns
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import storeapi_codec as reference
from thanostack.testing.reference import storeapi_shards as shard_reference

PROFILE = examples(60)
NAMES = st.sampled_from(["a", "aa", "b", "__name__", "é", "n" * 130])
LABELS = st.dictionaries(NAMES, st.text(min_size=1, max_size=5), max_size=3)
TIMES = st.one_of(st.integers(-300, 300), st.integers(-(2**63), 2**63 - 1))
CHUNK = st.tuples(TIMES, TIMES, st.integers(0, 40), st.integers(0, 150), st.integers(1, 3))
SERIES = st.lists(st.tuples(LABELS, st.lists(CHUNK, max_size=4)), max_size=5)


def columns(series, data):
    labels = LabelRuns.of_mappings([mapping for mapping, _ in series])
    chunks = np.zeros(sum(len(group) for _, group in series), CHUNK_DTYPE)
    flat = [chunk for _, group in series for chunk in group]
    for row, (mint, maxt, start, length, encoding) in zip(chunks, flat, strict=True):
        row["mint"], row["maxt"], row["encoding"] = mint, maxt, encoding
        row["start"], row["length"] = start, min(length, len(data) - start)
    offsets = np.cumsum([0] + [len(group) for _, group in series]).astype(np.int64)
    return labels.data, labels.offsets, offsets, chunks, guarded(data)


def frames_of(function, batch, rows, limits):
    at, frames = np.array([0, -1], np.int64), []
    out = np.zeros(max(int(limits[1]), 200) + 800, np.uint8)
    while size := function(*batch, rows, limits, out, at):
        frames.append(out[:size].tobytes())
        assert len(frames) < 100
    return frames


@PROFILE
@given(SERIES, st.binary(min_size=200, max_size=200), st.integers(0, 4), st.integers(0, 500))
def test_encoding_equals_reference(series, data, most, room):
    """Frames are cut at the same places and hold the same bytes."""
    batch = columns(series, data)
    rows, limits = np.arange(len(series))[::-1].copy(), np.array([most, room], np.int64)
    expected = frames_of(reference.encode_series_frame, batch, rows, limits)
    assert expected == frames_of(kernels.encode_series_frame, batch, rows, limits)


def decoded(module, frames, wanted):
    data = guarded(b"".join(frames))
    bounds = np.cumsum([0] + [len(frame) for frame in frames]).astype(np.int64)
    counts = np.zeros(4, np.int64)
    status = module.count_series_frames(data, bounds, counts)
    if status < 0:
        return int(status)
    n_series, n_chunks, label_bytes, n_warnings = counts.tolist()
    labels = np.zeros(label_bytes + 32, np.uint8)
    offsets = np.zeros((2, n_series + 1), np.int64)
    chunks, warnings = np.zeros(n_chunks, CHUNK_DTYPE), np.zeros(2 * n_warnings, np.int64)
    found = module.decode_series_frames(data, bounds, wanted, labels, *offsets, chunks, warnings)
    if found < 0:
        return int(found)
    assert offsets[0][-1] <= label_bytes
    content = (labels[: offsets[0][-1]].tobytes(), offsets.tolist(), chunks.tolist())
    return counts.tolist(), found, content, warnings.tolist()


def in_bounds(result, frames):
    """Assert that every chunk and warning lies inside of what was received."""
    if isinstance(result, int):
        return
    size = sum(map(len, frames))
    _, _, (_, _, chunks), warnings = result
    for _, _, start, length, _ in chunks:
        assert 0 <= start <= start + length <= size
    for start, length in zip(warnings[::2], warnings[1::2], strict=True):
        assert 0 <= start <= start + length <= size


@PROFILE
@given(SERIES, st.binary(min_size=200, max_size=200), st.integers(0, 4), st.binary(max_size=9))
def test_decoding_equals_reference(series, data, most, warning):
    """What was encoded is decoded alike, warnings between the frames."""
    limits = np.array([most, 300], np.int64)
    batch = columns(series, data)
    frames = frames_of(kernels.encode_series_frame, batch, np.arange(len(series)), limits)
    frames.insert(len(frames) // 2, reference.field(2, warning))
    assert decoded(reference, frames, 15) == decoded(kernels, frames, 15)


@examples(150)
@given(
    SERIES,
    st.binary(min_size=200, max_size=200),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    st.integers(0, 2000),
    st.integers(3, 8),
)
def test_mutated_frames_equal_reference(series, data, mutations, cut, wanted):
    """Mutated and truncated frames give the reference's answer or its status."""
    batch = columns(series, data)
    limits = np.array([64, 10_000], np.int64)
    frames = frames_of(kernels.encode_series_frame, batch, np.arange(len(series)), limits)
    body = bytearray(b"".join(frames))
    for place, value in mutations:
        if body:
            body[place % len(body)] = value
    frames = [bytes(body[: cut or None])]
    expected, got = decoded(reference, frames, wanted), decoded(kernels, frames, wanted)
    in_bounds(got, frames)
    assert expected == got


@examples(150)
@given(st.lists(st.binary(max_size=40), max_size=3))
def test_random_frames_equal_reference(frames):
    """Random bytes too."""
    expected, got = decoded(reference, frames, 4), decoded(kernels, frames, 4)
    in_bounds(got, frames)
    assert expected == got


@PROFILE
@given(
    st.lists(LABELS, max_size=6),
    st.lists(NAMES, max_size=3),
    st.booleans(),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_shards_equal_reference(series, names, by, total, index):
    """Members are those of the reference."""
    labels = LabelRuns.of_mappings(series)
    packed = LabelRuns.of(sorted({name.encode() for name in names}))
    options = np.array([by, total, index], np.int64)
    results = []
    for function in (shard_reference.shard_rows, storeapi_shards.shard_rows):
        rows, scratch = np.zeros(len(series), np.int64), np.zeros(len(labels.data) + 8, np.uint8)
        arguments = (packed.data, packed.offsets, options, scratch, rows)
        count = function(labels.data, labels.offsets, *arguments)
        results.append((count, rows[:count].tolist()))
    assert results[0] == results[1]


@PROFILE
@given(st.lists(st.binary(max_size=30), max_size=3))
def test_hostile_runs_have_no_shard(runs):
    """Random bytes in place of runs give a status or rows, and never a read outside."""
    labels = LabelRuns.of(runs)
    names, options = LabelRuns.of([b"a"]), np.array([0, 2, 1], np.int64)
    rows, scratch = np.zeros(len(runs), np.int64), np.zeros(len(labels.data) + 8, np.uint8)
    arguments = (names.data, names.offsets, options, scratch, rows)
    found = storeapi_shards.shard_rows(labels.data, labels.offsets, *arguments)
    assert -1 <= found <= len(runs)
