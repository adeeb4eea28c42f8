"""Printing and parsing are inverse, and no text breaks the parser."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from thanostack.lib.foundation.errors import ParseError
from thanostack.lib.promql import ast
from thanostack.lib.promql.parser import (
    ParserOptions,
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
