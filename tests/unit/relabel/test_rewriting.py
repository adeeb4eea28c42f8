"""Requests through relabel rules: the kernels' way and the rules' way come to the same."""

from __future__ import annotations

import random

import numpy as np
import pytest

from thanostack.lib.foundation.errors import InvalidInput, LimitExceeded
from thanostack.lib.pb import prometheus_remote_pb2, remote_write_v2_pb2
from thanostack.lib.relabel.config import parse_relabel_configs
from thanostack.lib.relabel.rewriting import Relabeler
from thanostack.lib.relabel.rules import Rule, relabel
from thanostack.testing.relabel_cases import NAMES, VALUES, random_labels
from thanostack.testing.write_storage import write_request

RULES = """
- {source_labels: [job], regex: up, action: drop}
- {source_labels: [a, b], regex: (a.*);(.*), target_label: joined, replacement: $2-$1}
- {regex: x_.*, action: labeldrop}
- {regex: (.*)stance, action: labelmap, replacement: new_$1}
"""


def array(body):
    return np.frombuffer(body, np.uint8)


def applied(relabeler, body, version=1):
    """Return the body relabeled, and how many misses it had."""
    kind = remote_write_v2_pb2.Request if version == 2 else prometheus_remote_pb2.WriteRequest
    series = len(kind.FromString(body).timeseries)
    request = relabeler.begin(array(body), series, version)
    result = relabeler.finish(request)
    assert result.series + result.dropped == series
    return result.body.tobytes(), request.misses


def message(label_sets):
    """Return a 1.0 request with a sample, an exemplar and a histogram a series."""
    request = prometheus_remote_pb2.WriteRequest()
    request.metadata.add(metric_family_name="up")
    for i, pairs in enumerate(label_sets):
        series = request.timeseries.add()
        for name, value in pairs:
            series.labels.add(name=name, value=value)
        series.samples.add(timestamp=i, value=i / 2)
        series.exemplars.add(value=i)
        series.histograms.add(timestamp=i)
    return request


def message_v2(label_sets):
    request = remote_write_v2_pb2.Request(symbols=[""])
    for i, pairs in enumerate(label_sets):
        series = request.timeseries.add()
        for text in (text for pair in pairs for text in pair):
            if text not in request.symbols:
                request.symbols.append(text)
            series.labels_refs.append(list(request.symbols).index(text))
        series.samples.add(timestamp=i, value=i / 2)
        series.metadata.help_ref = 0
        series.histograms.add(timestamp=i)
    return request


def expected(label_sets):
    """Return {index: pairs} of what is left, by the rules alone."""
    rules = [Rule(config) for config in parse_relabel_configs(RULES)]
    results = [relabel([(n.encode(), v.encode()) for n, v in pairs], rules) for pairs in label_sets]
    return {i: pairs for i, pairs in enumerate(results) if pairs is not None}


@pytest.mark.parametrize("bytes_max", [1 << 20, 700, 1])
def test_requests_are_relabeled(bytes_max):
    """Known or not, with room to remember or without; all else of a series stays as it was."""
    source, relabeler = random.Random(1), Relabeler(parse_relabel_configs(RULES), bytes_max)
    sets = [random_labels(source) for _ in range(60)]
    for _ in range(12):
        label_sets = [source.choice(sets) for _ in range(20)]
        sent = message(label_sets)
        body, _ = applied(relabeler, sent.SerializeToString())
        found = prometheus_remote_pb2.WriteRequest.FromString(body)
        left = expected(label_sets)
        assert found.metadata == sent.metadata
        assert len(found.timeseries) == len(left)
        for series, (i, pairs) in zip(found.timeseries, left.items(), strict=True):
            labels = [(label.name.encode(), label.value.encode()) for label in series.labels]
            assert labels == pairs
            del series.labels[:]
            del sent.timeseries[i].labels[:]
            assert series == sent.timeseries[i]


@pytest.mark.parametrize("bytes_max", [1 << 20, 1])
def test_version_2_is_relabeled(bytes_max):
    """References lead to the new labels; all else of a series stays as it was."""
    source, relabeler = random.Random(2), Relabeler(parse_relabel_configs(RULES), bytes_max)
    sets = [random_labels(source) for _ in range(60)]
    for _ in range(12):
        label_sets = [source.choice(sets) for _ in range(20)]
        sent = message_v2(label_sets)
        body, _ = applied(relabeler, sent.SerializeToString(), version=2)
        found = remote_write_v2_pb2.Request.FromString(body)
        left = expected(label_sets)
        assert len(found.timeseries) == len(left)
        for series, (i, pairs) in zip(found.timeseries, left.items(), strict=True):
            texts = [found.symbols[ref].encode() for ref in series.labels_refs]
            assert list(zip(texts[::2], texts[1::2], strict=True)) == pairs
            del series.labels_refs[:]
            del sent.timeseries[i].labels_refs[:]
            assert series == sent.timeseries[i]


def test_known_series_cost_no_rule():
    """The second time all are known; unchanged ones come back as they came, without a copy."""
    relabeler = Relabeler(parse_relabel_configs("- {source_labels: [a], regex: x, action: drop}"))
    body = write_request(*(({"__name__": f"m{i}"}, [(i, 1.0)]) for i in range(50)))
    assert applied(relabeler, body) == (body, 50)
    request = relabeler.begin(array(body), 50)
    assert request.misses == 0
    assert relabeler.finish(request).body is request.body


def test_fuller_tables_start_anew():
    """Series that are gone make room: a new fleet is known after a few rounds."""
    relabeler = Relabeler(parse_relabel_configs(RULES), bytes_max=20 * 256)
    misses = []
    for fleet in range(3):
        body = write_request(*(({"a": f"{fleet}-{i}"}, [(1, 1.0)]) for i in range(15)))
        misses.append([applied(relabeler, body)[1] for _ in range(6)])
    assert all(fleet[0] == 15 and fleet[-1] == 0 for fleet in misses), misses
    assert relabeler.seen.size_bytes <= 20 * 256


@pytest.mark.parametrize("name", [b"\xff", b"\xed\xa0\x80"])
def test_labels_that_are_not_utf8_pass(name):
    """Storage refuses them, with a reason."""
    series = b"\x0a" + bytes([len(name) + 5]) + b"\x0a" + bytes([len(name)]) + name + b"\x12\x01a"
    body = b"\x0a" + bytes([len(series)]) + series
    relabeler = Relabeler(parse_relabel_configs("- {regex: .*, action: labeldrop}"))
    assert relabeler.finish(relabeler.begin(array(body), 1)).body.tobytes() == body


def test_malformed_and_boundless_requests_are_refused():
    """As storage would."""
    relabeler = Relabeler(parse_relabel_configs(RULES))
    with pytest.raises(InvalidInput):
        relabeler.begin(array(b"\x0a\x02\x0a\x05"), 1)
    with pytest.raises(LimitExceeded):
        relabeler.begin(array(b""), (1 << 20) + 1)
    symbol = b"\x22\x80\x80\x04" + b"a" * 65536
    refs = b"\x0a\x90\x4e" + b"\x00\x00" * 5000
    with pytest.raises(LimitExceeded):
        relabeler.begin(array(symbol + b"\x2a\x93\x4e" + refs), 1, 2)


def test_cases_cover_names_and_values():
    """The random label sets do reach odd names and values."""
    source = random.Random(3)
    pairs = [pair for _ in range(300) for pair in random_labels(source)]
    assert {name for name, _ in pairs} == set(NAMES)
    assert {value for _, value in pairs} == set(VALUES)
