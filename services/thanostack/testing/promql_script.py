r"""Upstream's test language for PromQL: loads series, evaluates, compares.

    load 1m
        up{job="a"} 1+1x10
    eval instant at 5m sum(up)
        {} 6

What is compared and how closely is upstream's: a relative difference of 1e-6, exact label sets,
order where asked for, annotations by text. An instant query is run again as the middle step of a
range query, and with `@` on all selectors at other times.

Deliberately missing: native histograms and start timestamps. A script that has them is read; an
evaluation that would meet one is reported as not applicable, never as passed.

Source: Prometheus 3.14 `promql/promqltest/README.md` (format).
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from thanostack.lib.foundation.errors import InvalidInput, ThanostackError
from thanostack.lib.foundation.units import parse_model_duration
from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.model.matchers import MatchType
from thanostack.lib.model.series import STALE_NAN_BITS
from thanostack.lib.promql.ast import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
)
from thanostack.lib.promql.engine import (
    Engine,
    EngineOptions,
    MatrixResult,
    QueryResult,
    ScalarResult,
    StringResult,
    VectorResult,
)
from thanostack.lib.promql.engine.plan import STEP_DEPENDENT
from thanostack.lib.promql.parser import ParserOptions, parse_expr, parse_metric_selector
from thanostack.testing.memory_queryable import MemoryQueryable

STALE = float(np.uint64(STALE_NAN_BITS).view(np.float64))
_ALL_SYNTAX = ParserOptions(
    enable_experimental_functions=True,
    enable_extended_range_selectors=True,
    enable_binop_fill_modifiers=True,
)
_NUMBER = r"[+-]?(?:[Ii]nf|NaN|nan|stale|0x[0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_REPEATED = re.compile(rf"({_NUMBER})(?:([+-])({_NUMBER}))?x(\d+)")
_EVAL = re.compile(r"eval(?:_(fail|warn|ordered|info))?\s+instant\s+at\s+(\S+)\s+(.+)", re.DOTALL)
_EVAL_RANGE = re.compile(
    r"eval(?:_(fail|warn|info))?\s+range\s+from\s+(\S+)\s+to\s+(\S+)\s+step\s+(\S+)\s+(.+)",
    re.DOTALL,
)
_EXPECT = re.compile(r"expect\s+(ordered|fail|warn|no_warn|info|no_info)(?:\s+(regex|msg):(.+))?")
_EXPECT_RANGE = re.compile(r"expect range vector from (\S+) to (\S+) step (\S+)")
_CONTEXT = re.compile(r"\b(start|end|range|step)\s*\(\s*\)")

Metric = tuple[tuple[str, str], ...]


class Outcome(enum.Enum):
    """What became of one evaluation."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Report:
    """One evaluation of a script: its line, its query, what became of it and why."""

    line: int
    query: str
    outcome: Outcome
    reason: str = ""


class ScriptError(Exception):
    """A script that cannot be read."""


class _Mismatch(Exception):
    """A result that is not what the script says."""


@dataclass(slots=True)
class _Evaluation:
    """One `eval` with everything expected of it; times in ms; step 0 is an instant."""

    line: int
    query: str
    start: int
    end: int
    step: int
    expects: list[tuple[str, str, str]] = field(default_factory=list)
    series: dict[Metric, list[float | None]] = field(default_factory=dict)
    scalar: float | None = None
    text: str | None = None
    grid: tuple[int, int, int] | None = None
    histograms: bool = False

    def wants(self, kind: str) -> list[tuple[str, str]]:
        return [(how, what) for name, how, what in self.expects if name == kind]


def duration_ms(text: str) -> int:
    """Return a time of a script in ms: a duration, possibly negative, or seconds."""
    sign = -1 if text.startswith("-") else 1
    bare = text.lstrip("+-")
    try:
        return sign * parse_model_duration(bare)
    except InvalidInput:
        return sign * round(float(bare) * 1000)


def parse_number(text: str) -> float:
    """Return a number of a script; `stale` is the marker."""
    if text == "stale":
        return STALE
    if text.lstrip("+-").startswith("0x"):
        return float(int(text, 16))
    return float(text)


