"""A write request as messages for the nodes of a ring: bytes in, bytes out, no sample decoded.

    body ──scan──> Scan ──hash and place──> placement ──shares_of──> Share ──message──> bytes

    message   flag 0 · length · [1 TimeSeries]* · 2 tenant · 3 replica

A share is what one node gets as one replica of one tenant. Its message is gRPC's, prefix included,
in the form that every Thanos takes: one tenant in fields 1 to 3. (Releases up to v0.42 do not know
field 4, several tenants in one message; they would answer OK and store nothing.)

Source: Thanos `pkg/store/storepb/rpc.proto` (WriteRequest), `pkg/receive/handler.go`.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Final, NamedTuple

import cramjam
import numpy as np
import numpy.typing as npt

from thanostack.lib.foundation.errors import InvalidInput, LimitExceeded
from thanostack.lib.kernels import remote_write_forward as kernels
from thanostack.lib.kernels import remote_write_scan as scan_kernels
from thanostack.lib.model.label_runs import Int64Array, Uint8Array, uvarint
from thanostack.lib.remotewrite.split import count_series

Int32Array = npt.NDArray[np.int32]

SERIES_MAX: Final = 500_000
TRANSLATED_BYTES_MAX: Final = 256 << 20
SAMPLES, HISTOGRAMS, EXEMPLARS = kernels.SAMPLES, kernels.HISTOGRAMS, kernels.EXEMPLARS
_PREFIX: Final = struct.Struct(">BI")
PREFIX_BYTES: Final = _PREFIX.size


class Scan(NamedTuple):
    """Where the series of a request lie.

    Args:
        body: uint8[n]; a 1.0 request.
        starts: int64[n_series]; where each entry begins, tag included.
        bounds: int64[n_series, 2]; start and stop of each TimeSeries message; an entry stops there.
        counts: int32[n_series, 3]; samples, histograms and exemplars of each.
        totals: the sums of those.
    """

    body: Uint8Array
    starts: Int64Array
    bounds: Int64Array
    counts: Int32Array
    totals: tuple[int, ...]

    @property
    def n_series(self) -> int:
        """Return how many series there are."""
        return len(self.starts)

    @property
    def sizes(self) -> Int64Array:
        """Return the bytes of each entry: int64[n_series]."""
        sizes: Int64Array = self.bounds[:, 1] - self.starts
        return sizes


class Share(NamedTuple):
    """What one node gets as one replica.

    Args:
        node: index in the ring.
        replica: from 0; 0 where all replicas of a node are joined.
        series: int32[k]; numbers of its series, rising within a replica.
        size: bytes of their entries.
    """

    node: int
    replica: int
    series: Int32Array
    size: int


def scan(body: Uint8Array) -> Scan:
    """Find the series of a 1.0 request.

    Raises:
        InvalidInput: if it is malformed.
        LimitExceeded: above SERIES_MAX.
    """
    n = count_series(body)
    if n > SERIES_MAX:
        raise LimitExceeded("series_limit", SERIES_MAX, n)
    starts, bounds = np.empty(n, np.int64), np.empty((n, 2), np.int64)
    counts = np.empty((n, 3), np.int32)
    totals = np.empty(3, np.int64)
    found = int(kernels.forward_scan(body, starts, bounds.reshape(-1), counts.reshape(-1), totals))
    if found != n:
        raise InvalidInput("malformed write request: a series is no protobuf message")
    return Scan(body, starts, bounds, counts, tuple(totals.tolist()))


def translate(body: Uint8Array) -> Uint8Array:
    """Return a 2.0 request as a 1.0 one; metadata and start timestamps have no place there.

    Raises:
        InvalidInput: if it is malformed, or refers to a symbol that it does not have.
        LimitExceeded: if it expands to more than TRANSLATED_BYTES_MAX.
    """
    symbols = _symbols_of(body)
    room = 4 * len(body) + 64
    while True:
        out = np.empty(room, np.uint8)
        written = int(kernels.forward_translate(body, symbols, out))
        if written >= 0:
            return out[:written]
        if written == kernels.BAD_SYMBOL:
            raise InvalidInput("malformed write request: a label refers to no symbol")
        if written != kernels.OUT_FULL:
            raise InvalidInput("malformed write request: not a remote write 2.0 message")
        if room >= TRANSLATED_BYTES_MAX:
            raise LimitExceeded("size_bytes_limit", TRANSLATED_BYTES_MAX, room)
        room = min(4 * room, TRANSLATED_BYTES_MAX)


def _symbols_of(body: Uint8Array) -> Int64Array:
    room = 1024
    while True:
        symbols = np.empty(2 * room, np.int64)
        n = int(scan_kernels.remote_write_symbols(body, symbols))
        if n >= 0:
            return symbols[: 2 * n]
        if n != scan_kernels.SERIES_FULL or room > len(body):
            raise InvalidInput("malformed write request: not a remote write 2.0 message")
        room *= 8


def shares_of(
    found: Scan, placement: Int32Array, n_nodes: int, joined: Collection[int] = ()
) -> list[Share]:
    """Return what each node gets, a share for each replica it holds; empty ones are left out.

    Args:
        found: the series.
        placement: int32[n_series, replicas]; nodes, all different in a row.
        n_nodes: of the ring.
        joined: nodes that get all their replicas as one share, of replica 0.

    Cost: two passes over the placement.
    """
    replicas = placement.shape[1]
    groups = np.empty(n_nodes * replicas * kernels.GROUP_WIDTH, np.int64)
    order = np.empty(placement.size, np.int32)
    kernels.forward_group(
        placement.reshape(-1), replicas, n_nodes, found.starts, found.bounds.reshape(-1),
        groups, order,
    )  # fmt: skip
    rows: list[list[list[int]]] = groups.reshape(n_nodes, replicas, -1).tolist()
    shares = []
    for node, of_node in enumerate(rows):
        if node in joined:
            of_node = [[of_node[0][0], *map(sum, zip(*(row[1:] for row in of_node), strict=True))]]
        shares += [
            Share(node, replica, order[first : first + count], size)
            for replica, (first, count, size) in enumerate(of_node)
            if count
        ]
    return shares


def trailer(tenant: bytes, replica: int) -> bytes:
    r"""Return the fields behind the series of a WriteRequest.

    Args:
        tenant: whose they are.
        replica: from 0; the wire counts from 1, and 0 there means not replicated.

    Example:
        >>> trailer(b"a", 0)
        b'\x12\x01a\x18\x01'
    """
    return b"\x12" + uvarint(len(tenant)) + tenant + b"\x18" + uvarint(replica + 1)


def message(found: Scan, share: Share, end: bytes) -> Uint8Array:
    """Return the gRPC message of a share, its prefix included; a fresh array.

    Args:
        found: the series.
        share: which of them.
        end: of `trailer`.
    """
    out = np.empty(PREFIX_BYTES + share.size + len(end), np.uint8)
    _PREFIX.pack_into(out.data, 0, 0, len(out) - PREFIX_BYTES)
    at = gather(found, share.series, out, PREFIX_BYTES)
    out[at:] = np.frombuffer(end, np.uint8)
    return out


def compressed(plain: Uint8Array) -> Uint8Array:
    """Return a message with its content compressed, as snappy's framed stream."""
    packed = bytes(cramjam.snappy.compress(plain[PREFIX_BYTES:].data))
    return np.frombuffer(_PREFIX.pack(1, len(packed)) + packed, np.uint8)


def plain_message(content: Uint8Array) -> Uint8Array:
    """Return a message of ours uncompressed."""
    if not content[0]:
        return content
    plain = bytes(cramjam.snappy.decompress(content[PREFIX_BYTES:].data))
    return np.frombuffer(_PREFIX.pack(0, len(plain)) + plain, np.uint8)


def rescan(content: Uint8Array, sizes: Int64Array, offset: int) -> Scan:
    """Return where the series of a message of ours lie, or of a plain body.

    Args:
        content: uint8[n]; entries one behind the other, from `offset` on.
        sizes: int64[k]; bytes of each.
        offset: `PREFIX_BYTES` in a message, 0 in a body.

    Returns:
        The scan of the k series without their counts; `bounds` start where the entries do.
    """
    stops = offset + np.cumsum(sizes)
    starts = stops - sizes
    return Scan(content, starts, np.stack([starts, stops], 1), np.zeros((0, 3), np.int32), ())


def gather(found: Scan, series: Int32Array, out: Uint8Array, at: int = 0) -> int:
    """Copy the entries of some series to `out[at:]`, which has room; return where they end."""
    return int(
        kernels.forward_gather(found.body, found.starts, found.bounds.reshape(-1), series, out, at)
    )
