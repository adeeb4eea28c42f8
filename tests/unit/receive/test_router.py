"""Routing: what each node is sent, and what a sender is told when nodes say this or that."""

from __future__ import annotations

import asyncio
import functools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from thanostack.lib.foundation.errors import (
    InvalidInput,
    InvalidTenant,
    NoHashring,
    QuorumNotReached,
    ReplicasExhausted,
    SampleRejected,
)
from thanostack.lib.foundation.ids import Tenant
from thanostack.lib.hashring import series_hashes
from thanostack.lib.pb import prometheus_remote_pb2
from thanostack.lib.remotewrite import forward
from thanostack.lib.remotewrite.split import Part
from thanostack.receive import fan_out
from thanostack.receive.service import WriteService
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.http2_client import OK_END, CallEnd
from thanostack.testing.polling import eventually
from thanostack.testing.ring_nodes import Cluster
from thanostack.testing.write_storage import RememberingStorage, write_request, write_request_v2

NODES = [f"10.0.0.{n}:10901" for n in range(5)]
CONFLICT = CallEnd(GrpcCode.ALREADY_EXISTS, "refused: conflict: 1")
INVALID = CallEnd(GrpcCode.INVALID_ARGUMENT, "tenant name not valid")
LIMITED = CallEnd(GrpcCode.RESOURCE_EXHAUSTED, "series_max")
DOWN = CallEnd(GrpcCode.UNAVAILABLE, "cannot connect")
BUG = CallEnd(GrpcCode.INTERNAL, "oops")
SERIES = [({"__name__": "up", "pod": f"p{n}"}, [(n, float(n))]) for n in range(60)]
T = Tenant("t")


def array(body):
    return np.frombuffer(body, np.uint8)


async def write(cluster, *series, tenant=T, version=1, replica=0):
    body = (write_request if version == 1 else write_request_v2)(*(series or SERIES))
    return await cluster.router.write(tenant, array(body), version, replica)


def keys(*series, tenant="t"):
    return {(tenant, tuple(sorted(labels.items()))) for labels, _ in series or SERIES}


@pytest.mark.parametrize("algorithm", ["hashmod", "ketama"])
@pytest.mark.parametrize("factor", range(1, 6))
async def test_each_series_is_on_as_many_nodes_as_wanted(algorithm, factor):
    """Every one whole, none twice on a node, and the nodes share the work."""
    cluster = Cluster(NODES, algorithm=algorithm, replication_factor=factor)
    outcome = await write(cluster)
    await asyncio.sleep(0)
    copies = cluster.copies()
    assert outcome.error() is None
    assert keys() == set(copies)
    assert {factor} == {len(nodes) for nodes in copies.values()}
    assert all(node.stored for node in cluster.nodes.values())
    assert cluster.nodes[copies["t", (("__name__", "up"), ("pod", "p7"))][0]].stored[
        "t", (("__name__", "up"), ("pod", "p7"))
    ] == {7: 7.0}


async def test_the_placement_is_the_rings():
    """Replica n is where the ring says, in a request of its own that says n + 1."""
    cluster = Cluster(NODES, replication_factor=2)
    await write(cluster)
    for address, node in cluster.nodes.items():
        for request in node.requests:
            assert request.tenant == "t"
            assert request.replica in {1, 2}
            for series in request.timeseries:
                body = prometheus_remote_pb2.WriteRequest(timeseries=[_copy(series)])
                assert address == _node_of(cluster, body, request.replica - 1)


def _copy(series):
    return prometheus_remote_pb2.TimeSeries.FromString(series.SerializeToString())


def _node_of(cluster, body, replica):
    found = forward.scan(array(body.SerializeToString()))
    ring = cluster.rings.ring_of("t")
    placed = ring.place(series_hashes(found.body, b"t", found.bounds), 2)
    return ring.endpoints[placed[0, replica]].address


async def test_a_second_version_request_is_translated():
    """Nodes see 1.0, whole."""
    cluster = Cluster(NODES, replication_factor=3)
    outcome = await write(cluster, version=2)
    assert outcome.error() is None
    assert keys() == set(cluster.copies())
    assert sum(result.stored for result in outcome.results) == len(SERIES)


async def test_an_empty_request_is_sent_nowhere():
    """It is a success."""
    cluster = Cluster(NODES)
    outcome = await cluster.router.write(T, array(b""), 1)
    assert (outcome.error(), outcome.parts) == (None, [])
    assert [node.requests for node in cluster.nodes.values()] == [[]] * 5