def parse_points(text: str) -> list[float | None]:
    """Return the points of a series line; None is a gap."""
    points: list[float | None] = []
    for item in text.split():
        if item == "_":
            points.append(None)
        elif item.startswith("_x"):
            points += [None] * int(item[2:])
        elif (match := _REPEATED.fullmatch(item)) is not None:
            base, sign, delta, times = match.groups()
            value = parse_number(base)
            step = 0.0 if delta is None else parse_number(sign + delta.lstrip("+"))
            for _ in range(int(times) + 1):
                points.append(value)
                value += step
        else:
            points.append(parse_number(item))
    return points


def split_series(line: str) -> tuple[str, str]:
    """Return the metric and the points of a series line."""
    brace = line.find("{")
    blank = re.search(r"\s", line)
    head = line[: blank.start()] if blank else line
    tail = line[len(head) :]
    labelled = "{" in head or re.match(r"\s*\{(?!\{)", tail)
    if brace < 0 or not labelled:
        return head, tail
    quote, i = "", brace
    while i < len(line):
        c = line[i]
        if quote:
            i += c == "\\" and quote != "`"
            quote = "" if c == quote else quote
        elif c in "\"'`":
            quote = c
        elif c == "}":
            return line[: i + 1], line[i + 1 :]
        i += 1
    raise ScriptError(f"unclosed braces: {line}")


def parse_metric(text: str) -> Metric:
    """Return the labels that a metric's notation stands for."""
    if text.strip() == "{}":
        return ()
    matchers = parse_metric_selector(text)
    assert all(m.type is MatchType.EQ for m in matchers), text
    return tuple(sorted((m.name, m.value) for m in matchers if m.value))


