"""What relabel rules do to one label set.

Rules work on a builder that remembers what was set and deleted, as upstream's: the order in which
labels are seen, what an empty value means, and which labels stay in their place all follow from it.
The result is a label set in upstream's order, as a router hashes labels in the order they come in.

Matching costs microseconds, and a fleet has far fewer names and source values than series: what an
expression says of a text is kept for texts that come again.

Values are bytes in UTF-8. Source: Prometheus `model/relabel/relabel.go`, `model/labels` (Builder).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from thanostack.lib.model.regex_template import Template
from thanostack.lib.relabel.config import Action, RelabelConfig
from thanostack.lib.relabel.letter_case import to_lower, to_upper

if TYPE_CHECKING:
    import re2

Pair = tuple[bytes, bytes]
_UNKNOWN: Final[Pair] = (b"", b"")
_KEPT_MAX: Final = 8192
_KEPT_BYTES_MAX: Final = 256  # of one text: values come from clients and may be long


class Builder:
    """A label set under change.

    Args:
        base: pairs in the order they came; empty values count as deleted.
    """

    def __init__(self, base: Sequence[Pair]) -> None:
        self._base = base
        self._set: dict[bytes, bytes] = {}
        self._deleted = {name for name, value in base if not value}

    def get(self, name: bytes) -> bytes:
        """Return a label's value, b"" where it is absent."""
        if name in self._set:
            return self._set[name]
        if name in self._deleted:
            return b""
        return next((value for base, value in self._base if base == name), b"")

    def set(self, name: bytes, value: bytes) -> None:
        """Set a label; an empty value deletes it."""
        if not value:
            self.delete(name)
        else:
            self._set[name] = value

    def delete(self, name: bytes) -> None:
        """Delete a label, if it is there."""
        self._set.pop(name, None)
        self._deleted.add(name)

    def pairs(self) -> list[Pair]:
        """Return the labels as they are now: those that stayed, then those that were set."""
        gone = self._deleted | self._set.keys()
        return [*((n, v) for n, v in self._base if n not in gone), *self._set.items()]

    def result(self) -> list[Pair]:
        """Return the labels, sorted if any was set."""
        pairs = self.pairs()
        return sorted(pairs, key=_name_of) if self._set else pairs


def _name_of(pair: Pair) -> bytes:
    return pair[0]


@dataclass(frozen=True)
class Rule:
    """A rule, compiled.

    Args:
        config: as written.

    Attributes:
        name: the target label, where it is no template.
        target, replacement: templates over the groups of `pattern`.
    """

    config: RelabelConfig
    pattern: re2._Regexp = field(init=False, repr=False)
    sources: tuple[bytes, ...] = field(init=False, repr=False)
    separator: bytes = field(init=False, repr=False)
    name: bytes = field(init=False, repr=False)
    target: Template = field(init=False, repr=False)
    replacement: Template = field(init=False, repr=False)
    _kept: dict[bytes, Pair | None] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        import re2  # for those who have rules only

        config = self.config
        options = re2.Options()
        options.log_errors = False
        for name, value in {
            "pattern": re2.compile(config.anchored.encode(), options),
            "sources": tuple(label.encode() for label in config.source_labels or ()),
            "separator": config.separator.encode(),
            "name": config.target_label.encode(),
            "target": Template(config.target_label),
            "replacement": Template(config.replacement),
        }.items():
            object.__setattr__(self, name, value)

    def source(self, labels: Builder) -> bytes:
        """Return the values of the source labels, joined."""
        return self.separator.join([labels.get(name) for name in self.sources])

    def matches(self, text: bytes) -> bool:
        """Return whether the expression matches all of a text."""
        return self.expanded(text) is not None

    def expanded(self, text: bytes) -> Pair | None:
        """Return (target, replacement) for a text, None where the expression does not match."""
        kept = self._kept
        known = kept.get(text, _UNKNOWN)
        if known is not _UNKNOWN:
            return known
        match = self.pattern.match(text)
        pair = match and (self.target.expand(match), self.replacement.expand(match))
        if len(text) <= _KEPT_BYTES_MAX:
            if len(kept) >= _KEPT_MAX:
                kept.clear()
            kept[text] = pair
        return pair


def relabel(pairs: Sequence[Pair], rules: Iterable[Rule]) -> list[Pair] | None:
    """Return what rules make of a label set, None if they drop it.

    Args:
        pairs: in the order they came, valid UTF-8; may be unsorted, repeat names, be empty.
        rules: applied in turn.
    """
    labels = Builder(pairs)
    for rule in rules:
        if not _APPLY[rule.config.action](rule, labels):
            return None
    return labels.result()


def _keep(rule: Rule, labels: Builder) -> bool:
    return rule.matches(rule.source(labels))


def _drop(rule: Rule, labels: Builder) -> bool:
    return not rule.matches(rule.source(labels))


def _keep_equal(rule: Rule, labels: Builder) -> bool:
    return labels.get(rule.name) == rule.source(labels)


def _drop_equal(rule: Rule, labels: Builder) -> bool:
    return labels.get(rule.name) != rule.source(labels)


def _replace(rule: Rule, labels: Builder) -> bool:
    pair = rule.expanded(rule.source(labels))
    if pair is not None and pair[0]:
        labels.set(*pair)
    return True


def _lowercase(rule: Rule, labels: Builder) -> bool:
    labels.set(rule.name, to_lower(rule.source(labels).decode()).encode())
    return True


def _uppercase(rule: Rule, labels: Builder) -> bool:
    labels.set(rule.name, to_upper(rule.source(labels).decode()).encode())
    return True


def _hashmod(rule: Rule, labels: Builder) -> bool:
    digest = hashlib.md5(rule.source(labels), usedforsecurity=False).digest()
    remainder = int.from_bytes(digest[8:], "big") % rule.config.modulus
    labels.set(rule.name, b"%d" % remainder)
    return True


def _label_map(rule: Rule, labels: Builder) -> bool:
    for name, value in labels.pairs():
        pair = rule.expanded(name)
        if pair is not None:
            labels.set(pair[1], value)
    return True


def _label_drop(rule: Rule, labels: Builder) -> bool:
    for name, _ in labels.pairs():
        if rule.matches(name):
            labels.delete(name)
    return True


def _label_keep(rule: Rule, labels: Builder) -> bool:
    for name, _ in labels.pairs():
        if not rule.matches(name):
            labels.delete(name)
    return True


_APPLY: Final[dict[Action, Callable[[Rule, Builder], bool]]] = {
    Action.REPLACE: _replace,
    Action.KEEP: _keep,
    Action.DROP: _drop,
    Action.KEEP_EQUAL: _keep_equal,
    Action.DROP_EQUAL: _drop_equal,
    Action.HASHMOD: _hashmod,
    Action.LABEL_MAP: _label_map,
    Action.LABEL_DROP: _label_drop,
    Action.LABEL_KEEP: _label_keep,
    Action.LOWERCASE: _lowercase,
    Action.UPPERCASE: _uppercase,
}
