"""Bodies are Prometheus's JSON, in pieces of bounded size, compressed where it is worth it."""

import gzip
import json

import numpy as np
import pytest

from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.promapi import results
from thanostack.lib.promapi.compression import accepts_gzip, compress
from thanostack.lib.promapi.envelope import encode_error, encode_success, is_cacheable
from thanostack.lib.promapi.results import stream_labels, stream_points, stream_result
from thanostack.lib.promql.engine import (
    MatrixResult,
    QueryResult,
    QueryStats,
    ScalarResult,
    StringResult,
    VectorResult,
)


def body(value, warnings=(), infos=(), **options):
    return b"".join(stream_result(QueryResult(value, warnings, infos, QueryStats()), **options))


LABELS = LabelRuns.of_mappings([{"__name__": "up", "a": 'q"\n'}, {}])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ScalarResult(1500, float("inf")), '{"resultType":"scalar","result":[1.5,"+Inf"]'),
        (ScalarResult(2000, 1e21), '{"resultType":"scalar","result":[2,"1e+21"]'),
        (StringResult(1250, "é\\"), '{"resultType":"string","result":[1.25,"é\\\\"]'),
        (
            VectorResult(LABELS, np.array([1500, 2000]), np.array([1.0, -0.5])),
            (
                '{"resultType":"vector","result":['
                '{"metric":{"__name__":"up","a":"q\\"\\n"},"value":[1.500,"1"]},'
                '{"metric":{},"value":[2,"-0.5"]}]'
            ),
        ),
        (
            MatrixResult(
                LABELS, np.array([0, 2, 3]), np.array([1, 1000, 5]), np.array([1.0, 2, 3])
            ),
            (
                '{"resultType":"matrix","result":['
                '{"metric":{"__name__":"up","a":"q\\"\\n"},"values":[[0.001,"1"],[1,"2"]]},'
                '{"metric":{},"values":[[0.005,"3"]]}]'
            ),
        ),
        (
            MatrixResult(
                LabelRuns.of([]), np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0)
            ),
            '{"resultType":"matrix","result":[]',
        ),
    ],
)
def test_results(value, expected):
    """Every type in its form."""
    text = f'{{"status":"success","data":{expected},"analysis":{{}}}}}}'
    assert text == body(value).decode()


def test_warnings_infos_and_stats():
    """They follow the result; long lists are cut with a count."""
    warnings = tuple(f"w{i}" for i in range(12))
    answer = json.loads(body(ScalarResult(0, 0.0), warnings, ("i",), stats={"a": 1}))
    assert [*warnings[:10], "2 more warnings omitted"] == answer["warnings"]
    assert answer["infos"] == ["i"]
    assert answer["data"]["stats"] == {"a": 1}


def test_large_bodies_come_in_pieces(monkeypatch):
    """A series longer than a piece goes on in the next."""
    monkeypatch.setattr(results, "POINTS_PER_PIECE", 7)
    offsets = np.array([0, 3, 3, 23])
    times, values = np.arange(23) * 1000, np.arange(23) / 4
    runs = LabelRuns.of_mappings([{"a": "1"}, {"a": "2"}, {"a": "3"}])
    pieces = list(stream_points(runs, offsets, times, values))
    assert len(pieces) == 4
    first, second = json.loads(b"[" + b"".join(pieces) + b"]")
    assert [first["metric"], second["metric"]] == [{"a": "1"}, {"a": "3"}]
    assert [len(first["values"]), len(second["values"])] == [3, 20]
    assert second["values"][-1] == [22, "5.5"]


def test_label_sets(monkeypatch):
    """Objects of an array, whatever the number of pieces."""
    monkeypatch.setattr(results, "LABELS_PER_PIECE", 2)
    runs = LabelRuns.of_mappings([{"a": str(i)} for i in range(5)])
    assert [{"a": str(i)} for i in range(5)] == json.loads(b"".join(stream_labels(runs)))
    assert json.loads(b"".join(stream_labels(LabelRuns.of([])))) == []


def test_envelopes():
    """Success and error."""
    assert encode_success([1], ["w"]) == b'{"status":"success","data":[1],"warnings":["w"]}'
    expected = b'{"status":"error","errorType":"bad_data","error":"a\xc3\xa9?"}'
    assert expected == encode_error("bad_data", "aé\udc80")


def test_what_may_be_cached():
    """PromQL's own annotations do not make an answer incomplete."""
    assert is_cacheable(["PromQL info: x", "PromQL warning: y"])
    assert not is_cacheable(["PromQL info: x", "receive series from Addr: a"])


def test_gzip_is_chosen_by_header():
    """Quality zero is no."""
    accepted = [accepts_gzip(t) for t in ("gzip", "deflate, GZIP;q=0.5", "*", "gzip; q=1.0")]
    assert accepted == [True] * 4
    assert [accepts_gzip(t) for t in ("", "br", "gzip;q=0", "gzip;q=0.000")] == [False] * 4


def test_compressed_stream_reads_back():
    """One gzip stream, made of pieces."""
    pieces = [b"a" * 100_000, b"", b"b" * 10]
    assert b"".join(pieces) == gzip.decompress(b"".join(compress(pieces)))
