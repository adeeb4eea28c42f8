"""Relabel rules as text: what is a rule, and what Prometheus says of what is none."""

from __future__ import annotations

import pytest

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.relabel.config import Action, RelabelConfig, parse_relabel_configs


def test_defaults_are_upstreams():
    """A rule that says little replaces; its fields are as in Prometheus's documentation."""
    (rule,) = parse_relabel_configs("- target_label: a")
    assert rule == RelabelConfig(Action.REPLACE, None, ";", None, 0, "a", "$1")
    assert rule.anchored == "^(?s:(.*))$"


@pytest.mark.parametrize("text", ["", "[]", "# nothing\n", "~"])
def test_no_rules(text):
    """An empty text is no rules."""
    assert parse_relabel_configs(text) == ()


def test_scalars_are_texts_as_written():
    """Numbers, switches and the like need no quotes; an empty field is its zero value."""
    text = """
- {source_labels: [on, 1], regex: 0404, target_label: true, replacement: 1.50, separator: }
- {action: Drop, regex: , source_labels: [a]}
"""
    first, second = parse_relabel_configs(text)
    assert first.source_labels == ("on", "1")
    assert (first.regex, first.target_label, first.replacement) == ("0404", "true", "1.50")
    assert first.separator == ""
    assert (second.action, second.regex) == (Action.DROP, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {action: rename}", 'unknown relabel action "rename"'),
        ("- {action: }", "relabel action cannot be empty"),
        ("- {action: hashmod, target_label: a}", "hashmod requires non-zero modulus"),
        ("- {action: replace}", "relabel configuration for replace action requires 'target_label'"),
        ("- {action: keepequal}", "for keepequal action requires 'target_label' value"),
        (
            "- {action: lowercase, target_label: a, replacement: b}",
            "'replacement' can not be set for lowercase action",
        ),
        ("- {action: labelmap, replacement: }", "is invalid 'replacement' for labelmap"),
        (
            "- {action: dropequal, target_label: a, regex: (.*)}",
            "dropequal action requires only 'source_labels' and `target_label`, and no other",
        ),
        (
            "- {action: labeldrop, regex: a, source_labels: [b]}",
            "labeldrop action requires only 'regex', and no other fields",
        ),
        ("- {regex: (a}", "error parsing regexp: missing closing ): `^(?s:(a)$`"),
        ("- {source_labels: ['']}", '"" is not a valid label name'),
        ("- {target_label: a, regexp: b}", "line 1: field regexp not found in type relabel.plain"),
        ("- target_label: a\n  target_label: b", "line 2: field target_label already set in type"),
        ("- {action: hashmod, modulus: -1}", "cannot unmarshal !!int `-1` into uint64"),
        ("- {source_labels: a}", "cannot unmarshal !!str `a` into model.LabelNames"),
        ("a: b", "cannot unmarshal !!map into []*relabel.Config"),
        ("- ", "line 1: an empty rule"),
        ("- [", "yaml: line"),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused(text, message):
    """In Prometheus's words."""
    with pytest.raises(InvalidInput) as caught:
        parse_relabel_configs(text)
    assert message in str(caught.value)