async def test_tenants_are_split_by_label_and_sent_apart():
    """The label goes, and every message has one tenant: that is what every Thanos takes."""
    cluster = Cluster(NODES, replication_factor=2, split_label="team")
    await write(
        cluster,
        ({"__name__": "up", "team": "red"}, [(1, 1.0)]),
        ({"__name__": "up"}, [(1, 2.0)]),
    )
    labels = (("__name__", "up"),)
    assert {("red", labels), ("t", labels)} == set(cluster.copies())


@pytest.mark.parametrize("label", ["..", "a/b"])
async def test_a_bad_tenant_in_a_label_is_the_senders_fault(label):
    """Nothing is sent."""
    cluster = Cluster(NODES, split_label="team")
    with pytest.raises(InvalidTenant):
        await write(cluster, ({"__name__": "up", "team": label}, [(1, 1.0)]))
    assert cluster.copies() == {}


@pytest.mark.parametrize("body", [b"\x0a\x05abc", b"\x0a\x02\x0a\x7f", b"\xff"])
@pytest.mark.parametrize("version", [1, 2])
async def test_a_malformed_body_is_the_senders_fault(body, version):
    """At any level that is looked at."""
    if version == 2:
        body = b"\x2a\x02\x0a\x7f"
    with pytest.raises(InvalidInput):
        await Cluster(NODES).router.write(T, array(body), version)


async def test_a_tenant_without_a_ring_is_told_so():
    """As upstream, which answers 500."""
    cluster = Cluster(NODES)
    cluster.rings = cluster.parse([{"tenants": ["other"], "endpoints": NODES}])
    with pytest.raises(NoHashring):
        await write(cluster)


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ([OK_END, OK_END, DOWN], None),
        ([OK_END, CONFLICT, OK_END], None),
        ([OK_END, DOWN, DOWN], QuorumNotReached),
        ([BUG, BUG, OK_END], QuorumNotReached),
        ([CONFLICT, CONFLICT, OK_END], SampleRejected),
        ([CONFLICT, CONFLICT, DOWN], SampleRejected),
        ([CONFLICT, OK_END, DOWN], SampleRejected),
        ([INVALID, INVALID, INVALID], InvalidInput),
        ([LIMITED, LIMITED, OK_END], ReplicasExhausted),
        ([LIMITED, DOWN, OK_END], QuorumNotReached),
    ],
)
async def test_what_three_nodes_say_makes_the_answer(says, error):
    """The table of docs/decisions."""
    cluster = Cluster(NODES[:3], replication_factor=3)
    for node, end in zip(cluster.nodes.values(), says, strict=True):
        node.says = end
    outcome = await write(cluster)
    assert error is type(outcome.error()) or (error is None and outcome.error() is None)


async def test_a_bad_replica_of_a_peer_is_not_the_senders_fault():
    """Flags that contradict each other must not make a sender drop what it has."""
    cluster = Cluster(NODES[:1])
    text = "request replica exceeds receiver replication factor"
    cluster.nodes[NODES[0]].says = CallEnd(GrpcCode.INVALID_ARGUMENT, text)
    assert isinstance((await write(cluster)).error(), QuorumNotReached)


async def test_the_text_names_nodes_reasons_and_counts():
    """A sender's log then says what to look at."""
    cluster = Cluster(NODES[:3], replication_factor=3)
    cluster.nodes[NODES[0]].says = cluster.nodes[NODES[1]].says = DOWN
    text = str((await write(cluster)).error())
    assert "60 of 60 series are not on 2 of 3 replicas" in text
    assert f"{NODES[0]}: Unavailable: cannot connect (" in text
    assert f"{NODES[1]}: Unavailable" in text


async def test_a_silent_node_costs_nothing_once_there_is_a_quorum():
    """It is not waited for; its forwards go on until the timeout."""
    cluster = Cluster(NODES[:3], replication_factor=3, timeout_s=4)
    silent = cluster.nodes[NODES[2]]
    silent.says = None
    outcome = await write(cluster)
    assert outcome.error() is None
    assert silent.silent
    assert cluster.value("thanos_receive_forward_requests_total", result="error") == 0
    failed = functools.partial(cluster.value, "thanos_receive_forward_requests_total")
    await eventually(lambda: failed(result="error") == len(silent.silent), within_s=20)