class Script:
    """A script and the state of running it.

    Args:
        text: of the script.
        engine: None for the engine that upstream's own scripts are written for.
    """

    def __init__(self, text: str, engine: Engine | None = None) -> None:
        self._lines = [line.strip() for line in text.splitlines()]
        self._engine = engine or Engine(EngineOptions(delayed_name_removal=True))
        self._at = 0
        self._clear()

    def _clear(self) -> None:
        self._queryable = MemoryQueryable()
        self._unsupported: list[dict[bytes, bytes]] = []

    def run(self) -> Iterator[Report]:
        """Yield a report for each evaluation.

        Raises:
            ScriptError: for a line that is no command.
        """
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            if not line or line.startswith("#"):
                continue
            if line == "clear":
                self._clear()
            elif line.startswith("load"):
                self._load(line)
            elif line.startswith("eval"):
                yield self._evaluate(line)
            else:
                raise ScriptError(f"line {self._at}: {line}")

    def _block(self) -> Iterator[str]:
        """Yield the lines that belong to a command: up to a blank line or another command."""
        while self._at < len(self._lines):
            line = self._lines[self._at]
            word = line.split(" ")[0]
            if not line or word in {"clear", "load", "load_with_nhcb", "eval"}:
                return
            if word.startswith("eval_"):
                return
            self._at += 1
            if not line.startswith("#"):
                yield line

    def _load(self, command: str) -> None:
        word, step = command.split()
        step_ms = duration_ms(step)
        for line in self._block():
            metric_text, points_text = split_series(line)
            if points_text.startswith("@st"):
                self._refuse(parse_metric(metric_text))
                continue
            if metric_text.endswith("@st"):
                self._refuse(parse_metric(metric_text.removesuffix("@st")))
                continue
            metric = parse_metric(metric_text)
            if "{{" in points_text:
                self._refuse(metric)
                continue
            points = parse_points(points_text)
            self._queryable.add(
                dict(metric), [(i * step_ms, v) for i, v in enumerate(points) if v is not None]
            )
            labels = dict(metric)
            name = labels.get("__name__", "")
            if word == "load_with_nhcb" and name.endswith("_bucket"):
                labels.pop("le", None)
                self._refuse(tuple({**labels, "__name__": name.removesuffix("_bucket")}.items()))

    def _refuse(self, metric: Metric) -> None:
        self._unsupported.append({n.encode(): v.encode() for n, v in metric})

    # Evaluations

    def _evaluate(self, command: str) -> Report:
        evaluation = self._read(command)
        reason = self._beyond(evaluation)
        if reason:
            return Report(evaluation.line, evaluation.query, Outcome.NOT_APPLICABLE, reason)
        try:
            self._check(evaluation)
        except _Mismatch as mismatch:
            return Report(evaluation.line, evaluation.query, Outcome.FAILED, str(mismatch))
        return Report(evaluation.line, evaluation.query, Outcome.PASSED)

    def _read(self, command: str) -> _Evaluation:
        line = self._at
        match, ranged = _EVAL.fullmatch(command), _EVAL_RANGE.fullmatch(command)
        if match is not None:
            kind, at, query = match.groups()
            time = duration_ms(at)
            evaluation = _Evaluation(line, query, time, time, 0)
        elif ranged is not None:
            kind, start, end, step, query = ranged.groups()
            times = duration_ms(start), duration_ms(end), duration_ms(step)
            evaluation = _Evaluation(line, query, *times)
        else:
            raise ScriptError(f"line {line}: {command}")
        if kind:
            evaluation.expects.append((kind, "", ""))
        for item in self._block():
            self._read_expectation(evaluation, item)
        return evaluation

    def _read_expectation(self, evaluation: _Evaluation, item: str) -> None:
        if item.startswith("expected_fail_"):
            how, _, what = item.removeprefix("expected_fail_").partition(" ")
            short = {"message": "msg", "regexp": "regex"}[how]
            evaluation.expects.append(("fail", short, what.strip()))
        elif (grid := _EXPECT_RANGE.fullmatch(item)) is not None:
            start, end, step = (duration_ms(text) for text in grid.groups())
            evaluation.grid = (start, end, step)
        elif item.startswith("expect string "):
            text = item.removeprefix("expect string ")
            literal = parse_expr(text)
            evaluation.text = getattr(literal, "value", json.dumps(text))
        elif (expect := _EXPECT.fullmatch(item)) is not None:
            kind, how, what = expect.groups()
            evaluation.expects.append((kind, how or "", (what or "").strip()))
        elif "{{" in item:
            evaluation.histograms = True
        elif re.fullmatch(_NUMBER, item):
            evaluation.scalar = parse_number(item)
        else:
            metric, points = split_series(item)
            evaluation.series[parse_metric(metric)] = parse_points(points)

    def _beyond(self, evaluation: _Evaluation) -> str:
        """Return why an evaluation needs what this runner has not, "" if it does not."""
        if evaluation.histograms:
            return "expects a histogram"
        if not self._unsupported:
            return ""
        try:
            expr = parse_expr(evaluation.query, _ALL_SYNTAX)
            requests = self._engine.selectors(
                expr, evaluation.start, evaluation.end, evaluation.step
            )
        except ThanostackError:
            return ""
        for request in requests:
            for labels in self._unsupported:
                if all(m.matches(labels.get(m.name.encode(), b"")) for m in request.matchers):
                    return "selects a histogram or a series with start timestamps"
        return ""

    def _check(self, evaluation: _Evaluation) -> None:
        expr = self._parsed(evaluation)
        if expr is None:
            return
        if evaluation.step:
            result = self._run(evaluation, expr, evaluation.start, evaluation.end, evaluation.step)
            if result is not None:
                self._compare(evaluation, result)
            return
        for tree, time in self._variants(expr, evaluation):
            result = self._run(evaluation, tree, time, time, 0)
            if result is None:
                continue
            self._compare(evaluation, result)
            self._check_in_range(evaluation, tree, time, result)

    def _parsed(self, evaluation: _Evaluation) -> Expr | None:
        try:
            return parse_expr(evaluation.query, _ALL_SYNTAX)
        except ThanostackError as error:
            self._expect_failure(evaluation, error)
            return None

    def _run(
        self, evaluation: _Evaluation, expr: Expr, start: int, end: int, step: int
    ) -> QueryResult | None:
        """Return the result; None for a failure that was expected."""
        query = evaluation.query
        try:
            if step:
                result = self._engine.range(expr, self._queryable, start, end, step, query=query)
            else:
                result = self._engine.instant(expr, self._queryable, start, query=query)
        except ThanostackError as error:
            self._expect_failure(evaluation, error)
            return None
        if evaluation.wants("fail"):
            raise _Mismatch("an error was expected")
        return result

    @staticmethod
    def _expect_failure(evaluation: _Evaluation, error: ThanostackError) -> None:
        wanted = evaluation.wants("fail")
        if not wanted:
            raise _Mismatch(f"{type(error).__name__}: {error}")
        for how, what in wanted:
            text = str(error)
            if (how == "msg" and text != what) or (how == "regex" and not re.search(what, text)):
                raise _Mismatch(f"error is {text!r}")

    @staticmethod
    def _variants(expr: Expr, evaluation: _Evaluation) -> Iterator[tuple[Expr, int]]:
        yield expr, evaluation.start
        pinned, safe = _pinned(expr, evaluation.start)
        if not safe:
            return
        time = evaluation.start
        others = [-10 * time, 0, int(time / 5), time, 10 * time] if time else [-1000, 0, 1000]
        for other in others:
            yield pinned, other

    def _check_in_range(
        self, evaluation: _Evaluation, expr: Expr, time: int, result: QueryResult
    ) -> None:
        plain = isinstance(result.value, VectorResult | ScalarResult)
        if not plain or evaluation.grid or evaluation.text or _CONTEXT.search(evaluation.query):
            return
        again = self._run(evaluation, expr, time - 60_000, time + 60_000, 60_000)
        if again is None or evaluation.wants("ordered"):
            return
        matrix = again.value
        assert isinstance(matrix, MatrixResult)
        got: dict[Metric, float] = {}
        for i in range(len(matrix)):
            times, values = matrix.series(i)
            for t, v in zip(times.tolist(), values.tolist(), strict=True):
                if t == time:
                    got[_metric(matrix.labels, i)] = v
        if evaluation.scalar is not None:
            _compare_numbers(evaluation.scalar, next(iter(got.values())), "in range mode")
        else:
            _compare_vectors(evaluation, list(got.items()), " in range mode")

    def _compare(self, evaluation: _Evaluation, result: QueryResult) -> None:
        for kind, texts in (("warn", result.warnings), ("info", result.infos)):
            _compare_annotations(evaluation, kind, [_unplaced(text) for text in texts])
        value = result.value
        if isinstance(value, StringResult):
            if evaluation.text != value.value:
                raise _Mismatch(f"string is {value.value!r}")
        elif isinstance(value, ScalarResult):
            if evaluation.scalar is None:
                raise _Mismatch(f"unexpected scalar {value.value}")
            _compare_numbers(evaluation.scalar, value.value, "")
        elif evaluation.scalar is not None and not isinstance(value, MatrixResult):
            raise _Mismatch("a scalar was expected")
        elif isinstance(value, VectorResult):
            got = [(_metric(value.labels, i), float(value.values[i])) for i in range(len(value))]
            if len({metric for metric, _ in got}) < len(got):
                raise _Mismatch("duplicate label sets")
            _compare_vectors(evaluation, got, "")
        else:
            _compare_matrices(evaluation, value)


