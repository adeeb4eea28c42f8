"""Labels on the command line are quoted as Go quotes."""

from __future__ import annotations

import pytest

from thanostack.runtime.label_flags import parse_labels


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('a="b"', "b"),
        ('a=""', ""),
        ('a="x=y"', "x=y"),
        (r'a="q\"\\\n\t"', 'q"\\\n\t'),
        (r'a="\xc3\xa4\344"', None),
        (r'a="\xc3\xa4"', "ä"),
        (r'a="\u00e4\U0001F600\101"', "ä😀A"),
        (r"a=`\n`", r"\n"),
        ("a='x'", "x"),
        ("a='xy'", None),
        ("a=b", None),
        ('a="b', None),
        ('a=b"', None),
        ("a", None),
        ('="b"', None),
        (r'a="\q"', None),
        (r'a="\ud800"', None),
        (r'a="\777"', None),
        ('a="b"c"', None),
        ("a=`b`c`", None),
    ],
)
def test_values_are_unquoted(text, value):
    """The three quotes of Go, its escapes, and nothing else."""
    if value is None:
        with pytest.raises(ValueError, match="label"):
            parse_labels([text])
    else:
        assert parse_labels([text]) == {text[0]: value}


def test_labels_are_sorted_and_unique():
    """Order on the command line does not matter, repetition is an error."""
    assert list(parse_labels(['b="1"', 'a="2"'])) == ["a", "b"]
    with pytest.raises(ValueError, match="twice"):
        parse_labels(['a="1"', 'a="1"'])
