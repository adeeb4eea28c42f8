"""What is wrong with a regular expression, in Go's words.

We match with RE2 in C++, Prometheus with Go's port of it. They agree on the dialect and differ in
the wording of errors, so the wording is translated.

Source: Go `regexp/syntax` error codes; RE2 `re2/re2.cc` and `regexp.cc`.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for those who match only
    import re2

_GO_WORDS = {
    "invalid escape sequence": "invalid escape sequence",
    "invalid character class": "invalid character class",
    "invalid character class range": "invalid character class range",
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "unexpected )": "unexpected )",
    "trailing \\": "trailing backslash at end of expression",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid repetition size": "invalid repeat count",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid UTF-8": "invalid UTF-8",
    "invalid named capture group": "invalid named capture",
}

_LITERAL_OR_ANY_BYTE = re.compile(rb"\\Q.*?(?:\\E|\Z)|(\\C)|\\.", re.DOTALL)


@functools.lru_cache(maxsize=1024)
def regex_error(pattern: bytes) -> str | None:
    """Return why a pattern is refused, None if it is not."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        pattern.decode()
    except UnicodeDecodeError as error:
        shown = pattern[error.start :].decode("utf-8", "replace")
        return f"error parsing regexp: invalid UTF-8: `{shown}`"
    if b"\\C" in pattern:
        # RE2 has `\C`, any byte, and Go has not; `\8` is unknown to both.
        known = _LITERAL_OR_ANY_BYTE.sub(lambda part: rb"\8" if part[1] else part[0], pattern)
        reason = _reason(known, options)
        reason = reason and reason.replace("\\8", "\\C")
    else:
        reason = _reason(pattern, options)
    return f"error parsing regexp: {reason}" if reason else None


def _reason(pattern: bytes, options: re2.Options) -> str | None:
    import re2

    try:
        re2.compile(pattern, options)
    except re2.error as error:
        return _in_go_words(error.args[0], pattern)
    return None


def _in_go_words(reason: bytes | str, pattern: bytes) -> str:
    text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    for code, words in sorted(_GO_WORDS.items(), key=lambda entry: -len(entry[0])):
        if text == code or text.startswith(f"{code}: "):
            argument = text[len(code) + 2 :]
            return f"{words}: `{argument}`" if argument else f"{words}: ``"
    return f"expression too large: `{pattern.decode()}`" if "too large" in text else text
