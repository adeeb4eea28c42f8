"""Where a request's series belong, and getting them there: the routing half of `receive`.

    request ──[2.0 → 1.0]──[split label]──> per tenant: scan → hash → place → shares
        share of another node ──message──> its peer        share of this node ──body──> storage

A share goes to its node as a message of its own, numbered by replica, as upstream's do; a node that
said that it only stores gets all its replicas in one, as the number means nothing to it. A request
that is a replica already goes to that replica's node only.

*Sloppy quorum*, if asked for: the share of a node that is down goes to the next nodes of the ring,
each series to the first one behind its own replicas, and counts as if its own node had taken it.

Invariant: a series is never counted twice on one node: each hand-over takes the next spare node.

Source: Thanos `pkg/receive/handler.go` (handleRequest, distributeTimeseriesToReplicas).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import count
from typing import Final, NamedTuple, Protocol

import numpy as np

from thanostack.lib.foundation.errors import InvalidInput, ThanostackError
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.hashring import Hashrings, Ring, series_hashes
from thanostack.lib.model.label_runs import Uint8Array
from thanostack.lib.remotewrite import forward
from thanostack.lib.remotewrite.forward import Int32Array, Scan, Share
from thanostack.lib.remotewrite.negotiation import Version
from thanostack.lib.remotewrite.split import Part, split_by_label
from thanostack.lib.tenancy.names import tenant_of_bytes
from thanostack.lib.tsdb.options import WriteResult
from thanostack.receive.fan_out import Cancellable, FanOut
from thanostack.receive.peers import NOT_TRIED, Peers
from thanostack.receive.quorum import Quorum, quorum_of
from thanostack.receive.routing_metrics import RoutingMetrics
from thanostack.receive.service import INLINE_BYTES_MAX, Outcome
from thanostack.runtime.error_mapping import GrpcCode, error_text, grpc_code
from thanostack.runtime.http2_client import OK_END, CallEnd, OnEnd

_SPARES_MIN: Final = 3


class LocalWriter(Protocol):
    """This node's own storage."""

    async def write(self, tenant: Tenant, body: Uint8Array, version: Version) -> Outcome:
        """Write a request and return what happened."""


@dataclass(frozen=True)
class RouterOptions:
    """How requests are routed.

    Args:
        replication_factor: copies of each series.
        timeout_s: of a request's forwards; `--receive-forward-timeout`.
        local_endpoint: this node's address in the ring; empty if it stores nothing.
        split_label: label whose value is the tenant; empty for none.
        is_sloppy: whether the share of a node that is down goes to the next one.
        is_compressed: whether messages are compressed with snappy.
    """

    replication_factor: int = 1
    timeout_s: float = 5.0
    local_endpoint: str = ""
    split_label: str = ""
    is_sloppy: bool = False
    is_compressed: bool = False


class _Plan(NamedTuple):
    """What holds for a request from its beginning to its end.

    Args:
        rings: the hashrings in force when it came.
        columns: replicas that are made of it.
        joining: addresses of peers that take several replicas in one message.
    """

    rings: Hashrings
    columns: range
    joining: frozenset[str]


@dataclass(eq=False)
class _Batch:
    """One tenant's series of a request.

    Args:
        tenant: whose they are.
        first: number of its first series among all series of the request.
        found: where they lie.
        ring: their nodes.
        placement: int32[n, replicas and spares].
        shares: what each node gets, with its message, or the plain body for this node.
        used_spares: int32[n]; how many spare nodes each series was handed to.
    """

    tenant: Tenant
    first: int
    found: Scan
    ring: Ring
    placement: Int32Array
    shares: list[tuple[Share, Uint8Array]] = field(default_factory=list)
    used_spares: Int32Array = field(init=False)

    def __post_init__(self) -> None:
        self.used_spares = np.zeros(self.found.n_series, np.int32)


