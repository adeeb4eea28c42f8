"""Bounds, options and helpers of the PromQL parser."""

from __future__ import annotations

import contextlib

import pytest

from thanostack.lib.foundation.errors import ParseError
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.promql import ast
from thanostack.lib.promql.parser import (
    FUNCTIONS,
    ParserOptions,
    children,
    expr_type,
    format_expr,
    parse_expr,
    parse_metric_selector,
    prettify_expr,
    walk,
)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000,
        "(" * 10_000 + "1" + ")" * 10_000,
        "-" * 10_000 + "1",
        "1" + "+1" * 10_000,
        "a" + "^a" * 3_000,
        "sum(" * 2_000 + "a" + ")" * 2_000,
        "a" + "[5m:]" * 2_000,
        "a[" + "(" * 5_000 + "1",
        "a[" + "1+" * 5_000 + "1]",
        "a offset " + "-" * 5_000 + "5m",
    ],
    ids=range(10),
)
def test_depth_is_bounded(text: str) -> None:
    """What is nested too deeply is refused in words, never by exhausting the stack."""
    with pytest.raises(ParseError, match=r"levels deep|operators high|unclosed"):
        parse_expr(text)


def test_what_the_bounds_allow_is_printed_and_walked() -> None:
    """The deepest tree and the longest chain that parse survive every reader."""
    for text in ("(" * 127 + "1" + ")" * 127, "1" + "+1" * 254, "-(" * 60 + "a" + ")" * 60):
        tree = parse_expr(text)
        assert tree == parse_expr(format_expr(tree))
        assert tree == parse_expr(prettify_expr(tree))
        assert len(list(walk(tree))) > 100


@pytest.mark.parametrize("digits", ["9" * 5_000, "0" * 5_000, "0x" + "f" * 5_000, "0b" + "1" * 99])
def test_numbers_of_any_length_parse_or_are_refused(digits: str) -> None:
    """Python's own limit on digits is never met."""
    for text in (digits, f"{digits}s", f"a[{digits}]", f"a offset {digits}"):
        with contextlib.suppress(ParseError):
            assert parse_expr(text)


@pytest.mark.parametrize(
    ("text", "where"),
    [("a\n+ b\n  c", (3, 3)), ('"é" + a b', (1, 10)), ("\n\n)", (3, 2)), ("", (0, 0))],
)
def test_position_is_kept_apart(text: str, where: tuple[int, int]) -> None:
    """An error carries line and column in bytes; an empty text has neither."""
    with pytest.raises(ParseError) as caught:
        parse_expr(text)
    assert where == (caught.value.line, caught.value.column)


def test_empty_text_has_no_position_in_its_message() -> None:
    """The message says so, as upstream's does."""
    with pytest.raises(ParseError) as caught:
        parse_expr("")
    assert str(caught.value) == "unknown position: parse error: no expression found in input"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("mad_over_time(a[5m])", ParserOptions(), 'function "mad_over_time" is not enabled'),
        ("limitk(2, a)", ParserOptions(), "limitk() is experimental and must be enabled with"),
        ("a anchored", ParserOptions(), "anchored modifier is experimental and not enabled"),
        ("a + fill(0) b", ParserOptions(), "binop fill modifiers are experimental and not"),
        (
            "a[1m + 1m]",
            ParserOptions(enable_duration_expressions=False),
            "experimental duration expression is not enabled",
        ),
    ],
)
def test_experimental_syntax_needs_its_option(
    text: str, options: ParserOptions, message: str
) -> None:
    """Each feature is refused without its option and accepted with it."""
    with pytest.raises(ParseError) as caught:
        parse_expr(text, options)
    assert caught.value.message.startswith(message)
    parse_expr(text, ParserOptions(True, True, True, True))


def test_there_are_90_functions_of_which_17_are_experimental() -> None:
    """The table is complete."""
    experimental = [name for name, function in FUNCTIONS.items() if function.experimental]
    assert (len(FUNCTIONS), len(experimental)) == (90, 17)
    assert all(name == function.name for name, function in FUNCTIONS.items())


