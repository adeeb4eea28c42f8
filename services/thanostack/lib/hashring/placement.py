"""Placement: from the hash of a series to the nodes that hold its replicas.

    hashmod   nodes sorted by address, replica r on node (hash + r) mod N
    ketama    1000 sections a node around a ring of 2^64; a series belongs to the first section at
              or after its hash, and its replicas to the nodes that a walk from there finds

With ketama a new node takes over sections of the others, about 1/N of the series, and no series
moves between old ones. Where nodes have zones, replicas spread over them evenly.

The nodes for r replicas are the first r of those for more: a caller that wants a node to fall back
to asks for one replica more than it writes.

Source: Thanos v0.42.4 `pkg/receive/hashring.go`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.hashring.config import Endpoint
from thanostack.lib.kernels import hashring as kernels
from thanostack.lib.model.label_runs import Int64Array, Uint8Array

Int32Array = npt.NDArray[np.int32]
UInt64Array = npt.NDArray[np.uint64]

SECTIONS_PER_NODE: Final = kernels.SECTIONS_PER_NODE
_SECTION_DIGITS: Final = 4


class Ring(Protocol):
    """Some nodes, and which of them hold a series."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The nodes; a node's index is its position here."""

    def place(self, hashes: UInt64Array, replicas: int) -> Int32Array:
        """Return the nodes of each series.

        Args:
            hashes: uint64[n_series], of `series_hashes`.
            replicas: how many nodes a series, 1 up to the number of nodes.

        Returns:
            int32[n_series, replicas]; node indices, all different in a row.
        """


class HashmodRing:
    """Nodes by the hash's remainder: any change of the ring moves nearly every series.

    Args:
        endpoints: at least one, in any order.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = tuple(sorted(endpoints, key=lambda e: e.address.encode()))

    def place(self, hashes: UInt64Array, replicas: int) -> Int32Array:
        """See `Ring.place`."""
        assert 1 <= replicas <= len(self.endpoints), "more replicas than nodes"
        out = np.empty((len(hashes), replicas), np.int32)
        kernels.hashring_place_hashmod(hashes, len(self.endpoints), out)
        return out


class Sections(NamedTuple):
    """Where the nodes of a ketama ring sit.

    Args:
        positions: uint64[S], rising.
        owners: int32[S]; the node of each.
    """

    positions: UInt64Array
    owners: Int32Array


class KetamaRing:
    """Nodes by consistent hashing.

    Args:
        endpoints: at least one, with distinct addresses.
        replicas: how many replicas are prepared; asking `place` for more costs a walk once.
        sections: of these endpoints, if they are known already.

    Cost: 50 ms for 100 nodes, most of it sorting.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], replicas: int, sections: Sections | None = None
    ) -> None:
        self.endpoints = tuple(endpoints)
        self.sections = sections or _sections_of([e.address.encode() for e in endpoints])
        self._buckets = _buckets_of(self.sections.positions)
        self._table = self._replica_table(replicas)

    def sub_ring(self, nodes: Sequence[int], replicas: int) -> KetamaRing:
        """Return the ring of some of the nodes: their sections stay where they are.

        Args:
            nodes: indices in this ring, ascending; the new ring's nodes in this order.
            replicas: as in the constructor.
        """
        new_index = np.full(len(self.endpoints), -1, np.int32)
        new_index[list(nodes)] = np.arange(len(nodes))
        owners = new_index[self.sections.owners]
        kept = owners >= 0
        sections = Sections(self.sections.positions[kept], owners[kept])
        return KetamaRing([self.endpoints[node] for node in nodes], replicas, sections)

    def place(self, hashes: UInt64Array, replicas: int) -> Int32Array:
        """See `Ring.place`."""
        assert 1 <= replicas <= len(self.endpoints), "more replicas than nodes"
        table = self._table
        if table.shape[1] < replicas:
            table = self._table = self._replica_table(replicas)
        out = np.empty((len(hashes), replicas), np.int32)
        positions = self.sections.positions
        kernels.hashring_place_ketama(hashes, positions, self._buckets, table, out)
        return out

    def _replica_table(self, replicas: int) -> Int32Array:
        names = [e.az for e in self.endpoints]
        index = {az: i for i, az in enumerate(dict.fromkeys(names))}
        zones = np.array([index[az] for az in names], np.int32)
        room = np.bincount(zones)
        owners = self.sections.owners
        table = np.empty((len(owners), replicas), np.int32)
        counts = np.zeros(len(room), np.int64)
        done = kernels.hashring_replicas(owners, zones, room, counts, table)
        assert done == len(owners), "a node without sections"
        return table


def _sections_of(addresses: list[bytes]) -> Sections:
    offsets = np.cumsum([0, *map(len, addresses)], dtype=np.int64)
    text = np.zeros(max(map(len, addresses)) + 1 + _SECTION_DIGITS, np.uint8)
    positions = np.empty(len(addresses) * SECTIONS_PER_NODE, np.uint64)
    joined = np.frombuffer(b"".join(addresses), np.uint8)
    kernels.hashring_sections(joined, offsets, text, positions)
    # Stable: sections that collide stand in the order of their nodes.
    order = np.argsort(positions, kind="stable")
    owners = (order // SECTIONS_PER_NODE).astype(np.int32)
    return Sections(positions[order], owners)


def _buckets_of(positions: UInt64Array) -> Int32Array:
    """Return the first section of each slice of the ring, about one slice a section."""
    bits = max(1, len(positions).bit_length())
    starts = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
    first = np.searchsorted(positions, starts)
    return np.append(first, len(positions)).astype(np.int32)


def series_hashes(body: Uint8Array, tenant: bytes, label_bounds: Int64Array) -> UInt64Array:
    """Return the hash of each series of a request, by which rings place it.

    XXH64 of `tenant 0xFF name 0xFF value 0xFF …`, labels in the order they are in.

    Args:
        body: uint8[n]; a decoded remote-write 1.0 request.
        tenant: whose the series are; part of the hash.
        label_bounds: int64[n_series, 2] or flat; start and stop in the body, of either the content
            of each TimeSeries message or its run of label fields. The bounds that
            `remote_write_scan` writes serve as they are, those of scattered labels included.

    Returns:
        uint64[n_series].

    Raises:
        InvalidInput: if a range does not hold protobuf fields.
    """
    bounds = label_bounds.reshape(-1)
    n = len(bounds) // 2
    hashes = np.empty(n, np.uint64)
    if n == 0:
        return hashes
    # Scattered labels, whose start is negative, come out too long, which costs nothing.
    longest = int(np.max(bounds[1::2] - bounds[::2]))
    prefix = np.frombuffer(tenant + bytes([kernels.SEPARATOR]), np.uint8)
    packed = np.empty(len(prefix) + longest + kernels.PACKED_SLACK, np.uint8)
    if kernels.hashring_series_hashes(body, bounds, prefix, packed, hashes) < 0:
        raise InvalidInput("malformed write request: a label is no protobuf message")
    return hashes
