"""A range query cut into slices has the same bits as one piece, and stays inside its limits."""

import threading

import numpy as np
import pytest

from thanostack.lib.foundation.errors import (
    ExecutionFailed,
    InvalidTimeRange,
    LimitExceeded,
    QueryCanceled,
    QueryTimeout,
)
from thanostack.lib.promql.engine import Deadline, Engine, EngineOptions
from thanostack.lib.promql.parser import parse_expr
from thanostack.testing.memory_queryable import MemoryQueryable

STEP = 60_000
END = 40 * STEP
QUERIES = [
    ("sum by (job) (rate(c_total[5m]))", 2_000),
    ("rate(c_total[5m])", 20_000),
    ("topk(2, c_total)", 20_000),
    ("c_total / on(job) group_left sum by (job) (c_total)", 60_000),
    ("max_over_time(sum(rate(c_total[2m]))[10m:90s])", 2_500),
    ("c_total offset 3m or c_total @ 600", 60_000),
    ("absent(c_total > 100)", 20_000),
    ("quantile by (job) (scalar(avg(c_total)) / 200, c_total)", 20_000),
    ("count_values('v', floor(c_total / 50))", 20_000),
]
"""Each with a budget, in bytes, that its matrices do not fit into at once."""


def series() -> MemoryQueryable:
    random = np.random.default_rng(3)
    queryable = MemoryQueryable()
    for i in range(150):
        times = np.arange(0, END, 17_000) + random.integers(0, 9000)
        values = np.cumsum(random.random(len(times)))
        values[random.integers(1, len(times)) :] -= values[-1] / 2
        labels = {"__name__": "c_total", "job": f"j{i % 4}", "i": f"{i:03}"}
        queryable.add(labels, zip(times.tolist(), values.tolist(), strict=True))
    return queryable


def ran(options, query, queryable=None):
    return Engine(options).range(parse_expr(query), queryable or series(), 0, END, STEP)


@pytest.mark.parametrize(("query", "budget"), QUERIES)
def test_slices_change_no_bit(query, budget):
    """Small budgets mean many slices; labels, times and values stay what they were."""
    whole = ran(EngineOptions(), query)
    cut = ran(EngineOptions(bytes_max=budget), query)
    assert whole.stats.slices == 1
    assert cut.stats.slices > 1
    assert whole.value.labels.data.tobytes() == cut.value.labels.data.tobytes()
    assert whole.value.offsets.tolist() == cut.value.offsets.tolist()
    assert whole.value.timestamps.tolist() == cut.value.timestamps.tolist()
    assert whole.value.values.tobytes() == cut.value.values.tobytes()


def test_series_are_decoded_once():
    """With room for the samples, a second slice reads none again."""
    queryable = series()
    options = EngineOptions(bytes_max=1_500_000)
    query = (
        "c_total + c_total + c_total + c_total + c_total + c_total + c_total + c_total + c_total"
    )
    result = ran(options, f"{query} + on(i) {query}", queryable)
    assert result.stats.slices > 1
    (sources,) = queryable.selected
    reads = [len(source.reads) for source in sources]
    assert min(reads) == 3


def test_one_select_call_for_all_selectors():
    queryable = series()
    ran(EngineOptions(), "sum(c_total) + sum(rate(c_total[5m] offset 1m))", queryable)
    assert [len(sources) for sources in queryable.selected] == [2]


def test_what_does_not_fit_at_one_step_is_refused():
    with pytest.raises(LimitExceeded, match=r"query\.bytes-max"):
        ran(EngineOptions(bytes_max=500), "c_total * 2")


def test_a_streamed_sum_needs_no_room_for_its_series():
    """150 series at 41 steps would take 55 kB; their sum takes a row."""
    assert ran(EngineOptions(bytes_max=4_000), "sum(rate(c_total[5m]))").stats.slices == 1


def test_too_many_samples_is_an_execution_error():
    with pytest.raises(ExecutionFailed, match="too many samples into memory in query execution"):
        ran(EngineOptions(samples_max=1000), "c_total")


def test_a_passed_deadline_is_a_timeout():
    with pytest.raises(QueryTimeout, match="query timed out in expression evaluation"):
        Engine().instant(parse_expr("c_total"), series(), 0, deadline=Deadline.after(-1))


def test_a_query_is_cancelled_between_batches():
    """Cancelling while a source is being read ends the query at the next batch."""
    deadline = Deadline()
    queryable = series()
    select = queryable.select

    def cancelling(requests):
        sources = select(requests)
        samples = sources[0].samples
        thread = threading.Thread(target=deadline.cancel)

        def read(*args):
            thread.start()
            thread.join()
            return samples(*args)

        parts = {"labels": sources[0].labels, "warnings": (), "samples": staticmethod(read)}
        sources[0] = type("Source", (), parts)()
        return sources

    queryable = type("Queryable", (), {"select": staticmethod(cancelling)})()
    with pytest.raises(QueryCanceled, match="query was canceled in expression evaluation"):
        Engine().instant(parse_expr("c_total"), queryable, 600_000, deadline=deadline)


def test_names_colliding_in_different_slices_are_refused():
    """Two series that become one are an error even when they never meet at a step."""
    queryable = MemoryQueryable()
    queryable.add({"__name__": "a_total"}, [(t, 1.0) for t in range(0, 300_000, 15_000)])
    queryable.add({"__name__": "b_total"}, [(t, 1.0) for t in range(1_500_000, END, 15_000)])
    expr = parse_expr('rate({__name__=~".+_total"}[1m])')
    for options in (EngineOptions(), EngineOptions(bytes_max=400)):
        with pytest.raises(ExecutionFailed, match="cannot contain metrics with the same labelset"):
            Engine(options).range(expr, queryable, 0, END, STEP)


@pytest.mark.parametrize(
    ("query", "start", "end", "step", "message"),
    [
        ("c_total", 0, 10, 0, "zero or negative query resolution step widths are not accepted"),
        ("c_total", 10, 0, 1, "end timestamp must not be before start time"),
        ("c_total[1m]", 0, 10, 1, 'invalid expression type "range vector" for range query'),
        ("'text'", 0, 10, 1, 'invalid expression type "string" for range query'),
    ],
)
def test_a_bad_range_is_refused(query, start, end, step, message):
    with pytest.raises(InvalidTimeRange, match=message):
        Engine().range(parse_expr(query), series(), start, end, step)
