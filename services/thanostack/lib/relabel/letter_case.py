"""Lower and upper case as Go's `strings` has them: one letter for one letter.

Python makes several letters of some (`ß` becomes `SS`) and looks at a letter's neighbours; Go maps
each letter by itself, with Unicode's simple mappings.

Source: Go `strings.ToLower`, `strings.ToUpper`, `unicode.ToLower`; compared over all of Unicode 14.
"""

from __future__ import annotations


def to_lower(text: str) -> str:
    """Return a text in lower case."""
    if text.isascii():
        return text.lower()
    # Of several letters the first is the simple mapping: `İ` is the only case.
    return "".join(letter.lower()[0] for letter in text)


def to_upper(text: str) -> str:
    """Return a text in upper case."""
    if text.isascii():
        return text.upper()
    return "".join(_upper(letter) for letter in text)


def _upper(letter: str) -> str:
    # A letter with iota below has a simple capital, which Python takes for titles only.
    for mapped in (letter.upper(), letter.title()):
        if len(mapped) == 1:
            return mapped
    return letter