async def test_a_timeout_is_a_reason_to_send_again():
    """Upstream answers 500."""
    cluster = Cluster(NODES[:3], replication_factor=3, timeout_s=0.05)
    for address in NODES[1:3]:
        cluster.nodes[address].says = None
    error = (await write(cluster)).error()
    assert isinstance(error, QuorumNotReached)
    assert "DeadlineExceeded: no answer within 0.05 s" in str(error)


async def test_a_node_that_is_down_is_not_asked_again_at_once():
    """The request is settled by the others without it."""
    cluster = Cluster(NODES[:3], replication_factor=3)
    dead = cluster.nodes[NODES[0]]
    dead.says = DOWN
    for _ in range(5):
        assert (await write(cluster)).error() is None
    assert len(dead.requests) == 3
    dead.says = OK_END
    await eventually(lambda: not cluster.peers.of(NODES[0]).is_down)
    await write(cluster)
    assert len(dead.requests) == 6


async def paused_node(**options):
    """Return a cluster of three whose first node is back, which its router cannot know."""
    cluster = Cluster(NODES[:3], replication_factor=3, **options)
    cluster.nodes[NODES[0]].says = DOWN
    assert (await write(cluster)).error() is None
    assert cluster.peers.of(NODES[0]).is_down
    cluster.nodes[NODES[0]].says = OK_END
    return cluster


@pytest.mark.parametrize("is_sloppy", [False, True])
async def test_a_node_that_is_back_is_tried_as_soon_as_another_is_down(is_sloppy):
    """A rolling restart: the next node goes a moment after the last one is ready."""
    cluster = await paused_node(is_sloppy=is_sloppy)
    cluster.nodes[NODES[1]].says = DOWN
    assert (await write(cluster)).error() is None
    assert (await write(cluster)).error() is None, "now two are believed to be down"
    assert len(cluster.nodes[NODES[0]].requests) == 9


async def test_a_node_that_is_back_is_tried_if_another_is_slow():
    """Not waited for until the timeout, when it would be too late."""
    cluster = await paused_node(timeout_s=20)
    cluster.nodes[NODES[1]].says = None
    begun = time.monotonic()
    assert (await write(cluster)).error() is None
    assert fan_out.PATIENCE_S <= time.monotonic() - begun < 10


async def test_nodes_that_stay_down_are_tried_once_a_request():
    """And the sender is told what they said."""
    cluster = await paused_node()
    cluster.nodes[NODES[0]].says = cluster.nodes[NODES[1]].says = DOWN
    assert "Unavailable: cannot connect" in str((await write(cluster)).error())
    assert len(cluster.nodes[NODES[0]].requests) == 6


async def test_large_bodies_are_taken_apart_in_a_thread():
    """With the same result."""
    pad = "x" * 1000
    series = [({"__name__": "up", "n": str(n), "pad": pad}, [(1, 1.0)]) for n in range(1500)]
    cluster = Cluster(NODES, replication_factor=2)
    assert (await write(cluster, *series)).error() is None
    assert keys(*series) == set(cluster.copies())


async def test_a_node_that_only_stores_gets_its_replicas_together():
    """Once it has said so; every series is then sent once a node, as before, in fewer messages."""
    cluster = Cluster(NODES[:3], replication_factor=3)
    told = CallEnd(GrpcCode.OK, role="IngestorOnly")
    for node in cluster.nodes.values():
        node.says = told
    await write(cluster)
    await asyncio.sleep(0)
    assert [len(node.requests) for node in cluster.nodes.values()] == [3, 3, 3]
    for n in range(2):
        series = [({**labels, "q": str(n)}, samples) for labels, samples in SERIES]
        assert (await write(cluster, *series)).error() is None
        await asyncio.sleep(0)
    assert [len(node.requests) for node in cluster.nodes.values()] == [5, 5, 5]
    sent = [len(node.requests[-1].timeseries) for node in cluster.nodes.values()]
    assert sent == [len(SERIES)] * 3
    cluster.nodes[NODES[0]].says = OK_END  # restarted as something else
    await write(cluster)
    await asyncio.sleep(0)
    await write(cluster)
    assert [len(node.requests) for node in cluster.nodes.values()] == [9, 7, 7]


