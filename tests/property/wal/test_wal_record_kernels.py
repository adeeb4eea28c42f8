"""Record kernels equal their references; hostile records give a status, never a wrong answer."""

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.kernels import wal_ages, wal_records
from thanostack.testing.examples import examples
from thanostack.testing.guard_page import guarded
from thanostack.testing.reference import wal_ages as ages_reference
from thanostack.testing.reference import wal_records as reference

PROFILE = examples(50)
HOSTILE = examples(100)
REFS = st.one_of(st.integers(0, 5000), st.integers(0, 2**64 - 1))
TIMES = st.one_of(st.integers(0, 10**6), st.integers(-(2**63), 2**63 - 1))
BITS = st.integers(0, 2**64 - 1)
SAMPLES = st.lists(st.tuples(REFS, TIMES, BITS), max_size=12)
NAMES = st.one_of(st.sampled_from([b"a", b"ab", b"b"]), st.binary(max_size=4))
LABELS = st.lists(
    st.tuples(NAMES, st.one_of(st.binary(max_size=5), st.just(b"x" * 200))), max_size=4
)
SERIES = st.lists(st.tuples(REFS, LABELS), max_size=4)


def floats(bits):
    return np.array(bits, np.uint64).view(np.float64)


def batch(records):
    bounds = np.zeros(len(records) + 1, np.int64)
    np.cumsum([len(record) for record in records], out=bounds[1:])
    return guarded(b"".join(records)), bounds


def mutated(record, data):
    record = bytearray(record)
    for _ in range(data.draw(st.integers(0, 3))):
        if record:
            record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    return bytes(record[: data.draw(st.integers(0, len(record)))])


def samples_of(function, records, room=200):
    refs, times, values = np.zeros(room, np.uint64), np.zeros(room, np.int64), np.zeros(room)
    state = np.zeros(2, np.int64)
    n = function(*batch(records), 0, refs, times, values, state)
    bits = values[:n].view(np.uint64).tolist()
    return refs[:n].tolist(), times[:n].tolist(), bits, state.tolist()


def series_of(function, records, room=50, size=20000):
    refs, runs = np.zeros(room, np.uint64), np.zeros(size, np.uint8)
    offsets, state = np.zeros(room + 1, np.int64), np.zeros(2, np.int64)
    n = function(*batch(records), 0, refs, runs, offsets, state)
    taken = runs[: offsets[n]].tobytes()
    return refs[:n].tolist(), taken, offsets[: n + 1].tolist(), state.tolist()


def times_of(function, records):
    times = np.zeros(len(records), np.int64)
    return function(*batch(records), times), times.tolist()


@PROFILE
@given(SAMPLES, st.lists(st.booleans(), min_size=12, max_size=12))
def test_encode_samples_equals_reference(samples, keep):
    """The kept samples give the reference's record, values by bit pattern, and come back."""
    columns = (
        np.array([ref for ref, _, _ in samples], np.uint64),
        np.array([time for _, time, _ in samples], np.int64),
        floats([bits for _, _, bits in samples]),
        np.array(keep[: len(samples)], np.bool_),
    )
    got, expected = np.zeros(500, np.uint8), np.zeros(500, np.uint8)
    n = reference.wal_encode_samples(*columns, expected)
    assert n == wal_records.wal_encode_samples(*columns, got)
    assert expected.tobytes() == got.tobytes()
    kept = [sample for sample, kept in zip(samples, keep, strict=False) if kept]
    decoded = samples_of(wal_records.wal_decode_samples, [got[:n].tobytes()])
    assert kept == list(zip(*decoded[:3], strict=True))


@PROFILE
@given(SAMPLES, SAMPLES, st.lists(TIMES, min_size=12, max_size=12), st.integers(0, 30))
def test_decode_samples_equals_reference(first, second, starts, room):
    """Both layouts among other records, with any room, give the reference's columns and status."""
    starts = [0 if start % 3 == 0 else starts[0] if start % 3 == 1 else start for start in starts]
    v2 = [(ref, t, start, bits) for (ref, t, bits), start in zip(second, starts, strict=False)]
    records = [reference.encode_samples(first), b"\x01", b"", reference.encode_samples_v2(v2)]
    expected = samples_of(reference.wal_decode_samples, records, room)
    assert expected == samples_of(wal_records.wal_decode_samples, records, room)
    if room >= len(first) + len(second):
        assert [t for _, t, _ in first + second] == expected[1]


