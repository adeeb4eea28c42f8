"""Parameters are parsed as Thanos parses them, and refused in its words."""

import pytest

from thanostack.lib.foundation.errors import InvalidInput, InvalidTimeRange
from thanostack.lib.promapi.parameters import (
    TIME_MAX,
    TIME_MIN,
    Parameters,
    parse_duration,
    parse_time,
)
from thanostack.lib.storeapi.requests import Shard


def given(**values):
    names = {name.replace("_list", "[]"): value for name, value in values.items()}
    return Parameters({n: [v] if isinstance(v, str) else v for n, v in names.items()})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1.5", 1500),
        ("-1.5", -1500),
        ("1e3", 1_000_000),
        ("0.0625", 63),
        ("-0.0625", -63),
        ("1700000000.1234", 1_700_000_000_123),
        ("1700000000.0005", 1_700_000_000_000),
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T01:00:01.25+01:00", 1250),
        ("1969-12-31T23:59:59.9999-00:30", 1_799_999),
        ("1970-01-01T00:00:00.123456789Z", 123),
        ("9223309901257974", 9_223_309_901_257_974_000),
    ],
)
def test_times(text, expected):
    """Float seconds rounded to ms, or RFC 3339."""
    assert expected == parse_time(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "abc", "1_0", " 1", "inf", "NaN", "0x1", "1970-01-01", "1970-13-01T00:00:00Z"),
        *("1e300", "1e18", "9223372036854775", "-9223372036854775"),
    ],
)
def test_times_that_are_none(text):
    """The text is upstream's."""
    with pytest.raises(InvalidTimeRange, match=r"^cannot parse .* to a valid timestamp$"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1000),
        ("0.0004", 0),
        ("-0.5", -500),
        ("1m30s", 90_000),
        ("1w", 604_800_000),
        (".5", 500),
    ],
)
def test_durations(text, expected):
    """Float seconds or a Prometheus duration."""
    assert expected == parse_duration(text)


def test_durations_that_are_none():
    """The texts are upstream's."""
    for text in ("1x", "9999y", "292y52w"):
        with pytest.raises(InvalidTimeRange, match=f'^cannot parse "{text}" to a valid duration$'):
            parse_duration(text)
    with pytest.raises(InvalidTimeRange, match=r"duration. It overflows int64$"):
        parse_duration("1e10")


def test_optional_parameters_have_defaults():
    """A missing or empty parameter is its default."""
    none = given(time="", timeout="")
    assert none.time("time", 7) == 7
    assert none.duration("timeout") is None
    assert none.switch("dedup", default=True)
    assert none.limit() == 0
    assert none.shard() is None
    assert none.text("query") == ""
    assert tuple(none.texts("match[]")) == ()
    assert none.engine() == ""


def test_errors_name_the_parameter():
    """As upstream wraps them."""
    cases = [
        (
            lambda p: p.time("time", 0),
            "Invalid time value for 'time': cannot parse \"x\" to a valid timestamp",
        ),
        (lambda p: p.duration("step"), "'step' parameter: cannot parse \"x\" to a valid duration"),
        (
            lambda p: p.switch("dedup", default=True),
            "'dedup' parameter: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        (lambda p: p.limit(), 'cannot parse "x" to a valid limit'),
        (lambda p: p.engine(), "'x' bad engine"),
    ]
    bad = given(time="x", step="x", dedup="x", limit="x", engine="x")
    for parse, text in cases:
        with pytest.raises(InvalidInput) as caught:
            parse(bad)
        assert text == str(caught.value)


def test_switches():
    """Go's truth values."""
    assert [given(a=text).switch("a", default=False) for text in ("1", "f", "TRUE")] == [
        True,
        False,
        True,
    ]


def test_limits():
    """Not negative."""
    assert given(limit="5").limit() == 5
    with pytest.raises(InvalidInput, match=r"^limit must be non-negative$"):
        given(limit="-1").limit()


def test_range_defaults_to_250_points():
    """Without a step there are 250 points, but no finer than the default step."""
    assert given(start="0", end="3600").step_range(1000) == (0, 3_600_000, 14_000)
    assert given(start="0", end="3600").step_range(60_000) == (0, 3_600_000, 60_000)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"start": "2", "end": "1", "step": "1"}, "end timestamp must not be before start time"),
        ({"start": "1", "end": "2", "step": "0"}, "zero or negative query resolution step widths"),
        (
            {"start": "0", "end": "11001", "step": "1"},
            "exceeded maximum resolution of 11,000 points",
        ),
        ({"start": "1", "end": "2", "step": "x"}, "'step' parameter: cannot parse"),
        ({"end": "2", "step": "1"}, 'cannot parse "" to a valid timestamp'),
    ],
)
def test_ranges_that_are_refused(values, text):
    """In upstream's words."""
    with pytest.raises(InvalidTimeRange) as caught:
        given(**values).step_range(1000)
    assert str(caught.value).startswith(text)


def test_eleven_thousand_points_are_allowed():
    """The bound counts steps, not points."""
    assert given(start="0", end="11000", step="1").step_range(1000)[2] == 1000


def test_metadata_range():
    """All time, unless a default range is set or times are given."""
    assert given().metadata_range(9_000, 0) == (TIME_MIN, TIME_MAX)
    assert given().metadata_range(9_000, 2_000) == (7_000, 9_000)
    assert given(start="1").metadata_range(9_000, 2_000) == (1_000, 9_000)
    with pytest.raises(InvalidTimeRange, match=r"^bad_data: end timestamp must not be before"):
        given(start="3", end="2").metadata_range(9_000, 0)


def test_max_source_resolution():
    """A duration, or `auto`, which may be the default."""
    assert given().max_source_resolution(300, automatic=False) == 0
    assert given().max_source_resolution(300, automatic=True) == 300
    assert given(max_source_resolution="auto").max_source_resolution(300, automatic=False) == 300
    assert given(max_source_resolution="1h").max_source_resolution(3, automatic=True) == 3_600_000
    with pytest.raises(InvalidInput, match=r"^negative 'max_source_resolution' is not accepted"):
        given(max_source_resolution="-1").max_source_resolution(3, automatic=True)


def test_shards():
    """A JSON object; no shards is all series."""
    text = '{"shard_index":1,"total_shards":3,"by":true,"labels":["a"]}'
    assert Shard(1, 3, by=True, labels=("a",)) == given(shard_info=text).shard()
    assert given(shard_info="{}").shard() is None
    for bad in ("x", "[]", '{"shard_index":"x"}', '{"shard_index":null,"total_shards":1}'):
        with pytest.raises(InvalidInput, match=r"could not unmarshal parameter shard_info"):
            given(shard_info=bad).shard()
