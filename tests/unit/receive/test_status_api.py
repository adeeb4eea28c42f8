"""`/api/v1/status/tsdb`: what it counts, for whom, and that it counts beside writers."""

from __future__ import annotations

import random
import threading
from collections import Counter

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry

from thanostack.lib.foundation.errors import Unavailable
from thanostack.lib.tsdb import cardinality as cardinality_module
from thanostack.lib.tsdb.cardinality import cardinality
from thanostack.lib.tsdb.head import IndexRebuild
from thanostack.receive.status_api import status_pages
from thanostack.runtime.probes import Probes
from thanostack.testing.tsdb_directory import opened
from thanostack.testing.write_storage import write_request

NOW = 1_000_000_000


def send(tsdb, label_sets, t=NOW):
    tsdb.append_and_wait(write_request(*((labels, [(t, 1.0)]) for labels in label_sets)))


def label_sets(n, seed=1):
    source = random.Random(seed)
    return [
        {
            "__name__": f"metric_{source.randrange(7)}",
            "pod": f"pod-{i}",
            "zone": source.choice("abé"),
            "x" * source.choice((1, 127, 128, 300)): "v" * source.choice((1, 127, 128, 20_000)),
        }
        for i in range(n)
    ]


@pytest.fixture
def tsdb(tmp_path):
    found = opened(tmp_path / "a")
    yield found
    found.close()


def test_counts_are_those_of_the_label_sets(tsdb, monkeypatch):
    """Over several slices, with short and long texts, against a count by dictionaries."""
    monkeypatch.setattr(cardinality_module, "SLICE", 64)
    sent = label_sets(300)
    send(tsdb, sent)
    pairs = Counter((name, value) for labels in sent for name, value in labels.items())
    size = Counter()
    for (name, value), n in pairs.items():
        size[name] += n * (len(name.encode()) + len(value.encode()) + 32)
    found = cardinality(tsdb, 10_000)
    assert (found.series, found.label_pairs, found.chunks) == (300, len(pairs), 300)
    assert (found.mint, found.maxt) == (NOW, NOW)
    metrics = {value: n for (name, value), n in pairs.items() if name == "__name__"}
    assert dict(found.series_by_metric) == metrics
    assert dict(found.values_by_label) == Counter(name for name, _ in pairs)
    assert dict(found.bytes_by_label) == size
    assert dict(found.series_by_pair) == {f"{n}={v}": count for (n, v), count in pairs.items()}


def test_lists_are_descending_and_bounded(tsdb):
    """The largest come first, equals by name; no list is longer than was asked for."""
    send(tsdb, label_sets(50))
    found = cardinality(tsdb, 3)
    counts = [n for _, n in cardinality(tsdb, 10_000).series_by_pair]
    assert counts == sorted(counts, reverse=True)
    assert [n for _, n in found.series_by_pair] == counts[:3]
    assert len(found.series_by_metric) == len(found.bytes_by_label) == 3
    assert cardinality(tsdb, 0).values_by_label == []


def test_an_empty_head(tsdb):
    """Nothing is counted, and times are upstream's for nothing."""
    found = cardinality(tsdb, 10)
    assert (found.series, found.label_pairs, found.series_by_pair) == (0, 0, [])
    assert (found.mint, found.maxt) == ((1 << 63) - 1, -(1 << 63))


def test_a_rebuild_begins_the_count_anew(tsdb, monkeypatch):
    """Records of two generations are never mixed; without end it gives up."""
    send(tsdb, label_sets(20))
    top = cardinality_module._Count._top
    left = [2]

    def rebuild(count, *arguments):
        if left[0]:
            left[0] -= 1
            tsdb.jobs.run(lambda: IndexRebuild(tsdb.head).finish())
        return top(count, *arguments)

    monkeypatch.setattr(cardinality_module._Count, "_top", rebuild)
    assert cardinality(tsdb, 10).series == 20
    left[0] = 1000
    with pytest.raises(Unavailable):
        cardinality(tsdb, 10)