def _metric(labels: LabelRuns, i: int) -> Metric:
    return tuple(sorted(labels.mapping(i).items()))


def _unplaced(text: str) -> str:
    """Return an annotation without its position."""
    return re.sub(r" \(\d+:\d+\)$", "", text)


def _compare_annotations(evaluation: _Evaluation, kind: str, texts: list[str]) -> None:
    wanted, refused = evaluation.wants(kind), evaluation.wants(f"no_{kind}")
    if refused and texts:
        raise _Mismatch(f"unexpected {kind}: {texts}")
    if not wanted:
        return
    if not texts:
        raise _Mismatch(f"no {kind}")
    if not any(how for how, _ in wanted):
        return
    for text in texts:
        if not any(_annotation_matches(how, what, text) for how, what in wanted):
            raise _Mismatch(f"unexpected {kind}: {text}")
    for how, what in wanted:
        if not any(_annotation_matches(how, what, text) for text in texts):
            raise _Mismatch(f"{kind} not found: {what}; there are {texts}")


def _annotation_matches(how: str, what: str, text: str) -> bool:
    if how == "msg":
        # The figures of forced monotonicity come after the text that identifies it.
        return text == what or text.startswith(f"{what}, from buckets ")
    return how == "" or re.search(what, text) is not None


def almost_equal(a: float, b: float) -> bool:
    """Return whether two floats are equal for a script: stale markers only among themselves."""
    stale = [int(np.float64(x).view(np.uint64)) == STALE_NAN_BITS for x in (a, b)]
    if any(stale):
        return all(stale)
    if a == b or (math.isnan(a) and math.isnan(b)):
        return True
    total, difference = abs(a) + abs(b), abs(a - b)
    if a == 0 or b == 0 or total < 2.2250738585072014e-308:
        return difference < 1e-6 * 2.2250738585072014e-308
    return difference / min(total, 1.7976931348623157e308) < 1e-6