@HOSTILE
@given(SAMPLES, st.sampled_from([2, 11]), st.data())
def test_decode_samples_hostile(samples, kind, data):
    """Mutated and truncated records decode or are refused exactly as by the reference."""
    if kind == 2:
        record = reference.encode_samples(samples)
    else:
        record = reference.encode_samples_v2([(r, t, t - 1, bits) for r, t, bits in samples])
    records = [mutated(record, data), bytes([kind]) + data.draw(st.binary(max_size=40))]
    expected = samples_of(reference.wal_decode_samples, records)
    assert expected == samples_of(wal_records.wal_decode_samples, records)


@PROFILE
@given(SERIES, st.lists(st.booleans(), min_size=4, max_size=4))
def test_encode_series_equals_reference(series, keep):
    """Canonical runs give the reference's record and come back as the same bytes."""
    canonical = [(r, sorted({n: v for n, v in labels if n and v}.items())) for r, labels in series]
    runs, offsets = batch([reference.run_of(labels) for _, labels in canonical])
    mask = np.array(keep[: len(series)], np.bool_)
    arguments = (np.array([ref for ref, _ in series], np.uint64), runs, offsets, mask)
    got, expected = np.zeros(20000, np.uint8), np.zeros(20000, np.uint8)
    n = reference.wal_encode_series(*arguments, expected)
    assert n == wal_records.wal_encode_series(*arguments, got)
    assert expected.tobytes() == got.tobytes()
    decoded = series_of(wal_records.wal_decode_series, [got[:n].tobytes()])
    kept = [entry for entry, kept in zip(canonical, keep, strict=False) if kept]
    assert [ref for ref, _ in kept] == decoded[0]
    assert b"".join(reference.run_of(labels) for _, labels in kept) == decoded[1]


@PROFILE
@given(st.binary(max_size=60), st.lists(st.tuples(NAMES, st.binary(max_size=3))), st.data())
def test_encode_series_hostile(noise, labels, data):
    """Runs that are no runs are refused; whatever is accepted is what the reference accepts."""
    run = data.draw(st.sampled_from([noise, mutated(reference.run_of(labels), data)]))
    arguments = (np.array([7], np.uint64), *batch([run]), np.ones(1, np.bool_))
    got, expected = np.zeros(3000, np.uint8), np.zeros(3000, np.uint8)
    n = reference.wal_encode_series(*arguments, expected)
    # An empty name is in no canonical run; the kernel alone insists on that.
    if n < 0 or all(name and value for name, value in reference._labels_of_run(run)):
        assert n == wal_records.wal_encode_series(*arguments, got)
        assert n < 0 or expected.tobytes() == got.tobytes()


@PROFILE
@given(SERIES, SERIES)
def test_decode_series_equals_reference(first, second):
    """Labels in any order, doubled or empty, give the reference's canonical runs or its refusal."""
    records = [reference.encode_series(first), b"\x02", b"", reference.encode_series(second)]
    expected = series_of(reference.wal_decode_series, records)
    assert expected == series_of(wal_records.wal_decode_series, records)


@PROFILE
@given(SERIES.filter(bool), st.integers(0, 3), st.integers(0, 60))
def test_decode_series_full(series, room, size):
    """A column or run buffer too small is told, and records before it count."""
    clean = [(r, sorted({n: v for n, v in labels if n and v}.items())) for r, labels in series]
    records = [reference.encode_series([entry]) for entry in clean]
    expected = series_of(reference.wal_decode_series, records, room, size)
    assert expected == series_of(wal_records.wal_decode_series, records, room, size)


@HOSTILE
@given(SERIES, st.data())
def test_decode_series_hostile(series, data):
    """Mutated and truncated records decode or are refused exactly as by the reference."""
    record = mutated(reference.encode_series(series), data)
    records = [record, b"\x01" + data.draw(st.binary(max_size=40))]
    expected = series_of(reference.wal_decode_series, records)
    assert expected == series_of(wal_records.wal_decode_series, records)