async def test_joined_replicas_count_for_each_series():
    """Of five nodes two are down: without a quorum are the series that both should have."""
    cluster = Cluster(NODES, replication_factor=3)
    for node in cluster.nodes.values():
        node.says = CallEnd(GrpcCode.OK, role="IngestorOnly")
    await write(cluster)
    await asyncio.sleep(0)
    copies = cluster.rings.ring_of("t")
    for address in NODES[:2]:
        cluster.nodes[address].says = DOWN._replace(role="IngestorOnly")
    outcome = await write(cluster)
    found = forward.scan(array(write_request(*SERIES)))
    placed = copies.place(series_hashes(found.body, b"t", found.bounds), 3)
    names = np.array([endpoint.address for endpoint in copies.endpoints])[placed]
    on_both = np.isin(names, NODES[:2]).sum(1) == 2
    assert 0 < on_both.sum() < len(SERIES)
    assert f"{on_both.sum()} of 60 series are not on 2 of 3 replicas" in str(outcome.error())


# A router that stores its own share.


def ingesting(storage, **options):
    service = WriteService(storage, ThreadPoolExecutor(1))
    return Cluster(NODES[:3], local=service, local_endpoint=NODES[0], **options)


async def test_the_own_share_is_stored_without_a_message():
    """And it counts as any other."""
    storage = RememberingStorage()
    cluster = ingesting(storage, replication_factor=3)
    assert (await write(cluster)).error() is None
    await cluster.router.close()
    assert len(storage.opened["t"].series) == len(SERIES)
    assert cluster.nodes[NODES[0]].requests == []
    success = cluster.value("thanos_receive_replications_total", result="success")
    assert success == sum(len(node.requests) for node in cluster.nodes.values()) + 3


async def test_a_request_that_is_a_replica_goes_to_that_replicas_node_only():
    """One success is enough for it, and it is no replication."""
    storage = RememberingStorage()
    cluster = ingesting(storage, replication_factor=3)
    assert (await write(cluster, replica=2)).error() is None
    await cluster.router.close()
    elsewhere = [list(node.stored) for node in cluster.nodes.values()]
    here = len(storage.opened["t"].series)
    assert here + sum(map(len, elsewhere)) == len(SERIES)
    assert {2} == {request.replica for node in cluster.nodes.values() for request in node.requests}
    assert cluster.value("thanos_receive_replications_total", result="success") == 0


async def test_without_storage_a_replicas_number_lowers_no_quorum():
    """A router behind a router makes all replicas itself, and vouches for all of them."""
    cluster = Cluster(NODES[:3], replication_factor=3)
    for node in list(cluster.nodes.values())[1:]:
        node.says = DOWN
    assert isinstance((await write(cluster, replica=1)).error(), QuorumNotReached)
    assert cluster.value("thanos_receive_replications_total", result="success") == 3


async def test_a_replica_that_cannot_be_is_the_senders_fault():
    """Above the replication factor; a router without storage does not look at it, as upstream."""
    with pytest.raises(InvalidInput, match="replica exceeds"):
        await write(ingesting(RememberingStorage(), replication_factor=3), replica=4)
    assert (await write(Cluster(NODES, replication_factor=2), replica=4)).error() is None


async def test_what_storage_refuses_counts_as_a_nodes_refusal():
    """Here with one replica: conflict; and a bug of ours is worth another try."""
    storage = RememberingStorage()
    alone = {"local": WriteService(storage, ThreadPoolExecutor(1)), "local_endpoint": NODES[0]}
    cluster = Cluster(NODES[:1], **alone)
    await write(cluster)
    again = [(labels, [(t, value + 1)]) for labels, [(t, value)] in SERIES]
    assert isinstance((await write(cluster, *again)).error(), SampleRejected)
    storage.opened["t"].failure = RuntimeError("bug")
    assert isinstance((await write(cluster)).error(), QuorumNotReached)


async def test_stuck_storage_is_not_waited_for_longer_than_a_peer():
    """The timeout holds for it too."""

    class Stuck:
        async def write(self, *_):
            await asyncio.sleep(60)

    cluster = Cluster(NODES[:1], local=Stuck(), local_endpoint=NODES[0], timeout_s=0.05)
    assert isinstance((await write(cluster)).error(), QuorumNotReached)


async def test_several_tenants_are_one_request():
    """As forwarded by a router of ours or Thanos's."""
    cluster = Cluster(NODES, replication_factor=2)
    body = array(write_request(*SERIES))
    outcome = await cluster.router.write_parts([Part(b"a", body), Part(b"b", body)])
    assert outcome.error() is None
    assert keys(tenant="a") | keys(tenant="b") == set(cluster.copies())
    assert [(tenant, n) for tenant, n, _ in outcome.parts] == [("a", 60), ("b", 60)]


# Sloppy quorum.


