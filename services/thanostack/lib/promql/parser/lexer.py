"""Query text to tokens.

The same characters mean different things in three places, so the lexer has three modes:

    statement   names, keywords, numbers, strings, operators
    braces      `{…}`: every word is a name, `=~` and `!~` exist
    duration    `[` up to the first number: only arithmetic and the four duration keywords; after
                that number the rest of the bracket is read in statement mode, where words other
                than those keywords are refused

The whole text is lexed at once. What cannot be lexed becomes one last token of kind ERROR whose
text is the message; the parser raises it when it gets there, because an earlier mistake of
grammar comes first. Offsets are counted in characters here and turned into bytes at the end,
only for texts that are not ASCII.

Source: Prometheus 3.14, `promql/parser/lex.go`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

from thanostack.lib.promql.parser.numerals import scan_numeral
from thanostack.lib.promql.parser.quoting import byte_length, name_character, quote, quote_character
from thanostack.lib.promql.parser.tokens import (
    DURATION_KEYWORDS,
    FILLS,
    KEYWORDS,
    Kind,
    Token,
)

_STATEMENT = re.compile(
    r"""
      (?P<blank>[ \t\r\n]+|\#[^\r\n]*)
    | (?P<word>[A-Za-z_:][A-Za-z0-9_:]*)
    | (?P<number>[0-9]+(?:\.[0-9]+)?(?![0-9A-Za-z_.]))
    | (?P<duration>[0-9]+(?:ms|[smhdwy])(?![0-9A-Za-z_]))
    | (?P<string>"[^"\\\n\x80-\U0010ffff]*"|'[^'\\\n\x80-\U0010ffff]*')
    | (?P<operator>==|!=|<=|>=|</|>/|=(?!~)|[-+*/%^<>@,(){}\[\]])
    | (?P<numeral>\.?[0-9])
    | (?P<quote>["'`])
    """,
    re.VERBOSE,
)
_BRACES = re.compile(
    r"""
      (?P<blank>[ \t\r\n]+|\#[^\r\n]*)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<operator>=~|!~|!=|=|,|\})
    | (?P<string>"[^"\\\n\x80-\U0010ffff]*"|'[^'\\\n\x80-\U0010ffff]*')
    | (?P<quote>["'`])
    """,
    re.VERBOSE,
)
_DURATION = re.compile(
    r"""
      (?P<blank>[ \t\r\n]+)
    | (?P<operator>[-+*/%^,():\]])
    | (?P<numeral>\.?[0-9])
    | (?P<word>[A-Za-z_]+)
    """,
    re.VERBOSE,
)
_LETTERS = re.compile(r"[A-Za-z_]+")
_OPEN_PAREN_NEXT = re.compile(r"[ \t\r\n]*\(")
_OPERATORS = {
    kind.value: kind
    for kind in Kind
    if not kind.value[0].isalpha() and kind not in {Kind.EOF, Kind.ERROR}
}
_PLAIN_TEXT = {
    quote: re.compile(rf"[^{quote}\\\n\ufffd\ud800-\udfff]*") for quote in ('"', "'")
} | {"`": re.compile("[^`\ufffd\ud800-\udfff]*")}
_ESCAPES = {"x": (2, 16, 255), "u": (4, 16, 0x10FFFF), "U": (8, 16, 0x10FFFF)}


def tokenize(text: str) -> list[Token]:
    """Return the tokens of a query, ended by one of kind EOF or ERROR.

    Cost: O(n).
    """
    lexer = _Lexer(text)
    try:
        lexer.run()
    except _LexError as error:
        lexer.add(Kind.ERROR, error.start, len(text), error.message)
    return lexer.tokens if text.isascii() else _in_bytes(text, lexer.tokens)


def _in_bytes(text: str, tokens: list[Token]) -> list[Token]:
    widths = (byte_length(character) for character in text)
    offsets = [0, *itertools.accumulate(widths)]
    return [token._replace(start=offsets[token.start], end=offsets[token.end]) for token in tokens]


class _LexError(Exception):
    def __init__(self, start: int, message: str) -> None:
        super().__init__(message)
        self.start, self.message = start, message


class _Lexer:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.tokens: list[Token] = []
        self._text = text
        self._position = 0
        self._paren_depth = 0
        self._in_braces = False
        self._in_brackets = False
        self._before_number = False
        self._got_colon = False
        # Upstream: never reset, so a colon may open a later bracket and fails in the grammar.
        self._got_number = False

    def add(self, kind: Kind, start: int, end: int, text: str) -> None:
        """Append a token and go on behind it."""
        self.tokens.append(Token(kind, start, end, text))
        self._position = end

    def run(self) -> None:
        """Lex to the end, or raise at what cannot be lexed."""
        text, length = self._text, len(self._text)
        while self._position < length:
            start = self._position
            mode = self._mode()
            match = mode.match(text, start)
            if match is None:
                raise self._unexpected(start)
            _HANDLERS[match.lastgroup](self, match)
        self._finish()

    def _mode(self) -> re.Pattern[str]:
        if self._in_braces:
            return _BRACES
        return _DURATION if self._before_number else _STATEMENT

    def _finish(self) -> None:
        end = len(self._text)
        if self._in_braces:
            raise _LexError(end, "unexpected end of input inside braces")
        if self._before_number:
            raise _LexError(end, "unexpected end of input in duration expression")
        if self._paren_depth:
            raise _LexError(end, "unclosed left parenthesis")
        if self._in_brackets:
            raise _LexError(end, "unclosed left bracket")
        self.add(Kind.EOF, end, end, "")

    def _blank(self, match: re.Match[str]) -> None:
        self._position = match.end()

    def _number(self, match: re.Match[str]) -> None:
        self.add(Kind.NUMBER, match.start(), match.end(), match.group())

    def _duration(self, match: re.Match[str]) -> None:
        self.add(Kind.DURATION, match.start(), match.end(), match.group())

    def _string(self, match: re.Match[str]) -> None:
        self.add(Kind.STRING, match.start(), match.end(), match.group())

    def _word(self, match: re.Match[str]) -> None:
        word, start, end = match.group(), match.start(), match.end()
        if self._in_braces:
            self.add(Kind.IDENTIFIER, start, end, word)
            return
        if self._in_brackets:
            self._word_in_brackets(start)
            return
        kind = KEYWORDS.get(word.lower())
        if kind is None:
            kind = Kind.METRIC_IDENTIFIER if ":" in word else Kind.IDENTIFIER
        elif kind in FILLS and not _OPEN_PAREN_NEXT.match(self._text, end):
            kind = Kind.IDENTIFIER
        self.add(kind, start, end, word)

    def _word_in_brackets(self, start: int) -> None:
        first = self._text[start]
        if first == ":":
            if self._got_colon:
                raise _LexError(start, "unexpected colon ':'")
            self._got_colon = True
            self.add(Kind.COLON, start, start + 1, ":")
            return
        match = _LETTERS.match(self._text, start)
        assert match is not None, "the mode's pattern found a letter here"
        kind = KEYWORDS.get(match.group().lower())
        if kind is not None and kind in DURATION_KEYWORDS:
            self.add(kind, start, match.end(), match.group())
        elif self._before_number:
            shown = quote_character(first)
            raise _LexError(start, f"unexpected character in duration expression: {shown}")
        else:
            shown = quote_character(first)
            raise _LexError(start, f"unexpected character: {shown}, expected ':'")

    def _operator(self, match: re.Match[str]) -> None:
        symbol, start = match.group(), match.start()
        if symbol == "}" and not self._in_braces:
            raise self._unexpected(start)
        if symbol in "()[]{}:":
            self._bracket(symbol, start)
        self.add(_OPERATORS[symbol], start, start + len(symbol), symbol)

    def _bracket(self, symbol: str, start: int) -> None:
        if symbol == "(":
            self._paren_depth += 1
        elif symbol == ")":
            self._paren_depth -= 1
            if self._paren_depth < 0:
                # Upstream: an unexpected `)` or colon is reported behind it.
                raise _LexError(start + 1, "unexpected right parenthesis ')'")
        elif symbol in "{}":
            self._in_braces = symbol == "{"
        elif symbol == ":":
            self._early_colon(start + 1)
        elif self._in_brackets is (symbol == "["):
            side = "left" if symbol == "[" else "right"
            raise _LexError(start, f"unexpected {side} bracket '{symbol}'")
        else:
            self._in_brackets = self._before_number = symbol == "["
            self._got_colon = False

    def _early_colon(self, end: int) -> None:
        # Upstream: `[step():]` fails too, though `[step()]` is a range.
        if not self._got_number:
            raise _LexError(end, "unexpected colon before duration in duration expression")
        if self._got_colon:
            raise _LexError(end, "unexpected repeated colon in duration expression")
        self._got_colon = True

    def _numeral(self, match: re.Match[str]) -> None:
        start = match.start()
        if self._before_number:
            self._before_number, self._got_number = False, True
        kind, end = scan_numeral(self._text, start)
        if kind is Kind.ERROR:
            shown = quote(self._text[start:end])
            raise _LexError(start, f"bad number or duration syntax: {shown}")
        self.add(kind, start, end, self._text[start:end])

    def _quoted(self, match: re.Match[str]) -> None:
        text, start, mark = self._text, match.start(), match.group()
        position = start + 1
        while True:
            position = _PLAIN_TEXT[mark].match(text, position).end()  # type: ignore[union-attr]
            character = text[position : position + 1]
            if character == mark:
                self.add(Kind.STRING, start, position + 1, text[start : position + 1])
                return
            if character == "\\":
                position = self._escape(start, position + 1, mark)
            elif character in {"", "\n"}:
                sort = "raw string" if mark == "`" else "quoted string"
                raise _LexError(start, f"unterminated {sort}")
            else:
                raise _LexError(start, "invalid UTF-8 rune")

    def _escape(self, start: int, position: int, mark: str) -> int:
        """Check the escape behind a backslash; return where it ends."""
        character = self._text[position : position + 1]
        if not character:
            raise _LexError(start, "escape sequence not terminated")
        if character in "abfnrtv\\" + mark:
            return position + 1
        if character in "01234567":
            return self._code(start, position, (3, 8, 255))
        if character not in _ESCAPES:
            raise _LexError(start, f"unknown escape sequence {name_character(character)}")
        return self._code(start, position + 1, _ESCAPES[character])

    def _code(self, start: int, position: int, form: tuple[int, int, int]) -> int:
        digits, base, largest = form
        value = 0
        for character in self._text[position : position + digits]:
            digit = "0123456789abcdef".find(character.lower())
            if not 0 <= digit < base:
                shown = name_character(character)
                raise _LexError(start, f"illegal character {shown} in escape sequence")
            value = value * base + digit
        if position + digits > len(self._text):
            raise _LexError(start, "escape sequence not terminated")
        if value > largest or 0xD800 <= value < 0xE000:
            raise _LexError(start, "escape sequence is an invalid Unicode code point")
        return position + digits

    def _unexpected(self, start: int) -> _LexError:
        character, following = self._text[start], self._text[start + 1 : start + 2]
        shown = quote_character(character)
        if self._in_braces:
            return _LexError(start, _unexpected_in_braces(character, following))
        if self._before_number:
            return _LexError(start, f"unexpected character in duration expression: {shown}")
        if character in {"=", "!"}:
            shown = quote_character(following)
            return _LexError(start, f"unexpected character after '{character}': {shown}")
        return _LexError(start, f"unexpected character: {shown}")


def _unexpected_in_braces(character: str, following: str) -> str:
    if character == "!":
        return f"unexpected character after '!' inside braces: {quote_character(following)}"
    if character == "{":
        return "unexpected left brace '{'"
    return f"unexpected character inside braces: {quote_character(character)}"


_HANDLERS: dict[str | None, Callable[[_Lexer, re.Match[str]], None]] = {
    "blank": _Lexer._blank,
    "word": _Lexer._word,
    "number": _Lexer._number,
    "duration": _Lexer._duration,
    "string": _Lexer._string,
    "operator": _Lexer._operator,
    "numeral": _Lexer._numeral,
    "quote": _Lexer._quoted,
}