def spans(counts):
    numbers = b"".join(reference.varint(k) + reference.uvarint(k) for k in range(counts))
    return reference.uvarint(counts) + numbers


def histogram(is_float, schema, counts):
    out = b"\1" + reference.varint(schema) + struct.pack(">d", 0.1)
    out += struct.pack(">dd", 1.0, 300.0) if is_float else reference.uvarint(1) + b"\xac\x02"
    out += struct.pack(">d", 9.5) + spans(counts) + spans(0)
    bucket = struct.pack(">d", 2.0) if is_float else reference.varint(-300)
    out += reference.uvarint(counts) + bucket * counts + reference.uvarint(0)
    return out + (reference.uvarint(2) + bytes(16) if schema == -53 else b"")


def histogram_record(kind, times, schema, counts):
    out = bytes([kind])
    body = histogram(kind in {8, 10, 13}, schema, counts)
    for i, time in enumerate(times):
        delta = reference.varint(reference.signed(time - times[0]))
        if kind > 11:
            head = reference.varint(time) + reference.varint(5)
            out += reference.varint(3) + (delta + bytes([i % 2]) if i else head) + body
        else:
            out += (struct.pack(">Qq", 3, time) if i == 0 else b"") + b"\0" + delta + body
    return out


@PROFILE
@given(
    st.lists(TIMES, min_size=1, max_size=4),
    st.sampled_from([7, 8, 9, 10, 12, 13]),
    st.sampled_from([-53, 0, 8]),
    st.integers(0, 3),
)
def test_newest_time_of_histograms(times, kind, schema, counts):
    """The newest time of a histogram record of any type is found."""
    records = [histogram_record(kind, times, schema, counts), b"\x02", b""]
    expected = (1, [max(times), wal_ages.ALWAYS, wal_ages.ALWAYS])
    assert expected == times_of(wal_ages.wal_newest_times, records)
    assert expected == times_of(ages_reference.wal_newest_times, records)


def test_newest_time_of_exemplars():
    """Exemplars are walked past their labels."""
    labels = reference.uvarint(1) + b"\x01a\x02bc"
    entries = [b"\0" + reference.varint(t) + bytes(8) + labels for t in (0, 70, 5)]
    record = b"\x04" + struct.pack(">Qq", 1, 1000) + b"".join(entries)
    assert times_of(wal_ages.wal_newest_times, [record]) == (1, [1070])


@HOSTILE
@given(st.sampled_from([4, 7, 8, 10, 12, 13]), st.lists(TIMES, min_size=1, max_size=3), st.data())
def test_newest_time_hostile(kind, times, data):
    """Mutated and truncated records give the reference's time; what does not parse is kept."""
    record = histogram_record(kind, times, -53, 2)
    records = [mutated(record, data), bytes([kind]) + data.draw(st.binary(max_size=50))]
    expected = times_of(ages_reference.wal_newest_times, records)
    assert expected == times_of(wal_ages.wal_newest_times, records)


def located(function, body, room=20):
    refs, offsets = np.zeros(room, np.uint64), np.zeros(room + 1, np.int64)
    n = function(guarded(body), 0, len(body), refs, offsets)
    return n, refs[: max(n, 0)].tolist(), offsets[: max(n, 0) + 1].tolist()


@HOSTILE
@given(st.lists(st.tuples(REFS, LABELS), max_size=4), st.booleans(), st.data())
def test_locate_metadata_equals_reference(entries, harm, data):
    """Whole and damaged metadata records are located exactly as by the reference."""
    body = b""
    for ref, fields in entries:
        body += reference.uvarint(ref) + b"\2" + reference.encode_series([(0, fields)])[9:]
    if harm:
        body = mutated(body, data)
    room = data.draw(st.sampled_from([20, 2]))
    expected = located(ages_reference.wal_locate_metadata, body, room)
    assert expected == located(wal_ages.wal_locate_metadata, body, room)
    assert harm or room == 2 or expected[0] == len(entries)