async def test_without_it_a_dead_node_of_a_single_replica_is_a_refusal():
    """What the flag is for."""
    cluster = Cluster(NODES)
    cluster.nodes[NODES[0]].says = DOWN
    assert isinstance((await write(cluster)).error(), QuorumNotReached)


@pytest.mark.parametrize(("factor", "n_dead"), [(1, 1), (1, 3), (2, 2), (3, 2)])
async def test_a_dead_nodes_share_goes_to_the_next_ones(factor, n_dead):
    """Every series has all its copies, each on another node, and the request succeeds."""
    cluster = Cluster(NODES, replication_factor=factor, is_sloppy=True)
    for address in NODES[:n_dead]:
        cluster.nodes[address].says = DOWN
    for n in range(2):  # once learning that they are down, once knowing it
        series = [({**labels, "q": str(n)}, samples) for labels, samples in SERIES]
        assert (await write(cluster, *series)).error() is None
        await asyncio.sleep(0.01)
        copies = cluster.copies()
        wanted = min(factor, len(NODES) - n_dead)
        assert {len(copies[key]) for key in keys(*series)} == {wanted}
    assert cluster.value("thanostack_receive_handed_over_series_total") > 0


async def test_compressed_shares_are_handed_over_as_well():
    """They are made anew for the next node."""
    cluster = Cluster(NODES, is_sloppy=True, is_compressed=True)
    cluster.nodes[NODES[0]].says = DOWN
    assert (await write(cluster)).error() is None
    assert keys() == set(cluster.copies())


@pytest.mark.parametrize("is_compressed", [False, True])
async def test_small_requests_are_handed_over_whole(is_compressed):
    """Where several nodes get all of a request, each message is taken apart as it was made."""
    cluster = Cluster(NODES[:4], replication_factor=3, is_sloppy=True, is_compressed=is_compressed)
    for node in cluster.nodes.values():
        node.says = CallEnd(GrpcCode.OK, role="IngestorOnly")
    await write(cluster)
    await asyncio.sleep(0)
    cluster.nodes[NODES[3]].says = DOWN._replace(role="IngestorOnly")
    for n in range(40):
        series = [({"__name__": "s", "n": str(n), "x": "y" * k}, [(1, 1.0)]) for k in (1, 50, 9)]
        assert (await write(cluster, *series)).error() is None
        await asyncio.sleep(0.001)
        copies = cluster.copies()
        assert {3} == {len(copies[key]) for key in keys(*series)}


async def test_it_helps_only_as_long_as_there_are_nodes():
    """With all of them down the request is refused."""
    cluster = Cluster(NODES, replication_factor=2, is_sloppy=True)
    for node in cluster.nodes.values():
        node.says = DOWN
    assert isinstance((await write(cluster)).error(), QuorumNotReached)


async def test_a_silent_nodes_share_goes_to_the_next_ones_after_the_first_forward_in_vain():
    """Though writes are so rare that no connection was noticed to be gone."""
    cluster = Cluster(NODES, replication_factor=3, is_sloppy=True, timeout_s=0.1)
    cluster.nodes[NODES[0]].says = None
    await write(cluster)
    cluster.clock.advance(100)
    await eventually(lambda: cluster.peers.of(NODES[0]).is_down)
    series = [({**labels, "q": "1"}, samples) for labels, samples in SERIES]
    asked = len(cluster.nodes[NODES[0]].requests)
    assert (await write(cluster, *series)).error() is None
    await asyncio.sleep(0.01)
    copies = cluster.copies()
    assert {3} == {len(copies[key]) for key in keys(*series)}
    assert len(cluster.nodes[NODES[0]].requests) == asked


async def test_where_every_node_gets_everything_it_gets_all_in_one_message():
    """As many nodes as replicas, that all only store: nobody has to ask where series belong."""
    cluster = Cluster(NODES[:3], replication_factor=3)
    for node in cluster.nodes.values():
        node.says = CallEnd(GrpcCode.OK, role="IngestorOnly")
    await write(cluster)
    await asyncio.sleep(0)
    outcome = await write(cluster)
    await asyncio.sleep(0)
    assert outcome.error() is None
    assert outcome.results[0].stored == len(SERIES)
    first, *others = (node.requests[-1] for node in cluster.nodes.values())
    assert others == [first, first]
    assert (first.tenant, first.replica) == ("t", 1)
    sent = prometheus_remote_pb2.WriteRequest.FromString(write_request(*SERIES)).timeseries
    assert [s.SerializeToString() for s in first.timeseries] == [
        s.SerializeToString() for s in sent
    ]
