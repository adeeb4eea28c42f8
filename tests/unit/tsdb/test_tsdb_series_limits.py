"""What new series must keep to: exact, local, and no obstacle to series that are there."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thanostack.lib.foundation.clock import ManualClock
from thanostack.lib.kernels import label_measures
from thanostack.lib.model.label_runs import encode_run
from thanostack.lib.tsdb.multi_tsdb import MultiTSDB
from thanostack.lib.tsdb.options import SeriesLimits
from thanostack.testing.reference import label_measures as reference
from thanostack.testing.tsdb_directory import SMALL, opened
from thanostack.testing.write_storage import write_request, write_request_v2

NOW = 1_000_000_000


@pytest.fixture
def limited(tmp_path):
    """Make a TSDB with limits."""
    made = []

    def make(**limits):
        options = dataclasses.replace(SMALL, limits=SeriesLimits(**limits))
        made.append(opened(tmp_path / str(len(made)), options))
        return made[-1]

    yield make
    for tsdb in made:
        tsdb.close()


def send(tsdb, *label_sets, t=NOW, version=1):
    body = write_request(*((labels, [(t, 1.0)]) for labels in label_sets))
    return tsdb.append_and_wait(body, version=version)


def series(first, stop):
    return [{"a": str(i)} for i in range(first, stop)]


def test_series_beyond_the_limit_are_refused_and_known_ones_go_on(limited):
    """A request that is partly over stores what it may; the count never passes the limit."""
    tsdb = limited(series=5)
    assert send(tsdb, *series(0, 3)).rejected == {}
    result = send(tsdb, *series(2, 10), t=NOW + 1)
    assert (result.stored, result.series_created, tsdb.head.series) == (3, 2, 5)
    assert (result.rejected, result.series_limit) == ({"series_limit": 5}, 5)
    assert "above its limit of active series" in result.example
    result = send(tsdb, *series(0, 6), t=NOW + 2)
    assert (result.stored, result.rejected) == (5, {"series_limit": 1})
    assert send(tsdb, *series(0, 5), t=NOW + 3).rejected == {}


@pytest.mark.parametrize("version", [1, 2])
def test_a_series_without_a_sample_that_is_taken_is_not_made(limited, version):
    """Too late, too early or none: counted as that, and no active series. Known ones are found."""
    tsdb = limited(series=5)
    encode = write_request if version == 1 else write_request_v2
    ahead = tsdb.clock.now_ms() + 10 * 86_400_000
    tsdb.options = dataclasses.replace(tsdb.options, too_far_in_future_ms=1000)
    now = tsdb.clock.now_ms()
    assert tsdb.append_and_wait(encode(({"a": "known"}, [(now, 1.0)])), version=version).stored == 1
    result = tsdb.append_and_wait(
        encode(
            ({"a": "late"}, [(1, 1.0), (2, 1.0)]),
            ({"a": "early"}, [(ahead, 1.0)]),
            ({"a": "both"}, [(1, 1.0), (ahead, 1.0)]),
            ({"a": "none"}, []),
            ({"a": "known"}, [(1, 1.0)]),
            ({"a": "new"}, [(1, 1.0), (now, 1.0)]),
            ({"a": "late"}, [(3, 1.0)]),
        ),
        version=version,
    )
    assert result.rejected == {"out_of_bounds": 6, "too_far_in_future": 2}
    assert (result.stored, result.series_created, tsdb.head.series) == (1, 1, 2)
    assert result.example.startswith('{a="late"}, samples are taken from ')
    # A late sample does not hide that its series is made by a later part of the request.
    twice = encode(({"a": "x"}, [(1, 1.0)]), ({"a": "x"}, [(now, 1.0)]))
    result = tsdb.append_and_wait(twice, version=version)
    assert (result.stored, result.rejected, tsdb.head.series) == (1, {"out_of_bounds": 1}, 3)


def test_one_new_series_twice_counts_once(limited):
    """Also when its labels come in another order."""
    tsdb = limited(series=2)
    twice = [{"a": "1", "b": "1"}, {"b": "1", "a": "1"}, {"a": "1", "b": "1"}]
    result = send(tsdb, *twice, {"a": "2"}, {"a": "3"}, {"a": "2"})
    assert (tsdb.head.series, result.rejected) == (2, {"series_limit": 1})


def test_unsorted_labels_of_a_known_series_are_no_new_series(limited):
    """Its bytes are not known, but its canonical form is."""
    tsdb = limited(series=1)
    send(tsdb, {"a": "1", "b": "1"})
    result = send(tsdb, {"b": "1", "a": "1"}, {"c": "1"}, t=NOW + 1)
    assert (result.stored, result.rejected) == (1, {"series_limit": 1})


@pytest.mark.parametrize(
    ("limits", "labels", "text"),
    [
        ({"label_names": 2}, {"a": "1", "b": "1", "c": "1"}, "more labels than"),
        ({"label_name_bytes": 3}, {"abcd": "1"}, "label name longer"),
        ({"label_value_bytes": 3}, {"a": "ééé"}, "label value longer"),
    ],
)
def test_labels_beyond_limits_are_refused(limited, limits, labels, text):
    """By number and by bytes; other series of the request are stored."""
    tsdb = limited(**limits)
    result = send(tsdb, labels, {"a": "1"})
    assert (result.stored, result.rejected) == (1, {"label_limit": 1})
    assert text in result.example


def test_reasons_are_told_apart(limited):
    """Wrong labels, too many labels and too many series in one request, counted by sample."""
    tsdb = limited(series=1, label_names=2)
    body = write_request(
        ({"a": "1"}, [(NOW, 1.0)]),
        ({"a": ""}, [(NOW, 1.0), (NOW + 1, 1.0)]),
        ({"a": "1", "b": "1", "c": "1"}, [(NOW, 1.0), (NOW + 1, 1.0), (NOW + 2, 1.0)]),
        ({"a": "2"}, [(NOW, 1.0)]),
    )
    result = tsdb.append_and_wait(body)
    assert result.rejected == {"invalid_labels": 2, "label_limit": 3, "series_limit": 1}


def test_limits_change_while_open(tmp_path):
    """A raised limit lets more in, a lowered one refuses what is new; retention follows too."""
    db = MultiTSDB(tmp_path, SMALL, clock=ManualClock(NOW))
    db.open()
    first = db.tsdb("a")
    send(first, *series(0, 3))
    limits = {"a": 2, "b": 1}
    db.reconfigure(lambda tenant: dataclasses.replace(SMALL, limits=SeriesLimits(limits[tenant])))
    assert send(first, *series(0, 4), t=NOW + 1).rejected == {"series_limit": 1}
    assert send(db.tsdb("b"), *series(0, 2)).rejected == {"series_limit": 1}
    limits["a"] = 4
    db.maintain()
    assert send(first, *series(0, 4), t=NOW + 2).rejected == {}
    db.close()


RUNS = st.dictionaries(
    st.text("ab", min_size=1, max_size=200), st.text("xyé", min_size=1, max_size=200), max_size=6
).map(encode_run)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(RUNS, min_size=1, max_size=6), st.data())
def test_label_measures_equal_the_reference(runs, data):
    """The kernel and its twin measure the same."""
    buffer = np.frombuffer(b"".join(runs), np.uint8)
    stops = np.cumsum([len(run) for run in runs])
    bounds = np.stack([stops - [len(run) for run in runs], stops], axis=1).ravel().astype(np.int64)
    chosen = data.draw(st.lists(st.integers(0, len(runs) - 1), max_size=6))
    results = []
    for module in (label_measures, reference):
        out = np.zeros(3 * len(chosen), np.int64)
        module.label_measures(buffer, bounds, np.array(chosen, np.int64), out)
        results.append(out.tolist())
    assert results[0] == results[1]
