"""A place in the token list: look, take, and fail in Prometheus's words.

Upstream's parser is table-driven with one token of look-ahead, and its messages follow from two
things that the parsers above reproduce by hand:

* **Which message.** A token that fits nowhere is reported by the innermost construct under way
  that has words for it; the parsers pass these words to `expect` and `unexpected`. Operators,
  parentheses and function calls have none, so the nearest aggregation speaks, or nobody.
* **Which comes first.** Only the first error is shown. A mistake that the lexer finds counts when
  its token is looked at; where upstream looks ahead before it judges what it has read, we call
  `settle`.

Source: Prometheus 3.14, `promql/parser/parse.go: unexpected`, `posrange`.
"""

from __future__ import annotations

from thanostack.lib.foundation.errors import ParseError
from thanostack.lib.promql.ast import Position
from thanostack.lib.promql.parser.lexer import tokenize
from thanostack.lib.promql.parser.options import ParserOptions
from thanostack.lib.promql.parser.quoting import encode
from thanostack.lib.promql.parser.tokens import CLOSINGS, Kind, Token

# Bound: deeper nesting is refused, so that a recursive walk never exhausts the stack.
MAX_NESTING = 128


class Cursor:
    """Reads the tokens of one query from left to right.

    Args:
        text: the query.
        options: the feature flags.
    """

    __slots__ = ("_aggregations", "_index", "_nesting", "_text", "_tokens", "kind", "options")

    def __init__(self, text: str, options: ParserOptions) -> None:
        self._text = text
        self._tokens = tokenize(text)
        self._index = 0
        self._nesting = 0
        self._aggregations = 0
        self.kind = self._tokens[0].kind
        self.options = options

    @property
    def following(self) -> Kind:
        """Return the kind of the token after the next; never asked at EOF or ERROR."""
        return self._tokens[self._index + 1].kind

    def take(self) -> Token:
        """Return the next token and step over it; never called at EOF or ERROR."""
        token = self._tokens[self._index]
        self._index += 1
        self.kind = self._tokens[self._index].kind
        return token

    def at(self, kind: Kind) -> bool:
        """Return whether the next token is of this kind."""
        return self.kind is kind

    def accept(self, kind: Kind) -> Token | None:
        """Take the next token if it is of this kind."""
        return self.take() if self.kind is kind else None

    def expect(self, kind: Kind, context: str = "", expected: str = "") -> Token:
        """Take the next token.

        Raises:
            ParseError: if it is of another kind.
        """
        if self.kind is not kind:
            raise self.unexpected(context, expected)
        return self.take()

    def settle(self) -> None:
        """Look at the next token.

        Raises:
            ParseError: if it could not be lexed.
        """
        if self.kind is Kind.ERROR:
            raise self.unexpected()

    def unexpected(self, context: str = "", expected: str = "") -> ParseError:
        """Return the error that the next token deserves.

        Args:
            context: the construct under way; "" for the enclosing aggregation, if any.
            expected: what would have fitted, "" if nothing in particular.
        """
        token = self._tokens[self._index]
        if token.kind is Kind.ERROR:
            return self.fail(token.start, token.text)
        context = context or ("aggregation" if self._aggregations else "")
        message = f"unexpected {token.describe()}"
        message += f" in {context}" if context else ""
        message += f", expected {expected}" if expected else ""
        return self.fail(token.start, message)

    def fail(self, start: int, message: str) -> ParseError:
        """Return an error at a byte offset."""
        return parse_error(self._text, start, message)

    def nest(self) -> None:
        """Enter one more level of nesting; undone by `unnest`.

        Raises:
            ParseError: if it is one too many.
        """
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise self.fail(
                self._tokens[self._index].start,
                f"expression is nested more than {MAX_NESTING} levels deep",
            )

    def unnest(self) -> None:
        """Leave a level of nesting."""
        self._nesting -= 1

    def enter_aggregation(self) -> None:
        """Give unexpected tokens the context of an aggregation; undone by `leave_aggregation`."""
        self._aggregations += 1

    def leave_aggregation(self) -> None:
        """End an aggregation."""
        self._aggregations -= 1

    def span(self, start: int) -> Position:
        """Return the range from `start` to the end of the last taken token."""
        return Position(start, self._tokens[self._index - 1].end)

    def last_closing(self, *, ahead: bool) -> int:
        """Return where the last token that can end an expression ends.

        Upstream: such a token counts as soon as it is looked at, even if the expression in
        question does not own it.

        Args:
            ahead: whether the next token has been looked at.
        """
        index = self._index if ahead else self._index - 1
        while index >= 0 and self._tokens[index].kind not in CLOSINGS:
            index -= 1
        return self._tokens[index].end if index >= 0 else 0

    def aggregation_end(self) -> int:
        """Return where an aggregation without modifiers ends, its successor looked at."""
        token, previous = self._tokens[self._index], self._tokens[self._index - 1]
        if token.kind is Kind.RIGHT_PAREN:
            between = encode(self._text)[previous.end : token.start]
            return token.end if between.strip(b" \t\r\n") else previous.end
        return self.last_closing(ahead=True)


def parse_error(text: str, start: int, message: str) -> ParseError:
    """Return an error at a byte offset of a text."""
    if not text:
        return ParseError(message, 0, 0)
    before = encode(text)[:start]
    return ParseError(message, before.count(b"\n") + 1, start - before.rfind(b"\n"))
