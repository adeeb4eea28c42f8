"""The flags that the services of this version know, so that a misspelt one is found before a pod.

A flag that a container does not take would end each new pod at its start, one by one. The table is
generated from the services' settings, and `tests/tidy` compares it; the services themselves are
never imported. It is asked only where the stack runs this version.
"""

from __future__ import annotations

import difflib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FILE = Path(__file__).with_name("known_flags.tsv")

Command = Literal["receive", "query"]


@dataclass(frozen=True)
class KnownFlag:
    """A flag of a command.

    Args:
        kind: `switch` takes no value; `once` and `many` take one, the latter repeatedly.
        refused: what to do instead, if the command does not start with it; empty otherwise.
    """

    kind: str
    refused: str = ""


@functools.cache
def known_flags(command: Command) -> dict[str, KnownFlag]:
    """Return the flags of a command by name."""
    rows = (line.split("\t") for line in FILE.read_text(encoding="utf-8").splitlines())
    return {name: KnownFlag(kind, refused) for of, name, kind, refused in rows if of == command}


def mistakes(command: Command, extra: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with extra flags, a sentence each."""
    known = known_flags(command)
    names: Counter[str] = Counter()
    for argument in extra:
        written, equals, _ = argument.removeprefix("--").partition("=")
        name = written.removeprefix("no-")
        found = known.get(name)
        if found is None or (name != written and found.kind != "switch"):
            yield f"--{written}: {command} has no such flag{_near(name, known)}"
        elif found.refused:
            yield f"--{written}: {found.refused}"
        elif found.kind != "switch" and not equals:
            yield f"--{written} takes a value: write --{written}=value"
        elif found.kind != "many":
            names[name] += 1
            if names[name] == 2:
                yield f"--{name} stands twice: leave one of them out"


def _near(name: str, known: dict[str, KnownFlag]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f": did you mean --{near[0]}?" if near else ": see docs/flags.md"
