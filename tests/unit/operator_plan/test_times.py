"""Times of the status, and timers that outlive the operator."""

import pytest

from thanostack_operator.plan.times import Timers, duration_s, seconds, timestamp

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("15m", 900), ("1h30m", 5400), ("2d", 172800), ("5s500ms", 5.5), ("1w", 604800)],
)
def test_durations(text, expected):
    assert expected == duration_s(text)


def test_a_time_is_read_as_it_was_written():
    assert timestamp(NOW) == "2023-11-14T22:13:20Z"
    assert seconds(timestamp(NOW + 0.9)) == NOW


@pytest.mark.parametrize("text", [None, "", "yesterday", 7, {}])
def test_what_is_no_time_is_none(text):
    assert seconds(text) is None


def test_a_timer_goes_on_from_the_status():
    timers = Timers([{"name": "drain/x", "since": timestamp(NOW - 30)}], NOW)
    assert timers.elapsed_s("drain/x") == 30
    assert timers.transitions() == [{"name": "drain/x", "since": timestamp(NOW - 30)}]


def test_a_timer_that_nobody_asks_for_ends():
    timers = Timers([{"name": "drain/x", "since": timestamp(NOW - 30)}], NOW)
    assert timers.elapsed_s("other") == 0
    assert [item["name"] for item in timers.transitions()] == ["other"]


def test_keeping_starts_no_timer():
    timers = Timers([], NOW)
    assert timers.keep("drain/x") is None
    assert timers.transitions() == []


@pytest.mark.parametrize("item", [None, "x", {"name": "t"}, {"name": "t", "since": "soon"}])
def test_a_malformed_transition_is_forgotten(item):
    timers = Timers([item], NOW)
    timers.keep_all()
    assert timers.transitions() == []


def test_a_timer_of_the_future_begins_now():
    """A clock that was set back must not stop a timeout."""
    timers = Timers([{"name": "t", "since": timestamp(NOW + 1e6)}], NOW)
    assert timers.elapsed_s("t") == 0