class Router:
    """Sends each series of a request to the nodes of its tenant's hashring.

    Args:
        rings: returns the configuration in force; raises Unavailable if there is none.
        peers: the other receivers.
        options: see `RouterOptions`.
        pool: where large bodies are taken apart.
        metrics: told about what is written here and handed over.
        local: this node's storage, if it has any.
    """

    def __init__(
        self,
        rings: Callable[[], Hashrings],
        peers: Peers,
        options: RouterOptions,
        *,
        pool: Executor,
        metrics: RoutingMetrics,
        local: LocalWriter | None = None,
    ) -> None:
        self._rings, self._peers, self._options = rings, peers, options
        self._pool, self._metrics, self._local = pool, metrics, local
        self._keys = count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(
        self, tenant: Tenant, body: Uint8Array, version: Version, replica: int = 0
    ) -> Outcome:
        """Route one decoded request; return when its fate is settled.

        Args:
            tenant: of series without the split label.
            body: uint8[n]; free again when this returns.
            version: of remote write.
            replica: number from 1 of a request that is a replica already; 0 for others.

        Raises:
            InvalidInput: if the body is malformed, or there is no such replica.
            LimitExceeded: if it has, or expands to, too much.
            NoHashring: if no ring takes a tenant.
            Unavailable: if no ring is loaded yet.
        """
        return await self.write_parts([Part(tenant.encode(), body)], replica, version=version)

    def write_now(self, tenant: Tenant, body: Uint8Array, version: Version) -> None:
        """Return None: other nodes are waited for."""

    async def write_parts(
        self, parts: Sequence[Part], replica: int = 0, *, version: Version = 1
    ) -> Outcome:
        """Route the series of several tenants as one request; otherwise as `write`."""
        if not self._options.local_endpoint:
            # Upstream: where routers store nothing a replica's number says nothing either.
            replica = 0
        plan = _Plan(self._rings(), self._columns(replica), self._peers.joining())
        if sum(len(part.body) for part in parts) <= INLINE_BYTES_MAX:
            batches = self._prepare(parts, version, plan)
        else:
            batches = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._prepare, parts, version, plan
            )
        if not batches:
            return Outcome()
        n_series = batches[-1].first + batches[-1].found.n_series
        n_replicas = len(plan.columns)
        quorum = Quorum(n_series, n_replicas, 1 if replica else quorum_of(n_replicas))
        fan_out = FanOut(quorum, self._options.timeout_s)
        for batch in batches:
            for share, content in batch.shares:
                self._send(fan_out, batch, share, content, is_replication=not replica)
        verdict = await fan_out.settled
        return _outcome(batches, quorum, fan_out.error(verdict))

    async def close(self) -> None:
        """Wait for what is being written here; peers are closed by whoever made them."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    def _columns(self, replica: int) -> range:
        if not replica:
            return range(self._options.replication_factor)
        if replica > self._options.replication_factor:
            raise InvalidInput("request replica exceeds receiver replication factor")
        return range(replica - 1, replica)

    # Pure work on bytes; may run in a thread.

    def _prepare(self, parts: Sequence[Part], version: Version, plan: _Plan) -> list[_Batch]:
        batches: list[_Batch] = []
        first = 0
        for name, body in self._tenants_of(parts, version):
            found = forward.scan(body)
            if not found.n_series:
                continue
            batch = self._placed(tenant_of_bytes(name), first, found, plan)
            first += found.n_series
            batches.append(batch)
        return batches

    def _tenants_of(self, parts: Sequence[Part], version: Version) -> Sequence[Part]:
        if version == 2:
            parts = [Part(part.tenant, forward.translate(part.body)) for part in parts]
        label = self._options.split_label.encode()
        if not label:
            return parts
        bodies: dict[bytes, list[Uint8Array]] = {}
        for part in parts:
            for split in split_by_label(part.body, label):
                bodies.setdefault(split.tenant or part.tenant, []).append(split.body)
        return [Part(tenant, np.concatenate(found)) for tenant, found in bodies.items()]

    def _placed(self, tenant: Tenant, first: int, found: Scan, plan: _Plan) -> _Batch:
        ring, columns = plan.rings.ring_of(tenant), plan.columns
        joined = [n for n, e in enumerate(ring.endpoints) if e.address in plan.joining]
        if len(joined) == len(ring.endpoints) == len(columns):
            return self._everywhere(tenant, first, found, ring)
        hashes = series_hashes(found.body, tenant.encode(), found.bounds)
        wanted = columns.stop
        if self._options.is_sloppy and len(columns) == self._options.replication_factor:
            wanted = min(wanted + max(wanted, _SPARES_MIN), len(ring.endpoints))
        placement = ring.place(hashes, wanted)[:, columns.start :]
        batch = _Batch(tenant, first, found, ring, placement)
        own = np.ascontiguousarray(placement[:, : len(columns)])
        whole: dict[tuple[int, bool], Uint8Array] = {}
        for share in forward.shares_of(found, own, len(ring.endpoints), joined):
            share = share._replace(replica=share.replica + columns.start)
            if len(share.series) == found.n_series:
                share = share._replace(series=np.arange(found.n_series, dtype=np.int32))
                content = self._whole(batch, found, share, whole)
            else:
                content = self._content(batch, found, share)
            batch.shares.append((share, content))
        return batch

    def _everywhere(self, tenant: Tenant, first: int, found: Scan, ring: Ring) -> _Batch:
        """Return a batch whose nodes all get all series: as many as replicas, and all joining.

        Where each series belongs is not looked at, as it changes nothing; there are no spares.
        """
        n_nodes = len(ring.endpoints)
        batch = _Batch(tenant, first, found, ring, np.empty((found.n_series, n_nodes), np.int32))
        everything = np.arange(found.n_series, dtype=np.int32)
        share = Share(0, 0, everything, int(found.sizes.sum()))
        content = self._content(batch, found, share)
        batch.shares += [(share._replace(node=node), content) for node in range(n_nodes)]
        return batch

    def _whole(
        self, batch: _Batch, found: Scan, share: Share, made: dict[tuple[int, bool], Uint8Array]
    ) -> Uint8Array:
        """Return the content of a share that has all series, in their order; made once for all."""
        key = (share.replica, self._is_local(batch, share.node))
        if key not in made:
            made[key] = self._content(batch, found, share)
        return made[key]

    def _content(self, batch: _Batch, found: Scan, share: Share) -> Uint8Array:
        """Return what the node of a share is sent; the entries alone if it is this one."""
        if self._is_local(batch, share.node):
            body = np.empty(share.size, np.uint8)
            forward.gather(found, share.series, body)
            return body
        end = forward.trailer(batch.tenant.encode(), share.replica)
        message = forward.message(found, share, end)
        return forward.compressed(message) if self._options.is_compressed else message

    def _is_local(self, batch: _Batch, node: int) -> bool:
        endpoint, local = batch.ring.endpoints[node], self._options.local_endpoint
        return bool(local) and local in (endpoint.address, endpoint.capnproto_address)

    # On the loop.

    def _send(
        self, fan_out: FanOut, batch: _Batch, share: Share, content: Uint8Array,
        *, is_replication: bool, must_try: bool = False,
    ) -> None:  # fmt: skip
        key, address = next(self._keys), batch.ring.endpoints[share.node].address

        def ended(end: CallEnd) -> None:
            fan_out.ended(key)
            if end.code is GrpcCode.UNAVAILABLE and self._options.is_sloppy and is_replication:
                self._hand_over(fan_out, batch, share, content, end)
            elif end is NOT_TRIED:
                fan_out.postpone(share.series, batch.first, address, end, again)
            else:
                fan_out.answer(share.series, batch.first, address, end)

        def again() -> None:
            self._send(fan_out, batch, share, content, is_replication=is_replication, must_try=True)

        opened: Cancellable
        if self._is_local(batch, share.node):
            opened = _LocalForward(ended)
            work = self._write_here(batch.tenant, content, opened, is_replication=is_replication)
            task = asyncio.ensure_future(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            opened = self._peers.of(address).forward(
                content.data, ended, is_replication=is_replication, must_try=must_try,
                n_series=len(share.series), settled=fan_out.settled,
            )  # fmt: skip
        fan_out.begun(key, opened)

    def _hand_over(
        self, fan_out: FanOut, batch: _Batch, share: Share, content: Uint8Array, end: CallEnd
    ) -> None:
        """Send a share that its node did not take to the next spare node of each series."""
        spares = batch.placement[share.series, self._options.replication_factor :]
        used = batch.used_spares[share.series]
        has_spare = used < spares.shape[1]
        if not has_spare.all():
            rest = np.flatnonzero(~has_spare).astype(np.int32)
            self._give_up(fan_out, batch, *self._part(batch, share, content, rest, share.node), end)
        picked = np.flatnonzero(has_spare).astype(np.int32)
        batch.used_spares[share.series[picked]] += 1
        nodes = spares[picked, used[picked]]
        self._metrics.handed_over.inc(len(picked))
        for node in sorted(set(nodes.tolist())):
            part = self._part(batch, share, content, picked[nodes == node], node)
            self._send(fan_out, batch, *part, is_replication=True)

    def _part(
        self, batch: _Batch, share: Share, content: Uint8Array, picked: Int32Array, node: int
    ) -> tuple[Share, Uint8Array]:
        """Return some series of a share, by their positions in it, as a share of a node."""
        offset = 0
        if not self._is_local(batch, share.node):
            content, offset = forward.plain_message(content), forward.PREFIX_BYTES
        found = forward.rescan(content, batch.found.sizes[share.series], offset)
        inner = Share(node, share.replica, picked, int(found.sizes[picked].sum()))
        content_there = self._content(batch, found, inner)
        return inner._replace(series=share.series[picked]), content_there

    def _give_up(
        self, fan_out: FanOut, batch: _Batch, share: Share, content: Uint8Array, end: CallEnd
    ) -> None:
        """Take that nobody else can have a share; its node is tried if that was not done."""
        address = batch.ring.endpoints[share.node].address
        if end is not NOT_TRIED:
            fan_out.answer(share.series, batch.first, address, end)
            return

        def attempt() -> None:
            self._send(fan_out, batch, share, content, is_replication=True, must_try=True)

        fan_out.postpone(share.series, batch.first, address, end, attempt)

    async def _write_here(
        self, tenant: Tenant, body: Uint8Array, opened: _LocalForward, *, is_replication: bool
    ) -> None:
        assert self._local is not None
        error: Exception | None
        try:
            error = (await self._local.write(tenant, body, 1)).error()
        except Exception as failure:  # an answer is waited for, whatever happened
            error = failure
        end = OK_END if error is None else CallEnd(grpc_code(error), error_text(error))
        self._metrics.count(end.code, is_replication=is_replication)
        opened.cancel(end)


class _LocalForward:
    """A share that is written here: it cannot be taken back, but need not be waited for."""

    def __init__(self, on_end: OnEnd) -> None:
        self._on_end: OnEnd | None = on_end

    def cancel(self, end: CallEnd) -> None:
        """End it with what is given, the first time."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(end)


def _outcome(batches: Sequence[_Batch], quorum: Quorum, failure: ThanostackError | None) -> Outcome:
    outcome = Outcome(failure=failure)
    for batch in batches:
        found = batch.found
        kept = found.totals
        if failure is not None:
            is_stored = quorum.stored[batch.first : batch.first + found.n_series]
            kept = tuple(found.counts[is_stored].sum(0).tolist())
        result = WriteResult(
            samples=found.totals[forward.SAMPLES],
            stored=kept[forward.SAMPLES],
            histograms=kept[forward.HISTOGRAMS],
            exemplars=found.totals[forward.EXEMPLARS],
        )
        outcome.parts.append((batch.tenant, found.n_series, result))
    return outcome
