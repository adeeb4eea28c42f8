"""Matchers select series as Prometheus does, whatever way the postings are combined."""

import itertools

import numpy as np
import pytest

from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.tsdb.postings_query import literal_prefix, literal_set, select_postings

SERIES = [
    {"n": "1"},
    {"n": "1", "i": "a"},
    {"n": "1", "i": "b"},
    {"n": "1", "i": "\n"},
    {"n": "2"},
    {"n": "2.5"},
    {"i": "ab", "n": "prod-1"},
    {"i": "b.c", "n": "prod-2|x"},
    {"j": "é"},
]


class Source:
    """Postings of SERIES, from first principles."""

    def all_postings(self):
        return np.arange(len(SERIES), dtype=np.int32)

    def postings(self, name, value):
        rows = [i for i, s in enumerate(SERIES) if s.get(name.decode()) == value.decode()]
        return np.array(rows, np.int32)

    def values(self, name):
        return sorted({s[name.decode()].encode() for s in SERIES if name.decode() in s})


PATTERNS = [
    "", "1", "a|b", "a|", "(a|b)", "(?:1|2)", ".*", ".+", "2.5", r"2\.5", "prod-.*",
    "prod-.+", ".*b", ".*b.*", "a?", "a*", "ab*", "[ab]+", "prod-[12].*", "a|b.*", "x(y|z)", "é",
    r"a\.*",
    "b.c|prod.*", "a[](]|b", r"a\Q(\E|b", "(?i)A|B", "(?i)PROD.*", ".*.*", "a|b|c|ab",
    "[^a]*", r".*\|x", "pro(d)-1.*",
]  # fmt: skip
MATCHERS = [
    Matcher(kind, name, value)
    for kind in MatchType
    for name in ("n", "i", "z")
    for value in PATTERNS
]


def expected(matchers):
    return [
        i
        for i, labels in enumerate(SERIES)
        if all(m.matches(labels.get(m.name, "").encode()) for m in matchers)
    ]


@pytest.mark.parametrize("matcher", MATCHERS, ids=str)
def test_one_matcher_selects_what_it_matches(matcher):
    """Selection by postings is the same as testing every series."""
    assert expected([matcher]) == select_postings(Source(), [matcher]).tolist()


def test_matchers_are_combined_with_and():
    """Every pair of matchers selects what both match."""
    for pair in itertools.islice(itertools.combinations(MATCHERS, 2), 0, None, 97):
        assert expected(pair) == select_postings(Source(), pair).tolist(), pair


def test_without_matchers_everything_is_selected():
    """No predicate excludes nothing."""
    assert list(range(len(SERIES))) == select_postings(Source(), []).tolist()


@pytest.mark.parametrize(
    ("pattern", "members"),
    [("a|b", {b"a", b"b"}), ("", {b""}), ("(a|)", {b"a", b""}), (r"a\|b", {b"a|b"}),
     ("é", {"é".encode()})],
)  # fmt: skip
def test_alternations_of_literals_are_sets(pattern, members):
    """They are looked up instead of matched."""
    assert members == literal_set(pattern)


@pytest.mark.parametrize(
    "pattern", ["a.", "a*", "(a)(b)", "[a]", r"\d", "a|b+", "(?i)a", "^a", "a\\"]
)
def test_other_patterns_are_no_sets(pattern):
    """Anything that RE2 must decide."""
    assert literal_set(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [("abc.*", b"abc"), ("abc+", b"ab"), ("a|b", b""), ("a(b|c)", b"a"), (r"a\.b.", b"a.b"),
     ("a[](]|b", b""), (r"a\Q(\E|b", b""), ("aé?b", b"a")],
)  # fmt: skip
def test_literal_prefixes(pattern, prefix):
    """Never longer than what every match begins with."""
    assert prefix == literal_prefix(pattern)
