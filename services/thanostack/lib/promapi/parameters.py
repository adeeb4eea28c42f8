"""Parameters of the HTTP API, parsed as Thanos parses them, with its error texts.

Times are float unix seconds, rounded to ms, or RFC 3339; durations float seconds or Prometheus
durations. Everything leaves as integer ms.

Source: Thanos `pkg/api/query/v1.go`.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thanostack.lib.foundation.errors import InvalidInput, InvalidTimeRange
from thanostack.lib.foundation.units import parse_model_duration
from thanostack.lib.promql.parser.quoting import quote
from thanostack.lib.storeapi.requests import Shard

# Prometheus's sentinels for "since the beginning" and "until the end".
TIME_MIN = (-9223372036854775 + 62135596801) * 1000
TIME_MAX = (9223372036854775 - 62135596801) * 1000 + 999
POINTS_MAX = 11_000

_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))"
)
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_INT64_NS = float(2**63)
_SECONDS_MAX = float(2**63 // 1000)


def parse_time(text: str) -> int:
    """Return a time in ms.

    Raises:
        InvalidTimeRange: for neither seconds nor RFC 3339.

    Example:
        >>> parse_time("1.5"), parse_time("1970-01-01T00:00:02Z")
        (1500, 2000)
    """
    # Bound: in ms it is an int64, everywhere from here; Go lets it wrap round.
    if _FLOAT.fullmatch(text) and abs(float(text)) < _SECONDS_MAX:
        fraction, whole = math.modf(float(text))
        # Go rounds half away from zero.
        milliseconds = math.copysign(math.floor(abs(fraction) * 1000 + 0.5), fraction)
        return int(whole) * 1000 + int(milliseconds)
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise InvalidTimeRange(f"cannot parse {quote(text)} to a valid timestamp")
    *date, fraction_text, sign, hours, minutes = match.groups()
    try:
        moment = dt.datetime(*map(int, date), tzinfo=dt.UTC)  # type: ignore[misc,arg-type]
    except ValueError as error:
        raise InvalidTimeRange(f"cannot parse {quote(text)} to a valid timestamp") from error
    offset = (int(hours) * 60 + int(minutes)) * 60_000 if hours else 0
    milliseconds = int((fraction_text or "").ljust(3, "0")[:3])
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    whole_ms = int((moment - epoch).total_seconds()) * 1000
    return whole_ms + milliseconds - (offset if sign == "+" else -offset)


def parse_duration(text: str, *, least_ms: int = 0) -> int:
    """Return a duration in ms, rounded towards zero.

    Args:
        text: seconds as a number, or with units.
        least_ms: what a part of a millisecond is instead of 0.

    Raises:
        InvalidTimeRange: for neither seconds nor a Prometheus duration, or one beyond 292 years.

    Example:
        >>> parse_duration("1m30s"), parse_duration("0.25")
        (90000, 250)
    """
    if _FLOAT.fullmatch(text):
        nanoseconds = float(text) * 1e9
        if abs(nanoseconds) >= _INT64_NS:
            raise InvalidTimeRange(
                f"cannot parse {quote(text)} to a valid duration. It overflows int64"
            )
        return int(int(nanoseconds) / 1_000_000) or (least_ms if nanoseconds >= 1 else 0)
    try:
        return parse_model_duration(text)
    except InvalidInput as error:
        raise InvalidTimeRange(f"cannot parse {quote(text)} to a valid duration") from error


@dataclass(frozen=True, slots=True)
class Parameters:
    """The decoded query string and form of one request.

    Args:
        values: name to values; the body's come before the URL's, as Go merges them.
    """

    values: Mapping[str, Sequence[str]]

    def text(self, name: str) -> str:
        """Return the first value of a parameter, "" if it is not there."""
        found = self.values.get(name)
        return found[0] if found else ""

    def texts(self, name: str) -> Sequence[str]:
        """Return all values of a parameter."""
        return self.values.get(name, ())

    def time(self, name: str, default: int) -> int:
        """Return an optional time in ms.

        Raises:
            InvalidTimeRange: naming the parameter.
        """
        text = self.text(name)
        if not text:
            return default
        try:
            return parse_time(text)
        except InvalidTimeRange as error:
            raise InvalidTimeRange(f"Invalid time value for '{name}': {error}") from error

    def duration(self, name: str, *, least_ms: int = 0) -> int | None:
        """Return an optional duration in ms, None if it is not there; see `parse_duration`.

        Raises:
            InvalidTimeRange: naming the parameter.
        """
        text = self.text(name)
        if not text:
            return None
        try:
            return parse_duration(text, least_ms=least_ms)
        except InvalidTimeRange as error:
            raise InvalidTimeRange(f"'{name}' parameter: {error}") from error

    def switch(self, name: str, default: bool) -> bool:
        """Return an optional truth value.

        Raises:
            InvalidInput: naming the parameter.
        """
        text = self.text(name)
        if not text:
            return default
        if text not in _TRUE and text not in _FALSE:
            raise InvalidInput(
                f"'{name}' parameter: strconv.ParseBool: parsing {quote(text)}: invalid syntax"
            )
        return text in _TRUE

    def limit(self) -> int:
        """Return the parameter `limit`, 0 if there is none.

        Raises:
            InvalidInput: if it is not a number, or negative.
        """
        text = self.text("limit")
        if not text:
            return 0
        if not re.fullmatch(r"[+-]?\d{1,18}", text):
            raise InvalidInput(f"cannot parse {quote(text)} to a valid limit")
        if int(text) < 0:
            raise InvalidInput("limit must be non-negative")
        return int(text)

    def metadata_range(self, now_ms: int, default_range_ms: int) -> tuple[int, int]:
        """Return (start, end) of a labels or series request, ms.

        Args:
            now_ms: the end by default, if there is a default range.
            default_range_ms: how far back to look by default; 0 is the beginning of time.

        Raises:
            InvalidTimeRange: for a malformed time, or an end before the start.
        """
        defaults = (now_ms - default_range_ms, now_ms) if default_range_ms else (TIME_MIN, TIME_MAX)
        # Upstream: the error type gets into the text on these routes.
        try:
            start, end = self.time("start", defaults[0]), self.time("end", defaults[1])
        except InvalidTimeRange as error:
            raise InvalidTimeRange(f"bad_data: {error}") from error
        if end < start:
            raise InvalidTimeRange("bad_data: end timestamp must not be before start time")
        return start, end

    def step_range(self, default_step_ms: int) -> tuple[int, int, int]:
        """Return (start, end, step) of a range query, ms.

        Args:
            default_step_ms: least step where none is given.

        Raises:
            InvalidTimeRange: for malformed parameters, an end before the start, a step that is
                not positive, or more than 11,000 points.
        """
        start, end = parse_time(self.text("start")), parse_time(self.text("end"))
        if end < start:
            raise InvalidTimeRange("end timestamp must not be before start time")
        step = self.duration("step")
        if step is None:
            seconds = max((end - start) // 1000 // 250, default_step_ms // 1000)
            step = seconds * 1000
        if step <= 0:
            raise InvalidTimeRange(
                "zero or negative query resolution step widths are not accepted. "
                "Try a positive integer"
            )
        if (end - start) // step > POINTS_MAX:
            raise InvalidTimeRange(
                "exceeded maximum resolution of 11,000 points per timeseries. "
                "Try decreasing the query resolution (?step=XX)"
            )
        return start, end, step

    def max_source_resolution(self, default_ms: int, *, automatic: bool) -> int:
        """Return the coarsest data wanted, ms.

        Args:
            default_ms: what `auto` stands for.
            automatic: whether `auto` is the default.

        Raises:
            InvalidInput: if it is malformed or negative.
        """
        text = self.text("max_source_resolution")
        if text and text != "auto":
            resolution = self.duration("max_source_resolution") or 0
        else:
            resolution = default_ms if automatic or text == "auto" else 0
        if resolution < 0:
            raise InvalidInput(
                "negative 'max_source_resolution' is not accepted. Try a positive integer"
            )
        return resolution

    def engine(self) -> str:
        """Return the engine that was asked for, "" for none; both names mean ours.

        Raises:
            InvalidInput: for another name.
        """
        name = self.text("engine")
        if name not in {"", "prometheus", "thanos"}:
            raise InvalidInput(f"'{name}' bad engine")
        return name

    def shard(self) -> Shard | None:
        """Return the part of the series that is wanted, None for all.

        Raises:
            InvalidInput: if it is no such JSON object.
        """
        text = self.text("shard_info")
        if not text:
            return None
        try:
            info = json.loads(text)
            shard = Shard(
                int(info.get("shard_index", 0)),
                int(info.get("total_shards", 0)),
                bool(info.get("by", False)),
                tuple(map(str, info.get("labels") or ())),
            )
        except (ValueError, AttributeError, TypeError) as error:
            raise InvalidInput(f"could not unmarshal parameter shard_info: {error}") from error
        return shard if shard.total > 0 else None
