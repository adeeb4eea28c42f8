"""Plain references of `lib/kernels/promql_labels.py`: label sets as tuples of byte pairs.

Interning is a dictionary; a set of packed pairs is the tuple of its pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from thanostack.lib.model.label_runs import Labels, decode_run, encode_run


def intern_symbols(texts: Sequence[bytes]) -> list[int]:
    """Return ids in order of first appearance."""
    known: dict[bytes, int] = {}
    return [known.setdefault(text, len(known)) for text in texts]


def intern_pairs(runs: Sequence[bytes]) -> list[Labels]:
    """Return the pairs of canonical runs."""
    return [decode_run(run) for run in runs]


def intern_sets(sets: Sequence[Labels]) -> list[int]:
    """Return ids in order of first appearance."""
    known: dict[Labels, int] = {}
    return [known.setdefault(labels, len(known)) for labels in sets]


def project_pairs(sets: Sequence[Labels], keep: Callable[[bytes], bool]) -> list[Labels]:
    """Return each set reduced to the names that are kept."""
    return [tuple(pair for pair in labels if keep(pair[0])) for labels in sets]


def assign_pairs(
    sets: Sequence[Labels], name: bytes, values: Sequence[bytes | None]
) -> list[Labels]:
    """Return each set with a label set, or removed where the value is None."""
    out = []
    for labels, value in zip(sets, values, strict=True):
        changed = {n: v for n, v in labels if n != name}
        if value is not None:
            changed[name] = value
        out.append(tuple(sorted(changed.items())))
    return out


def lookup_values(sets: Sequence[Labels], name: bytes) -> list[bytes | None]:
    """Return the value of one label in each set."""
    return [dict(labels).get(name) for labels in sets]


def sort_sets(sets: Sequence[Labels]) -> list[int]:
    """Return positions in label order, stably."""
    return sorted(range(len(sets)), key=lambda i: sets[i])


def encode_sets(sets: Sequence[Labels]) -> list[bytes]:
    """Return the canonical run of each set."""
    return [encode_run(labels) for labels in sets]
