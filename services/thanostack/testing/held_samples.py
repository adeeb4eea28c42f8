"""What a program holds, read out and made comparable: answers of query APIs, dumps of directories.

    {labels: {timestamp in ms: bits of the value}}

Values are compared as the 64 bits that their text stands for; texts know one NaN only, so stale
markers and other NaNs are one value in a dump, and a query never returns a stale marker.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from thanostack.testing.processes import Server, peer_program

Labels = frozenset[tuple[str, str]]
Held = dict[Labels, dict[int, int]]
Written = Iterable[tuple[Mapping[str, str], Iterable[tuple[int, float]]]]
_LINE = re.compile(r"\{(.*)\} (\S+) (-?\d+)")
_PAIR = re.compile(r'(?:"([^"]+)"|(\w+))=("(?:[^"\\]|\\.)*")')


def bits(value: float) -> int:
    """Return a float's bits; every NaN is the same."""
    pattern: int = struct.unpack(
        "<Q", struct.pack("<d", value if value == value else float("nan"))
    )[0]
    return pattern


def of_query(server: Server, query: str, at_s: float, **parameters: Any) -> Held:
    """Return the samples of a range vector, such as `{job="a"}[5m]`, as the server gives them."""
    held: Held = {}
    for series in server.api("query", query=query, time=at_s, **parameters)["result"]:
        samples = {round(t * 1000): bits(float(value)) for t, value in series["values"]}
        held[frozenset(series["metric"].items())] = samples
    return held


def of_dump(folder: Path, scratch: Path, *, maxt: int = (1 << 63) - 1) -> Held:
    """Return what the real promtool finds in a TSDB directory up to maxt, inclusive."""
    command = [
        str(peer_program("promtool")), "tsdb", "dump", f"--max-time={maxt}",
        f"--sandbox-dir-root={scratch}", str(folder),
    ]  # fmt: skip
    text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    held: Held = {}
    seen: dict[str, dict[int, int]] = {}
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"promtool tsdb dump: {line}")
        samples = seen.get(found[1])
        if samples is None:
            pairs = _PAIR.findall(found[1])
            labels = frozenset((quoted or bare, json.loads(text)) for quoted, bare, text in pairs)
            samples = seen[found[1]] = held.setdefault(labels, {})
        samples[int(found[3])] = bits(float(found[2]))
    return held


def of_written(series: Written) -> Held:
    """Return what was sent."""
    held: Held = {}
    for labels, samples in series:
        into = held.setdefault(frozenset(labels.items()), {})
        into.update((t, bits(value)) for t, value in samples)
    return held


def without(held: Held, *names: str) -> Held:
    """Return the same without labels; series that only they told apart become one.

    Raises:
        ValueError: if two such series have a sample at the same time.
    """
    merged: Held = {}
    for labels, samples in held.items():
        into = merged.setdefault(frozenset(pair for pair in labels if pair[0] not in names), {})
        if into.keys() & samples.keys():
            raise ValueError(f"only {names} tell series apart: {sorted(labels)}")
        into.update(samples)
    return merged


def size(held: Held) -> int:
    """Return how many samples there are."""
    return sum(map(len, held.values()))


def n_missing(expected: Held, got: Held) -> int:
    """Return how many samples of `expected` are not in `got`, or with other bits."""
    return sum(
        got.get(labels, {}).get(t) != pattern
        for labels, samples in expected.items()
        for t, pattern in samples.items()
    )


def missing(expected: Held, got: Held) -> list[str]:
    """Return a line for each series of which `got` lacks samples or has other values."""
    lines = []
    for labels, samples in expected.items():
        found = got.get(labels, {})
        lacks = [t for t, pattern in samples.items() if found.get(t) != pattern]
        if lacks:
            lines.append(f"{len(lacks)} of {len(samples)} from {min(lacks)}: {sorted(labels)}")
    return lines


def differences(expected: Held, got: Held) -> list[str]:
    """Return at most twenty lines that say what is lost and what is too much."""
    lost, extra = missing(expected, got), missing(got, expected)
    lines = [f"lost {line}" for line in lost[:10]] + [f"extra {line}" for line in extra[:10]]
    if lines:
        lines.append(f"{len(lost)} series lost samples, {len(extra)} have other ones")
    return lines
