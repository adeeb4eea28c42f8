"""YAML as settings are written in it: values are what the reader asks for, surprises are errors."""

from __future__ import annotations

import pytest

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.foundation.strict_yaml import parse_yaml


def field(text, name="a"):
    return parse_yaml(text).fields("T", (name,))[name]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7), ("0x10", 16), ("010", 8), ("1_000", 1000), ("1e3", 1000), ("2.5e1", 25),
        ("-3", -3), ("", 0), ("~", 0),
    ],
)  # fmt: skip
def test_integers(text, number):
    """Every form that YAML 1.1 has; nothing is 0."""
    assert field(f"a: {text}").integer() == number


@pytest.mark.parametrize("text", ["'7'", "x", "[1]", "1.5x", "true", "99999999999999999999"])
def test_what_is_no_integer(text):
    """A quoted number is a text."""
    with pytest.raises(InvalidInput, match="line 1: cannot unmarshal"):
        field(f"a: {text}").integer()


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("Yes", True), ("off", False), ("", False)]
)
def test_switches(text, value):
    """As YAML 1.1 spells them."""
    assert field(f"a: {text}").boolean() is value
    with pytest.raises(InvalidInput, match="into bool"):
        field("a: 'true'").boolean()


def test_texts_are_as_written():
    """What looks like something else is not turned into it; long ones are cut in errors."""
    assert [n.text() for n in field("a: [1.50, on, ~, 2020-01-01, 'x']").items("L")] == [
        "1.50", "on", "", "2020-01-01", "x",
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match=r"cannot unmarshal !!str `a long \.\.\.` into L"):
        field("a: a long text").items("L")
    with pytest.raises(InvalidInput, match="cannot unmarshal !!map into string"):
        field("a: {b: c}").text()


def test_merged_keys():
    """Own keys go before merged ones, and an alias is what it stands for."""
    text = """
base: &base {a: 1, b: 2}
more: &more {b: 3, c: 4}
a: {<<: [*base, *more], a: 5}
"""
    merged = parse_yaml(text).entries("root")["a"].entries("T")
    assert {name: node.integer() for name, node in merged.items()} == {"a": 5, "b": 2, "c": 4}


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "a: 1\n---\na: 2", "a: *none", b"\xff\xfe\xff"]
)
def test_what_is_no_document(text):
    """One error, with the line where there is one."""
    with pytest.raises(InvalidInput, match=r"^yaml: "):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "{b: " * 5000])
def test_nesting_without_end_is_an_error_of_the_text(text):
    """A file that is reloaded must not end the process, whatever is in it."""
    with pytest.raises(InvalidInput, match="yaml: exceeded max depth"):
        parse_yaml(text)


def test_half_a_surrogate_pair_is_refused():
    """It cannot be encoded, by whoever gets it."""
    with pytest.raises(InvalidInput, match="line 1: half of a surrogate pair"):
        parse_yaml('"x\\ud800"').text()
