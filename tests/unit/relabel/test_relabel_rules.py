"""What rules do to label sets, against vectors that the real Prometheus wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.relabel.config import parse_relabel_configs
from thanostack.lib.relabel.letter_case import to_lower, to_upper
from thanostack.lib.relabel.rules import Rule, relabel

VECTORS = Path(__file__).parents[2] / "data" / "relabel" / "vectors.jsonl"


def relabeled(text, labels):
    rules = [Rule(config) for config in parse_relabel_configs(text)]
    pairs = relabel([(name.encode(), value.encode()) for name, value in labels], rules)
    return None if pairs is None else [[n.decode(), v.decode()] for n, v in pairs]


def test_vectors():
    """Every rule set has the result, or the refusal, that Prometheus gave."""
    header, *cases = [json.loads(line) for line in VECTORS.read_text("utf-8").splitlines()]
    assert "github.com/prometheus/prometheus v0.314.0" in header["program"]
    assert len(cases) == header["cases"]
    refused = 0
    for case in cases:
        if "error" in case:
            with pytest.raises(InvalidInput) as caught:
                parse_relabel_configs(case["config"])
            # Upstream gathers what is unknown; ours names the first fault of several.
            assert case["error"] == str(caught.value) or "field unknown" in str(caught.value)
            refused += 1
            continue
        for labels, expected in zip(case["series"], case["results"], strict=True):
            assert relabeled(case["config"], labels) == expected, (case["config"], labels)
    assert 30 < refused < len(cases) / 2


@pytest.mark.parametrize(
    ("text", "lower", "upper"),
    [
        ("Aß", "aß", "Aß"),
        ("\u0130I", "ii", "\u0130I"),
        ("\u1fb3\u01c5", "\u1fb3\u01c6", "\u1fbc\u01c4"),
        ("\u0394\u03a3", "\u03b4\u03c3", "\u0394\u03a3"),
    ],
)
def test_letters_change_one_for_one(text, lower, upper):
    """As Go's, where Python would make several letters of one, or look at its neighbours."""
    assert (to_lower(text), to_upper(text)) == (lower, upper)


def test_long_values_are_not_kept():
    """What a client sends is not remembered beyond a bound, and matches all the same."""
    (config,) = parse_relabel_configs("- {source_labels: [a], regex: x+, action: drop}")
    rule = Rule(config)
    for _ in range(2):
        assert relabel([(b"a", b"x" * 10_000)], [rule]) is None
        assert relabel([(b"a", b"y" * 10_000)], [rule]) == [(b"a", b"y" * 10_000)]
    assert relabel([(b"a", b"x")], [rule]) is None
    assert list(rule._kept) == [b"x"]