def test_operators_bind_as_documented() -> None:
    """From loosest to tightest; `^` leans right; a sign binds looser than `^`."""
    tree = parse_expr("a or b and c == d + e * f ^ g ^ -h")
    grouped = "a or (b and (c == (d + (e * (f ^ (g ^ (-h)))))))"
    assert _without_parentheses(parse_expr(grouped)) == _without_parentheses(tree)
    assert format_expr(parse_expr("-(1 ^ 2)")) != format_expr(parse_expr("-1 ^ 2"))
    assert isinstance(parse_expr("-1 ^ 2"), ast.UnaryExpr)


def _without_parentheses(tree: ast.Expr) -> list[str]:
    return [
        getattr(node, "op", "") or format_expr(node)
        for node in walk(tree)
        if not isinstance(node, ast.ParenExpr)
    ]


def test_set_operators_match_many_to_many() -> None:
    """The cardinality follows from the operator, and from `group_left`."""
    plain, grouped = parse_expr("a and b"), parse_expr("a + on (x) group_left (y) b")
    assert isinstance(plain, ast.BinaryExpr)
    assert isinstance(grouped, ast.BinaryExpr)
    assert ast.VectorMatching(card=ast.Cardinality.MANY_TO_MANY) == plain.matching
    expected = ast.VectorMatching(
        card=ast.Cardinality.MANY_TO_ONE, on=True, labels=("x",), include=("y",)
    )
    assert expected == grouped.matching


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1 + 2 * time()", ast.ValueType.SCALAR),
        ("(1 + a)", ast.ValueType.VECTOR),
        ("-a", ast.ValueType.VECTOR),
        ("a[5m]", ast.ValueType.MATRIX),
        ("a[5m:1m]", ast.ValueType.MATRIX),
        ("sum(a)", ast.ValueType.VECTOR),
        ("scalar(a)", ast.ValueType.SCALAR),
        ("'a'", ast.ValueType.STRING),
    ],
)
def test_type_of_an_expression(text: str, wanted: ast.ValueType) -> None:
    """Each kind of node knows its type."""
    assert wanted is expr_type(parse_expr(text))


def test_children_and_walk_go_from_left_to_right() -> None:
    """Parents come first; an aggregation's parameter comes after its expression."""
    tree = parse_expr("topk(2, a) + rate(b[5m])")
    assert [format_expr(child) for child in children(tree)] == ["topk(2, a)", "rate(b[5m])"]
    order = ["topk(2, a)", "a", "2", "rate(b[5m])", "b[5m]", "b"]
    assert order == [format_expr(node) for node in walk(tree)][1:]


def test_bytes_that_are_not_utf8() -> None:
    """A string keeps them, a matcher cannot hold them, outside of strings they are refused."""
    literal = parse_expr(r'"a\xffb"')
    assert isinstance(literal, ast.StringLiteral)
    assert literal.value == "a\udcffb"
    assert format_expr(literal) == r'"a\xffb"'
    expected = Matcher(MatchType.EQ, "x", "\ufffd")
    assert expected == parse_metric_selector(r'{x="\xff"}')[0]
    with pytest.raises(ParseError, match="unexpected character: '\ufffd'"):
        parse_expr("a + \udcff")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("a(b", "missing closing ): `a(b`"),
        ("a)b(", "unexpected ): `a)b(`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        (r"\\C", r"invalid escape sequence: `\C`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
    ],
)
def test_regular_expressions_fail_in_the_words_of_go(pattern: str, reason: str) -> None:
    """The message and the position are Prometheus's, though the engine is another."""
    with pytest.raises(ParseError) as caught:
        parse_expr(f'a{{b=~"{pattern}"}}')
    assert f"1:3: parse error: error parsing regexp: {reason}" == str(caught.value)


def test_an_open_literal_section_ends_with_the_pattern() -> None:
    r"""`\Q` without `\E` quotes up to the end, and no further."""
    (matcher,) = parse_metric_selector(r'{b=~"x\\Q(."}')
    assert matcher.matches(b"x(.")
    assert not matcher.matches(b"x(a")


def test_a_chain_that_is_too_long_can_be_parted():
    """Prometheus takes rules of several hundred `or`, which are about: the error tells the way."""
    names = [f"m{i}" for i in range(400)]
    with pytest.raises(ParseError, match=r"256 operators high.*part a long chain by parentheses"):
        parse_expr(" or ".join(names))
    parted = " or ".join(f"({' or '.join(names[i : i + 100])})" for i in range(0, 400, 100))
    assert len(list(walk(parse_expr(parted)))) > 2 * 400 - 1
