"""YAML files of settings, read strictly: unknown and repeated keys and wrong types are errors.

Values are read as what the reader asks for, not as what they look like: a regular expression may be
`404` or `on` without quotes. Texts of errors are those of the Go library that upstream reads the
same files with, so that a search for them finds something.

    Node ── fields("T", known) ──► {name: Node}     a structure
         ── entries() ───────────► {name: Node}     a map with any keys
         ── items() ─────────────► [Node]           a list
         ── text(), integer() ───► a value

A value that is left empty, `~` or `null` stands for nothing, and so does the document itself.

Source: YAML 1.1; gopkg.in/yaml.v2, `decode.go` (UnmarshalStrict).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from thanostack.lib.foundation.errors import InvalidInput

if TYPE_CHECKING:  # imported by the first text that is not empty: most processes are given none
    import yaml

_NULL: Final = "tag:yaml.org,2002:null"
_INTEGER: Final = "tag:yaml.org,2002:int"
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_MERGE: Final = "tag:yaml.org,2002:merge"
_SHOWN_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a document.

    Args:
        raw: as composed; None for an empty document.
    """

    raw: yaml.Node | None

    @property
    def line(self) -> int:
        """Return the line that it begins on, from 1."""
        return self.raw.start_mark.line + 1 if self.raw is not None else 1

    @property
    def is_null(self) -> bool:
        """Return whether nothing is there."""
        return self.raw is None or self.raw.tag == _NULL

    def _value(self, shape: str) -> Any:
        """Return what a `scalar`, `sequence` or `mapping` holds, None if it is none."""
        raw = self.raw
        return raw.value if raw is not None and getattr(raw, "id", "") == shape else None

    def error(self, message: str) -> InvalidInput:
        """Return an error that names the line, worded as the Go library's."""
        return InvalidInput(f"yaml: unmarshal errors:\n  line {self.line}: {message}")

    def fields(self, kind: str, known: Collection[str]) -> dict[str, Node]:
        """Return the values of a structure by name; those left out are missing.

        Args:
            kind: what the structure is called in errors.
            known: the names that there are.

        Raises:
            InvalidInput: if it is no mapping, or a name is unknown or repeated.
        """
        found: dict[str, Node] = {}
        for name, node in self._pairs(kind):
            if name.text() not in known:
                raise name.error(f"field {name.text()} not found in type {kind}")
            if name.text() in found:
                raise name.error(f"field {name.text()} already set in type {kind}")
            found[name.text()] = node
        return found

    def entries(self, kind: str) -> dict[str, Node]:
        """Return the values of a map with any keys.

        Raises:
            InvalidInput: if it is no mapping, or a key is repeated.
        """
        found: dict[str, Node] = {}
        for name, node in self._pairs(kind):
            if name.text() in found:
                raise name.error(f'key "{name.text()}" already set in map')
            found[name.text()] = node
        return found

    def _pairs(self, kind: str) -> list[tuple[Node, Node]]:
        if self.is_null:
            return []
        pairs = self._value("mapping")
        if pairs is None:
            raise self._mismatch(kind)
        own = [(Node(name), Node(value)) for name, value in pairs if name.tag != _MERGE]
        names = {name.text() for name, _ in own}
        for name, value in pairs:
            if name.tag == _MERGE:
                listed = Node(value)._value("sequence")
                sources = [value] if listed is None else listed
                for pair in (pair for source in sources for pair in Node(source)._pairs(kind)):
                    if pair[0].text() not in names:
                        names.add(pair[0].text())
                        own.append(pair)
        return own

    def items(self, kind: str) -> list[Node]:
        """Return the values of a list; of nothing, none.

        Raises:
            InvalidInput: if it is no list.
        """
        if self.is_null:
            return []
        items = self._value("sequence")
        if items is None:
            raise self._mismatch(kind)
        return [Node(item) for item in items]

    def text(self) -> str:
        """Return a scalar as it is written; "" for nothing.

        Raises:
            InvalidInput: if it is no scalar.
        """
        if self.is_null:
            return ""
        value = self._value("scalar")
        if value is None:
            raise self._mismatch("string")
        value = str(value)
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self.error("half of a surrogate pair is no character")
        return value

    def integer(self, kind: str = "int64") -> int:
        """Return a whole number; 0 for nothing.

        Args:
            kind: `int64` or `uint64`.

        Raises:
            InvalidInput: if it is none, or does not fit.
        """
        if self.is_null:
            return 0
        low, high = (0, (1 << 64) - 1) if kind == "uint64" else (-(1 << 63), (1 << 63) - 1)
        value = self._number()
        if value is None or not low <= value <= high:
            raise self._mismatch(kind)
        return value

    def boolean(self) -> bool:
        """Return a switch; False for nothing.

        Raises:
            InvalidInput: if it is none.
        """
        if self.is_null:
            return False
        if self.raw is None or self.raw.tag != "tag:yaml.org,2002:bool":
            raise self._mismatch("bool")
        return str(self.raw.value).lower() in {"true", "yes", "on"}

    def _number(self) -> int | None:
        value = self._value("scalar")
        if self.raw is None or value is None:
            return None
        plain = str(value).replace("_", "")
        digits = plain.lstrip("+-")
        try:
            if self.raw.tag == _INTEGER:
                is_octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
                return int(plain, 8 if is_octal else 0)
            # Go's library takes 1e6 for a number, and a whole one where one is wanted.
            if getattr(self.raw, "style", "") is None and _FLOAT.fullmatch(plain):
                return int(float(plain))
        except (ValueError, OverflowError):
            pass
        return None

    def _mismatch(self, kind: str) -> InvalidInput:
        assert self.raw is not None
        value = ""
        shown = self._value("scalar")
        if shown is not None:
            value = f" `{shown[:7]}...`" if len(shown) > _SHOWN_MAX else f" `{shown}`"
        tag = self.raw.tag.replace("tag:yaml.org,2002:", "!!")
        return self.error(f"cannot unmarshal {tag}{value} into {kind}")


def parse_yaml(text: str | bytes) -> Node:
    """Return the one document of a text.

    Raises:
        InvalidInput: if it is not YAML, or more than one document.
    """
    if not text:
        return Node(None)
    import yaml

    try:
        return Node(yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidInput(f"yaml: line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise InvalidInput(f"yaml: {error}") from error
    except RecursionError as error:
        raise InvalidInput("yaml: exceeded max depth") from error
