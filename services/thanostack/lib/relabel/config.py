"""Relabel rules as they are written, validated as Prometheus does.

    - source_labels: [__name__, job]     joined by `separator`
      regex: go_.*;api                   anchored at both ends, RE2
      action: drop

Names are UTF-8, as Thanos validates them. A field left empty is its zero value and not its default,
a quirk of the library that upstream reads YAML with.

Source: Prometheus `model/relabel/relabel.go`; Thanos `pkg/block/fetcher.go`, ParseRelabelConfig.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.foundation.strict_yaml import Node, parse_yaml
from thanostack.lib.model.regexes import regex_error


class Action(Enum):
    """What a rule does."""

    REPLACE = "replace"
    KEEP = "keep"
    DROP = "drop"
    KEEP_EQUAL = "keepequal"
    DROP_EQUAL = "dropequal"
    HASHMOD = "hashmod"
    LABEL_MAP = "labelmap"
    LABEL_DROP = "labeldrop"
    LABEL_KEEP = "labelkeep"
    LOWERCASE = "lowercase"
    UPPERCASE = "uppercase"


_FIELDS: Final = (
    "source_labels", "separator", "regex", "modulus", "target_label", "replacement", "action",
)  # fmt: skip
_EQUALITIES: Final = (Action.KEEP_EQUAL, Action.DROP_EQUAL)
_LETTER_CASES: Final = (Action.LOWERCASE, Action.UPPERCASE)
_BY_NAME: Final = (Action.LABEL_DROP, Action.LABEL_KEEP)
_WITH_TARGET: Final = (Action.REPLACE, Action.HASHMOD, *_LETTER_CASES, *_EQUALITIES)
_SEPARATOR: Final = ";"
_REGEX: Final = "(.*)"
_REPLACEMENT: Final = "$1"


@dataclass(frozen=True)
class RelabelConfig:
    """One rule as written.

    Args:
        action: what it does.
        source_labels: names of labels whose values are joined; None where not given.
        separator: between the values.
        regex: RE2, without anchors; None where not given, which is `(.*)`.
        modulus: of HASHMOD.
        target_label: name of the label that is written; a template for REPLACE.
        replacement: its value, a template.

    Raises:
        InvalidInput: on construction, if the fields do not make up a rule.
    """

    action: Action = Action.REPLACE
    source_labels: tuple[str, ...] | None = None
    separator: str = _SEPARATOR
    regex: str | None = None
    modulus: int = 0
    target_label: str = ""
    replacement: str = _REPLACEMENT

    def __post_init__(self) -> None:
        complaint = _incomplete(self) or _superfluous(self)
        if complaint:
            raise InvalidInput(complaint)

    @property
    def anchored(self) -> str:
        """Return the whole expression that values are matched with."""
        return f"^(?s:{_REGEX if self.regex is None else self.regex})$"


def _incomplete(rule: RelabelConfig) -> str:
    name = rule.action.value
    if rule.action is Action.HASHMOD and not rule.modulus:
        return "relabel configuration for hashmod requires non-zero modulus"
    if rule.action in _WITH_TARGET and not rule.target_label:
        return f"relabel configuration for {name} action requires 'target_label' value"
    if rule.action is Action.LABEL_MAP and not rule.replacement:
        return f"\"\" is invalid 'replacement' for {name} action"
    return ""


def _superfluous(rule: RelabelConfig) -> str:
    name = rule.action.value
    of_replace = (rule.modulus, rule.separator, rule.replacement) != (0, _SEPARATOR, _REPLACEMENT)
    if rule.action in _LETTER_CASES + _EQUALITIES and rule.replacement != _REPLACEMENT:
        return f"'replacement' can not be set for {name} action"
    if rule.action in _EQUALITIES and (of_replace or rule.regex is not None):
        return (
            f"{name} action requires only 'source_labels' and `target_label`, and no other fields"
        )
    others = rule.source_labels is not None or rule.target_label
    if rule.action in _BY_NAME and (of_replace or others):
        return f"{name} action requires only 'regex', and no other fields"
    return ""


def parse_relabel_configs(text: str | bytes) -> tuple[RelabelConfig, ...]:
    """Return the rules of a YAML list, in their order; none for an empty text.

    Raises:
        InvalidInput: if it is no such list, a field is unknown, or a rule is not one.
    """
    # Upstream: all of the text is read before any rule is validated.
    rules = [_values(node) for node in parse_yaml(text).items("[]*relabel.Config")]
    return tuple(RelabelConfig(**values) for values in rules)


def _values(node: Node) -> dict[str, Any]:
    if node.is_null:
        raise node.error("an empty rule")
    fields = node.fields("relabel.plain", _FIELDS)
    values: dict[str, Any] = {
        name: fields[name].text()
        for name in ("separator", "target_label", "replacement")
        if name in fields
    }
    if "modulus" in fields:
        values["modulus"] = fields["modulus"].integer("uint64")
    if "regex" in fields:
        values["regex"] = _regex(fields["regex"])
    if "source_labels" in fields and not fields["source_labels"].is_null:
        values["source_labels"] = _names(fields["source_labels"])
    if "action" in fields:
        values["action"] = _action(fields["action"])
    return values


def _regex(node: Node) -> str:
    text = node.text()
    reason = regex_error(f"^(?s:{text})$".encode())
    if reason:
        raise InvalidInput(reason)
    return text


def _names(node: Node) -> tuple[str, ...]:
    names = tuple(item.text() for item in node.items("model.LabelNames"))
    if "" in names:
        raise InvalidInput('"" is not a valid label name')
    return names


def _action(node: Node) -> Action:
    text = node.text()
    if node.is_null:
        raise InvalidInput("relabel action cannot be empty")
    try:
        return Action(text.lower())
    except ValueError as error:
        shown = json.dumps(text, ensure_ascii=False)
        raise InvalidInput(f"unknown relabel action {shown}") from error
