"""Plain references of the kernels in `lib/kernels/index_symbols.py`, over Python values."""

from __future__ import annotations

from collections.abc import Sequence

import xxhash

from thanostack.testing.reference.label_order import _frame, _length, decode_pairs

Pair = tuple[bytes, bytes]


def intern_label_pairs(
    batches: Sequence[Sequence[bytes]],
) -> tuple[list[list[int]], list[bytes], list[int]]:
    """Return each row's pair ids, the framed pairs by id, and their hashes."""
    ids: dict[bytes, int] = {}
    rows = []
    for runs in batches:
        previous = None
        for run in runs:
            pairs = decode_pairs(run)
            names = [name for name, _ in pairs]
            if names != sorted(set(names)) or b"" in names:
                raise ValueError("names out of order")
            if previous is not None and pairs <= previous:
                raise ValueError("rows out of order")
            previous = pairs
            framed = [_frame(name, value) for name, value in pairs]
            rows.append([ids.setdefault(pair, len(ids)) for pair in framed])
    return rows, list(ids), [xxhash.xxh64_intdigest(pair) for pair in ids]


def fill_pair_table(hashes: Sequence[int], slots: int) -> list[int]:
    """Return an open-addressing table of pair id + 1."""
    table = [0] * slots
    for pair, digest in enumerate(hashes):
        slot = digest % slots
        while table[slot]:
            slot = (slot + 1) % slots
        table[slot] = pair + 1
    return table


def split_label_pairs(pairs: Sequence[bytes]) -> tuple[list[bytes], list[int]]:
    """Return the values then the distinct names of ordered pairs, and each pair's name's place."""
    decoded = [decode_pairs(pair)[0] for pair in pairs]
    names = list(dict.fromkeys(name for name, _ in decoded))
    values = [value for _, value in decoded]
    return values + names, [len(values) + names.index(name) for name, _ in decoded]


def rank_strings(strings: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """Return (order, ordinals) of strings; equal ones share an ordinal."""
    distinct = sorted(set(strings))
    order = sorted(range(len(strings)), key=strings.__getitem__)
    return order, [distinct.index(string) for string in strings]


def encode_symbols(strings: Sequence[bytes]) -> bytes:
    """Return the distinct strings in order, each after its length."""
    return b"".join(_length(string) + string for string in sorted(set(strings)))
