"""Printing and parsing are inverse, and no text breaks the parser."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from thanostack.lib.foundation.errors import ParseError
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.promql import ast
from thanostack.lib.promql.parser import (
    ParserOptions,
    enforce_query,
    expr_type,
    format_expr,
    parse_expr,
    parse_metric_selector,
    prettify_expr,
    walk,
)
from thanostack.testing.examples import examples
from thanostack.testing.promql_trees import scalars, vectors

_ALL = ParserOptions(True, True, True)
_DATA = Path(__file__).resolve().parents[2] / "data" / "promql_parser"
_TEXTS = [row["text"] for row in json.loads((_DATA / "expressions.json").read_text())]
_PIECES = (
    *" ()[]{},:=+-*/%^@#\"'`\\\n_$!~<>",
    *("</", "=~", "!=", "and", "by", "on", "offset", "group_left", "fill(", "bool", "start()"),
    *("sum", "topk", "rate", "foo", "a:b", "5m", "1", "0x", "1e", "Inf", "é", "\udcff", "\x00"),
    *("[5m", ":1m]", "min_of(", "step()", "anchored"),
)


@examples(100)
@given(vectors() | scalars())
def test_parsing_what_was_printed_gives_the_tree(tree: ast.Expr) -> None:
    """On one line and over several."""
    assert tree == parse_expr(format_expr(tree), _ALL)
    assert tree == parse_expr(prettify_expr(tree), _ALL)


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(_TEXTS))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        removed = draw(st.integers(0, 6))
        text = text[:start] + draw(st.sampled_from(_PIECES)) + text[start + removed :]
    return text


@examples(600)
@given(_mutated() | st.lists(st.sampled_from(_PIECES), max_size=12).map("".join) | st.text())
def test_any_text_is_a_tree_or_a_parse_error(text: str) -> None:
    """A tree can be read by everyone; an error points into the text."""
    where: list[tuple[int, int]] = []
    for parse in (lambda: parse_expr(text, _ALL), lambda: parse_metric_selector(text)):
        try:
            answer = parse()
        except ParseError as error:
            where.append((error.line, error.column))
        else:
            if isinstance(answer, ast.Expr):
                assert format_expr(answer)
                assert {expr_type(node) for node in walk(answer)} <= set(ast.ValueType)
    lines = text.encode("utf-8", "surrogateescape").split(b"\n")
    assert all(0 <= line <= len(lines) for line, _ in where)
    assert all(0 <= column <= len(lines[line - 1]) + 1 for line, column in where)


@examples(150)
@given(vectors() | scalars(), st.sampled_from(["a", "job", "tenant_id", "__name__x"]))
def test_no_selector_leaves_its_tenant(tree: ast.Expr, label: str) -> None:
    """Each has the matcher once and no other on its label; the rest of the query is as it was."""
    matcher = Matcher(MatchType.EQ, label, "red")
    # Upstream: `up offset (-step()) + up` is printed, and read as an offset that goes on.
    assume(_parses(format_expr(tree)))
    text = enforce_query(format_expr(tree), matcher, _ALL)
    enforced = parse_expr(text, _ALL)
    before = [node for node in walk(tree) if isinstance(node, ast.VectorSelector)]
    after = [node for node in walk(enforced) if isinstance(node, ast.VectorSelector)]
    for own, now in zip(before, after, strict=True):
        kept = [m for m in own.matchers if m.name != label]
        assert sorted(map(str, [*kept, matcher])) == sorted(map(str, now.matchers))
    assert [type(node) for node in walk(tree)] == [type(node) for node in walk(enforced)]
    assert text == enforce_query(text, matcher, _ALL)


def _parses(text: str) -> bool:
    try:
        parse_expr(text, _ALL)
    except ParseError:
        return False
    return True
