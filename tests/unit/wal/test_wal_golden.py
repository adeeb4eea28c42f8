"""Logs that a real Prometheus left decode to what its own tool says is in them."""

import re
from pathlib import Path

import numpy as np
import pytest

from thanostack.lib.wal.reader import read_records
from thanostack.lib.wal.records import RecordType, count_types, decode_samples, decode_series

DATA = Path(__file__).parents[2] / "data" / "wal"
NAMES = {"go_goroutines", "up", "process_cpu_seconds_total", "process_start_time_seconds"}


def dumped(name):
    """Return {(labels, t, value)} of a `promtool tsdb dump`."""
    samples = set()
    for line in (DATA / f"{name}.dump").read_text().splitlines():
        labels, value, time = re.fullmatch(r"\{(.*)\} (\S+) (\d+)", line).groups()
        pairs = frozenset(re.findall(r'(\w+)="([^"]*)"', labels))
        samples.add((pairs, int(time), float(value)))
    return samples


def decoded(folder):
    """Return ({(labels, t, value)} of the chosen metrics, records per type, all float samples)."""
    series, samples, types, total = {}, set(), np.zeros(256, np.int64), 0
    for batch in read_records(folder):
        types += count_types(batch)
        found = decode_series(batch)
        for i, ref in enumerate(found.refs.tolist()):
            series[ref] = found.runs.mapping(i)
        columns = decode_samples(batch)
        total += len(columns)
        lists = (columns.refs.tolist(), columns.timestamps.tolist(), columns.values.tolist())
        for ref, time, value in zip(*lists, strict=True):
            if series[ref]["__name__"] in NAMES:
                samples.add((frozenset(series[ref].items()), time, value))
    return samples, types, total


@pytest.mark.parametrize(
    ("name", "floats", "histograms"), [("snappy-killed", 4294, 31), ("zstd-closed", 3321, 24)]
)
def test_prometheus_wal(name, floats, histograms):
    """Series and samples equal the dump; histograms are counted."""
    samples, types, total = decoded(DATA / name)
    assert dumped(name) == samples
    assert floats == total
    assert histograms == types[RecordType.HISTOGRAMS]
    assert (
        types.sum() == types[[RecordType.SERIES, RecordType.SAMPLES, RecordType.HISTOGRAMS]].sum()
    )