def test_counting_beside_a_writer(tsdb):
    """Writes go on while it counts, and what it says was true at some time."""
    stop, begun = threading.Event(), threading.Event()

    def write():
        n = 0
        while not stop.is_set() and n < 10_000:  # the directory takes some more
            send(tsdb, [{"__name__": "m", "i": str(n + k)} for k in range(50)])
            n += 50
            begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(30)  # or thirty counts may be over before a busy machine lets it begin
        seen = [dict(cardinality(tsdb, 10).series_by_metric).get("m", 0) for _ in range(30)]
    finally:
        stop.set()
        writer.join()
    assert seen == sorted(seen)
    assert 0 < seen[-1] <= tsdb.head.series


@pytest.fixture
def client(tmp_path):
    tenants = {name: opened(tmp_path / name) for name in ("a", "default-tenant")}
    send(tenants["a"], [{"__name__": "up", "job": "x"}])
    probes = Probes("receive", CollectorRegistry(), structlog.get_logger())
    probes.set_ready()
    app = status_pages(lambda: tenants, probes, header="THANOS-TENANT", default="default-tenant")
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://receive")
    client.probes = probes
    yield client
    for tsdb in tenants.values():
        tsdb.close()


async def test_the_answer_is_upstreams(client):
    """Field for field."""
    answer = await client.get("/api/v1/status/tsdb", headers={"THANOS-TENANT": "a"})
    assert answer.json() == {
        "status": "success",
        "data": [
            {
                "tenant": "a",
                "headStats": {
                    "numSeries": 1,
                    "numLabelPairs": 2,
                    "chunkCount": 1,
                    "minTime": NOW,
                    "maxTime": NOW,
                },
                "seriesCountByMetricName": [{"name": "up", "value": 1}],
                "labelValueCountByLabelName": [
                    {"name": "__name__", "value": 1},
                    {"name": "job", "value": 1},
                ],
                "memoryInBytesByLabelName": [
                    {"name": "__name__", "value": 42},
                    {"name": "job", "value": 36},
                ],
                "seriesCountByLabelValuePair": [
                    {"name": "__name__=up", "value": 1},
                    {"name": "job=x", "value": 1},
                ],
            }
        ],
    }
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("query", "headers", "tenants"),
    [
        ("", {}, ["default-tenant"]),
        ("?all_tenants=true", {}, ["a", "default-tenant"]),
        ("?all_tenants=false&limit=1", {"THANOS-TENANT": "a"}, ["a"]),
        ("", {"THANOS-TENANT": "unknown"}, []),
    ],
)
async def test_whom_it_speaks_of(client, query, headers, tenants):
    """The default tenant, the header's, or all of them."""
    answer = await client.get(f"/api/v1/status/tsdb{query}", headers=headers)
    assert [entry["tenant"] for entry in answer.json()["data"]] == tenants


@pytest.mark.parametrize(
    ("query", "headers", "text"),
    [
        (
            "?all_tenants=true",
            {"THANOS-TENANT": "a"},
            "using both the all_tenants parameter and the THANOS-TENANT header is not supported",
        ),
        (
            "?limit=x",
            {},
            "unable to parse 'limit' parameter: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        ("?limit=-1", {}, "'limit' parameter must not be negative"),
    ],
)
async def test_bad_parameters_are_400(client, query, headers, text):
    """In upstream's words."""
    answer = await client.get(f"/api/v1/status/tsdb{query}", headers=headers)
    expected = {"status": "error", "errorType": "bad_data", "error": text}
    assert (answer.status_code, answer.json()) == (400, expected)


async def test_while_not_ready_there_is_no_answer(client):
    """Storage may not be open yet."""
    client.probes.set_not_ready("replay")
    assert (await client.get("/api/v1/status/tsdb")).status_code == 503
