"""What Prometheus's own parser answers, for some 1500 texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from thanostack.lib.foundation.errors import ParseError
from thanostack.lib.promql.parser import (
    ParserOptions,
    format_expr,
    parse_expr,
    parse_metric_selector,
    prettify_expr,
)
from thanostack.testing.promql_trees import tree_facts

_DATA = Path(__file__).resolve().parents[2] / "data" / "promql_parser"


def _rows(name: str) -> list[dict[str, Any]]:
    return json.loads((_DATA / f"{name}.json").read_text())


def _options(flags: int) -> ParserOptions:
    return ParserOptions(
        enable_experimental_functions=bool(flags & 1),
        enable_extended_range_selectors=bool(flags & 2),
        enable_binop_fill_modifiers=bool(flags & 4),
        enable_duration_expressions=not flags & 8,
    )


def _error(text: str, flags: int) -> str:
    try:
        return f"parsed as {format_expr(parse_expr(text, _options(flags)))}"
    except ParseError as error:
        return str(error)


EXPRESSIONS = _rows("expressions")


def test_trees_and_positions_are_those_of_prometheus() -> None:
    """Every node, field and byte range agrees."""
    for row in EXPRESSIONS:
        tree = parse_expr(row["text"], _options(row["flags"]))
        assert row["tree"] == tree_facts(tree), row["text"]


def test_printing_is_that_of_prometheus() -> None:
    """On one line and over several, each text prints as upstream prints it."""
    for row in EXPRESSIONS:
        tree = parse_expr(row["text"], _options(row["flags"]))
        printed = (format_expr(tree), prettify_expr(tree))
        assert (row["printed"], row.get("pretty", row["printed"])) == printed, row["text"]


def test_error_texts_and_columns_are_those_of_prometheus() -> None:
    """Every message agrees letter for letter, position included."""
    rows = _rows("errors")
    found = [(row["text"], _error(row["text"], row["flags"])) for row in rows]
    assert [(row["text"], row["error"]) for row in rows] == found


def test_selectors_are_those_of_prometheus() -> None:
    """A text for `match[]` gives the same matchers, or the same error."""
    for row in _rows("selectors"):
        try:
            answer = {"matchers": tree_facts(parse_metric_selector(row["text"]))}
        except ParseError as error:
            answer = {"error": str(error)}
        assert {key: row[key] for key in row if key != "text"} == answer, row["text"]


def test_printed_text_prints_as_itself() -> None:
    """Printing is idempotent, but for duration arithmetic that upstream prints ambiguously."""
    ambiguous = [
        row["text"]
        for row in EXPRESSIONS
        if _error(row["printed"], row["flags"]) != f"parsed as {row['printed']}"
    ]
    assert all("offset" in text and any(sign in text for sign in "+-*/") for text in ambiguous)
    assert len(ambiguous) < 20
