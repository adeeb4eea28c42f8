"""Shard membership in plain Python."""

from __future__ import annotations

from typing import Any

import xxhash

from thanostack.testing.reference.storeapi_codec import MalformedError, fields


def shard_rows(
    label_data: Any,
    label_offsets: Any,
    names: Any,
    name_offsets: Any,
    options: Any,
    scratch: Any,  # noqa: ARG001 - as the kernel
    rows: Any,
) -> Any:
    """Write the rows that belong to the shard; return how many."""
    data = bytes(label_data)
    wanted = {
        bytes(names[name_offsets[k] : name_offsets[k + 1]]) for k in range(len(name_offsets) - 1)
    }
    by, total, index = map(int, options)
    count = 0
    for row in range(len(label_offsets) - 1):
        hashed = b""
        try:
            for _, label in fields(data, int(label_offsets[row]), int(label_offsets[row + 1])):
                name, value = (data[slice(*part)] for _, part in fields(data, *label))
                if (name in wanted) == bool(by):
                    hashed += name + b"\xff" + value + b"\xff"
        except MalformedError:
            return -1
        if xxhash.xxh64_intdigest(hashed) % total == index:
            rows[count] = row
            count += 1
    return count