def _compare_numbers(expected: float, got: float, where: str) -> None:
    if not almost_equal(expected, got):
        raise _Mismatch(f"expected {expected}, got {got} {where}")


def _compare_vectors(evaluation: _Evaluation, got: list[tuple[Metric, float]], where: str) -> None:
    expected = evaluation.series
    for position, (metric, value) in enumerate(got):
        if metric not in expected:
            raise _Mismatch(f"unexpected {metric} = {value}{where}")
        if evaluation.wants("ordered") and list(expected).index(metric) != position:
            raise _Mismatch(f"{metric} is at position {position}{where}")
        point = expected[metric][0]
        assert point is not None
        _compare_numbers(point, value, f"for {metric}{where}")
    missing = set(expected) - {metric for metric, _ in got}
    if missing:
        raise _Mismatch(f"missing {sorted(missing)}{where}")


def _compare_matrices(evaluation: _Evaluation, matrix: MatrixResult) -> None:
    start, _, step = evaluation.grid or (evaluation.start, evaluation.end, evaluation.step)
    expected = dict(evaluation.series)
    if evaluation.scalar is not None:
        expected = {(): [evaluation.scalar]}
    metrics = [_metric(matrix.labels, i) for i in range(len(matrix))]
    if metrics != sorted(metrics):
        raise _Mismatch("series are not in label order")
    for i, metric in enumerate(metrics):
        if metric not in expected:
            raise _Mismatch(f"unexpected {metric}: {matrix.series(i)}")
        times, values = matrix.series(i)
        points = {start + k * step: v for k, v in enumerate(expected.pop(metric)) if v is not None}
        if list(points) != times.tolist():
            raise _Mismatch(f"{metric} has {times.tolist()} {values.tolist()}, expected {points}")
        for time, value in zip(times.tolist(), values.tolist(), strict=True):
            _compare_numbers(points[time], value, f"for {metric} at {time}")
    if expected:
        raise _Mismatch(f"missing {sorted(expected)}")


def _pinned(expr: Expr, time: int) -> tuple[Expr, bool]:
    """Return the tree with `@ time` on all selectors outside of subqueries that have one.

    The second value says whether no function depends on the evaluation time in another way.
    """
    match expr:
        case VectorSelector():
            free = expr.timestamp_ms is None and not expr.start_or_end
            return (replace(expr, timestamp_ms=time) if free else expr), True
        case MatrixSelector():
            selector, safe = _pinned(expr.selector, time)
            assert isinstance(selector, VectorSelector)
            return replace(expr, selector=selector), safe
        case SubqueryExpr():
            free = expr.timestamp_ms is None and not expr.start_or_end
            # A subquery that carries the time already hides what is inside; so does one that
            # just got it, because the path is looked at after the change.
            _, safe = _pinned(expr.expr, time)
            return (replace(expr, timestamp_ms=time) if free else expr), safe
        case ParenExpr() | UnaryExpr():
            inner, safe = _pinned(expr.expr, time)
            return replace(expr, expr=inner), safe
        case BinaryExpr():
            (left, a), (right, b) = _pinned(expr.lhs, time), _pinned(expr.rhs, time)
            return replace(expr, lhs=left, rhs=right), a and b
        case AggregateExpr():
            inner, safe = _pinned(expr.expr, time)
            param, param_safe = (None, True) if expr.param is None else _pinned(expr.param, time)
            return replace(expr, expr=inner, param=param), safe and param_safe
        case Call():
            pairs = [_pinned(arg, time) for arg in expr.args]
            safe = all(pair[1] for pair in pairs) and expr.function.name not in STEP_DEPENDENT
            return replace(expr, args=tuple(pair[0] for pair in pairs)), safe
    return expr, True
