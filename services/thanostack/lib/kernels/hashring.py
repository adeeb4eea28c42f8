"""Which nodes of a hashring hold a series: its hash, and the walk around the ring.

    label bytes ──XXH64──> hash ──┬─ hashmod: (hash + r) mod N
                                  └─ ketama:  first section at or after it, and that section's row

A ketama ring is its *sections*, 1000 for each node, sorted by position: the XXH64 of
`address:1` … `address:1000`. `owners[s]` is the node of section s, and row s of the replica table
lists the nodes that a walk from section s on chooses. A table over the top bits of the positions
(`buckets`) makes the search for a section two or three loads.

Source: Thanos v0.42.4 `pkg/receive/hashring.go`, `pkg/store/labelpb/label.go` (HashWithPrefix).
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel, routine
from thanostack.lib.kernels._types import (
    BYTES,
    BYTES_OUT,
    I32,
    I64,
    I64_OUT,
    U64,
    U64_OUT,
    array_in,
    array_out,
    i32,
    i64,
)
from thanostack.lib.kernels.hashing import xxh64
from thanostack.lib.kernels.remote_write_scan import skip_field
from thanostack.lib.kernels.varint import read_length, read_uvarint
from thanostack.lib.kernels.wide import copy_bytes, load64, store64

MALFORMED = -1
SECTIONS_PER_NODE = 1000
SEPARATOR = 0xFF
PACKED_SLACK = 16  # bytes that a wide copy may write too much
_WIDTH = 16

_I32_2D_OUT = array_out(i32, 2)
_I32_2D = array_in(i32, 2)


@device
def _copy16(body, i, packed, at):
    # Both loads first: the compiler makes one of the two.
    low = load64(body, i)
    high = load64(body, i + 8)
    store64(packed, at, low)
    store64(packed, at + 8, high)


@device
def _copy_wide(body, i, size, packed, at):
    """Copy `size` bytes, and up to 16 more."""
    _copy16(body, i, packed, at)
    done = np.int64(_WIDTH)
    while done < size:
        _copy16(body, i + done, packed, at + done)
        done += _WIDTH


@device
def _pack_label(body, i, stop, packed, at):
    """Write `name 0xFF value 0xFF` of the Label in `[i, stop)` at `at`; the next offset or -1."""
    name = i
    name_size = np.int64(0)
    value = i
    value_size = np.int64(0)
    while i < stop:
        key, i = read_uvarint(body, i, stop)
        if i < 0 or key < np.uint64(8):
            return np.int64(MALFORMED)
        start = i
        i = skip_field(body, i, stop, np.int64(key & np.uint64(7)))
        if i < 0:
            return np.int64(MALFORMED)
        if key == np.uint64(0x0A):
            name_size, name = read_length(body, start, stop)
        elif key == np.uint64(0x12):
            value_size, value = read_length(body, start, stop)
    copy_bytes(body, name, name_size, packed, at)
    at += name_size
    packed[at] = np.uint8(SEPARATOR)
    copy_bytes(body, value, value_size, packed, at + 1)
    at += value_size + 1
    packed[at] = np.uint8(SEPARATOR)
    return np.int64(at + 1)


@routine
def _pack_field(body, i, stop, packed, at):
    """Pack the field at `i` if it is a label; return the offsets after it, -1 = malformed."""
    key, i = read_uvarint(body, i, stop)
    if i < 0 or key < np.uint64(8):
        return np.int64(MALFORMED), np.int64(at)
    start = i
    i = skip_field(body, i, stop, np.int64(key & np.uint64(7)))
    if i >= 0 and key == np.uint64(0x0A):
        length, start = read_length(body, start, stop)
        at = _pack_label(body, start, start + length, packed, at)
        if at < 0:
            i = np.int64(MALFORMED)
    return np.int64(i), np.int64(at)


@device
def _pack_series(body, i, stop, packed, at):
    """Write the labels of the TimeSeries in `[i, stop)` at `at`; the next offset or -1.

    `0x0A len 0x0A n name 0x12 m value` with lengths below 128 and 16 bytes of the body after it, as
    nearly all labels are, is read by two wide loads; all else goes field by field.
    """
    size = body.shape[0]
    while i < stop:
        if i + 8 <= size:
            head = load64(body, i)
            end = i + 2 + np.int64((head >> np.uint64(8)) & np.uint64(127))
            name_size = np.int64((head >> np.uint64(24)) & np.uint64(127))
            middle = i + 4 + name_size
            is_label = head & np.uint64(0x80FF80FF) == np.uint64(0x000A000A)
            if is_label and middle + 2 <= end and end <= stop and end + _WIDTH <= size:
                head = load64(body, middle)
                value_size = np.int64((head >> np.uint64(8)) & np.uint64(127))
                is_value = head & np.uint64(0x80FF) == np.uint64(0x12)
                if is_value and middle + 2 + value_size == end:
                    _copy_wide(body, i + 4, name_size, packed, at)
                    at += name_size
                    store64(packed, at, np.uint64(SEPARATOR))
                    _copy_wide(body, middle + 2, value_size, packed, at + 1)
                    at += value_size + 1
                    store64(packed, at, np.uint64(SEPARATOR))
                    at += 1
                    i = end
                    continue
        i, at = _pack_field(body, i, stop, packed, at)
        if i < 0:
            return np.int64(MALFORMED)
    return np.int64(at)


@kernel(i64(BYTES, I64, BYTES, BYTES_OUT, U64_OUT))
def hashring_series_hashes(body, bounds, prefix, packed, hashes):
    """Hash the labels of each series, in the order they are in.

    Args:
        body: uint8[n]; a decoded remote-write 1.0 request.
        bounds: int64[2 S], inside the body; [bounds[2 s], bounds[2 s + 1]) is either the content
            of the TimeSeries message of series s, or just its run of label fields. A negative
            start is -1 - start, as `remote_write_scan` writes it.
        prefix: uint8[p]; the tenant and 0xFF.
        packed: uint8, scratch; 16 longer than the prefix and the longest range together.
        hashes: uint64[S], written.

    Returns:
        The number of series, or MALFORMED.

    Cost: about 80 ns for ten labels of 200 bytes; half of it is XXH64's.
    """
    copy_bytes(prefix, np.int64(0), np.int64(prefix.shape[0]), packed, np.int64(0))
    for s in range(hashes.shape[0]):
        start = bounds[2 * s]
        if start < 0:
            start = -1 - start
        at = _pack_series(body, start, bounds[2 * s + 1], packed, np.int64(prefix.shape[0]))
        if at < 0:
            return np.int64(MALFORMED)
        hashes[s] = xxh64(packed, np.int64(0), at)
    return np.int64(hashes.shape[0])


@kernel(i64(BYTES, I64, BYTES_OUT, U64_OUT))
def hashring_sections(addresses, offsets, text, positions):
    """Write the positions of each node's sections, node by node, unsorted.

    Args:
        addresses: uint8[n]; the addresses of the nodes, one after the other.
        offsets: int64[N + 1], rising; address of node k is [offsets[k], offsets[k + 1]).
        text: uint8, scratch; five longer than the longest address.
        positions: uint64[1000 N], written.

    Returns:
        The number of sections.
    """
    for node in range(offsets.shape[0] - 1):
        size = offsets[node + 1] - offsets[node]
        copy_bytes(addresses, offsets[node], size, text, np.int64(0))
        text[size] = np.uint8(0x3A)
        for section in range(1, SECTIONS_PER_NODE + 1):
            digits = np.int64(1)
            while section >= 10**digits:
                digits += 1
            rest = section
            for k in range(digits):
                text[size + digits - k] = np.uint8(0x30 + rest % 10)
                rest //= 10
            at = node * SECTIONS_PER_NODE + section - 1
            positions[at] = xxh64(text, np.int64(0), size + 1 + digits)
    return np.int64(positions.shape[0])


@device
def _least_count(counts, room):
    """Return the smallest count of a zone that has a node left."""
    least = np.int64(1) << np.int64(62)
    for zone in range(counts.shape[0]):
        if counts[zone] < room[zone] and counts[zone] < least:
            least = counts[zone]
    return least


@device
def _walk(owners, zones, room, first, counts, row):
    """Fill one row of the replica table; return the nodes found."""
    counts[:] = 0
    least = np.int64(0)
    found = np.int64(0)
    s = np.int64(first)
    # Bound: one time around always reaches a node of the zone that is due.
    for _ in range(owners.shape[0] * row.shape[0]):
        node = owners[s]
        s += 1
        if s == owners.shape[0]:
            s = np.int64(0)
        taken = counts[zones[node]] > least
        for r in range(found):
            taken |= row[r] == node
        if taken:
            continue
        row[found] = node
        found += 1
        if found == row.shape[0]:
            return found
        counts[zones[node]] += 1
        least = _least_count(counts, room)
    return found


@kernel(i64(I32, I32, I64, I64_OUT, _I32_2D_OUT))
def hashring_replicas(owners, zones, room, counts, replicas):
    """Write the nodes that hold the replicas of the series of each section.

    A walk clockwise from the section takes each node that it has not yet, unless the node's zone
    has more replicas than the one with the fewest. A zone without a node left is not waited for.

    Args:
        owners: int32[S]; node of each section, in the order of their positions.
        zones: int32[N]; zone of each node, below Z.
        room: int64[Z]; how many nodes each zone has.
        counts: int64[Z], scratch.
        replicas: int32[S, R], written; 1 <= R <= N.

    Returns:
        The number of sections; less if a node without sections had to be found.

    Cost: O(S R) steps, times N where a zone is small.
    """
    # Upstream: a zone without a node left is waited for, for ever. Where upstream ends, the rows
    # are the same: such a zone only ever has the fewest together with another one.
    for s in range(owners.shape[0]):
        if _walk(owners, zones, room, s, counts, replicas[s]) < replicas.shape[1]:
            return np.int64(s)
    return np.int64(owners.shape[0])


@kernel(i64(U64, i64, _I32_2D_OUT))
def hashring_place_hashmod(hashes, n_nodes, out):
    """Write the nodes of each series in a hashmod ring.

    Args:
        hashes: uint64[n].
        n_nodes: at least 1.
        out: int32[n, R], written; replica r is (hash + r) mod n_nodes, the sum mod 2^64.

    Returns:
        n.
    """
    n = np.uint64(n_nodes)
    for s in range(hashes.shape[0]):
        for r in range(out.shape[1]):
            out[s, r] = np.int32((hashes[s] + np.uint64(r)) % n)
    return np.int64(hashes.shape[0])


@kernel(i64(U64, U64, I32, _I32_2D, _I32_2D_OUT))
def hashring_place_ketama(hashes, positions, buckets, replicas, out):
    """Write the nodes of each series in a ketama ring.

    Args:
        hashes: uint64[n].
        positions: uint64[S], rising; S is at least 1.
        buckets: int32[2^b + 1], b >= 1; buckets[k] is the first section at or after k << (64 - b),
            the last one S.
        replicas: int32[S, R or more].
        out: int32[n, R], written.

    Returns:
        n.
    """
    shift = np.uint64(64)
    size = buckets.shape[0] - 1
    while size > 1:
        size >>= 1
        shift -= np.uint64(1)
    for s in range(hashes.shape[0]):
        bucket = np.int64(hashes[s] >> shift)
        low = buckets[bucket]
        high = buckets[bucket + 1]
        while low < high:
            middle = (low + high) >> 1
            if positions[middle] < hashes[s]:
                low = middle + 1
            else:
                high = middle
        if low == positions.shape[0]:
            low = 0
        for r in range(out.shape[1]):
            out[s, r] = replicas[low, r]
    return np.int64(hashes.shape[0])
