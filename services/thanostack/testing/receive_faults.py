"""What breaks a receive cluster, and the clusters that can be broken so.

A fault chooses its victim and its moments from the run's randomness. One node is down at a time, so
that a quorum lives throughout; where two are, routers may write elsewhere (sloppy quorum).

A fault follows at once upon the former: a node that is ready is up, whatever the routers believe. A
node behind a link that is mended is up when it takes writes again, as retransmissions have pauses;
one that was drained, when nobody has older samples than it has cut into a block.

Some faults need a place of their own for their victim, see `Place` and `hostile_places`. What they
cost is counted by `receive_trial`.
"""

from __future__ import annotations

import contextlib
import json
import random
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from thanostack.testing.held_samples import missing
from thanostack.testing.hostile_places import Link, SmallDisk, network_of_its_own, small_disk
from thanostack.testing.processes import until
from thanostack.testing.receive_cluster import (
    REPLICATION_FACTOR,
    Cluster,
    Node,
    Place,
    Topology,
    running_cluster,
)
from thanostack.testing.receive_trial import Fault, Trial
from thanostack.testing.write_senders import Senders

_DISK_MIB: Final = 64
LATE_S: Final = 2.0
"""By how much the answers of a late ingestor are late."""

Started = tuple[Cluster, Mapping[str, Fault]]
"""A cluster that runs, and what can be done to it."""


def kill_ingestor(trial: Trial) -> None:
    """`kill -9`, writes and reads without it, and a new life in the same directory."""
    victim = trial.victim()
    victim.server.kill()
    trial.pause(0.2, 2)
    trial.check_now()
    victim.restart()


def kill_two_ingestors(trial: Trial) -> None:
    """`kill -9` of two: series that had both have one replica left, and no quorum without spares.

    What only those two have is not readable meanwhile, so that nothing is read here.
    """
    victims = trial.source.sample(trial.cluster.ring, 2)
    for victim in victims:
        victim.server.kill()
        trial.pause(0, 0.3)
    trial.pause(0.5, 2)
    for victim in victims:
        victim.restart()


def kill_node(trial: Trial) -> None:
    """`kill -9` of a router that is an ingestor; its clients go to the others."""
    victim = trial.victim()
    trial.cluster.kill_router(victim)
    trial.pause(0.2, 2)
    trial.check_now()
    trial.cluster.revive_router(victim)


def kill_router(trial: Trial) -> None:
    """`kill -9`; its clients go to the other one."""
    victim = trial.source.choice(trial.cluster.routers)
    trial.cluster.kill_router(victim)
    trial.pause(0.2, 1)
    trial.cluster.revive_router(victim)


def restart_router(trial: Trial) -> None:
    """SIGTERM; the Service goes on sending it connections for a moment."""
    _restart_router(trial, trial.source.choice(trial.cluster.routers))


def restart_ingestor(trial: Trial) -> None:
    """SIGTERM, and a new life as soon as the old one has ended."""
    victim = trial.victim()
    victim.server.stop()
    victim.restart()


def slow_ingestor(trial: Trial) -> None:
    """A peer that accepts and does not answer, for less or more than the forward timeout."""
    victim = trial.victim()
    victim.pause()
    try:
        trial.pause(1, 8)
    finally:
        victim.resume()


def late_ingestor(trial: Trial) -> None:
    """A peer whose every byte comes late, and does come: writes do not wait for it.

    Raises:
        AssertionError: if one took as long as that.
    """
    relays = [node.relay for node in trial.cluster.ring if node.relay]
    before = trial.senders.mark()
    for relay in relays:
        relay.set_delay(LATE_S)
    try:
        trial.pause(LATE_S + 0.5, LATE_S + 3)
        trial.senders.await_writes(3)
    finally:
        for relay in relays:
            relay.set_delay(0)
    writes = trial.senders.between(before, trial.senders.mark())
    waits_s = (write.ended_s - write.begun_s for write in writes)
    late = [f"{wait_s:.2f} s" for wait_s in waits_s if wait_s >= LATE_S]
    assert relays, "no ingestor of the ring is behind a relay"
    # A machine that stands still holds up one write of each sender; a router that waits, most.
    n_senders = len(trial.senders.senders)
    assert len(late) <= n_senders, f"writes waited for an ingestor {LATE_S:g} s late: {late}"


def rolling_restart(trial: Trial) -> None:
    """Every ingestor and every router is restarted, the next one when the last one is ready."""
    for node in trial.cluster.ring:
        node.server.stop()
        node.restart()
    for router in trial.cluster.routers:
        _restart_router(trial, router)


def rolling_restart_of_nodes(trial: Trial) -> None:
    """The same where every router is an ingestor."""
    for node in trial.cluster.routers:
        _restart_router(trial, node)


def grow(trial: Trial) -> None:
    """Two ingestors more; for a while the routers have different rings."""
    trial.cluster.resize(5, trial.source.uniform(0, 1))
    trial.pause(0.5, 1)


def shrink(trial: Trial) -> None:
    """Two ingestors less; what they hold stays readable."""
    trial.cluster.resize(3, trial.source.uniform(0, 1))
    trial.pause(0.5, 1)


def drain(trial: Trial) -> None:
    """An ingestor leaves the ring, is drained and stopped, and comes back, as an operator does it.

    It is drained as soon as the routers know, without waiting for what is still on its way to it.
    What it has stays readable, in its blocks, and is there again when it comes back.
    """
    cluster = trial.cluster
    victim, size = cluster.ring[-1], cluster.ring_size
    assert size > REPLICATION_FACTOR, "no ingestor can leave this ring"
    own = until("samples of the ingestor", lambda: trial.held(victim), 30)
    cluster.resize(size - 1, trial.source.uniform(0, 1))
    newest_ms = trial.senders.newest_ms
    _ask_drain(victim, "POST")
    until("a drained ingestor", lambda: _ask_drain(victim, "GET")["state"] == "drained", 30)
    # Not at once only where the querier's patience ended on a machine that stood still.
    until("what the drained ingestor had", lambda: not missing(own, trial.held(victim)), 5)
    victim.server.stop()
    trial.pause(0.2, 1)
    trial.check_now()
    victim.start()
    until("an end of the drain", lambda: _ask_drain(victim, "DELETE"), 30)
    victim.server.wait_ready()
    cluster.resize(size, trial.source.uniform(0, 1))
    until("samples newer than the block", lambda: trial.senders.passed_ms > newest_ms, 30)
    until("all that it had before", lambda: not missing(own, trial.held(victim)), 30)


def _ask_drain(node: Node, method: str) -> Any:
    """Return what an ingestor says to a request for its drain."""
    request = urllib.request.Request(f"{node.server.url}/-/drain", method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def black_hole(link: Link, victim: int) -> Fault:
    """Return a fault: packets to and from an ingestor vanish, for less or more than the timeout."""

    def fault(trial: Trial) -> None:
        link.black_hole()
        try:
            trial.pause(1, 7)
            trial.check_now()
        finally:
            link.heal()
        _await_appended(trial.cluster.ingestors[victim])

    return fault


def flapping_link(link: Link, victim: int) -> Fault:
    """Return a fault: the way to an ingestor is there and not there, in turn."""

    def fault(trial: Trial) -> None:
        try:
            for _ in range(5):
                link.black_hole()
                trial.pause(0.1, 1)
                link.heal()
                trial.pause(0.1, 0.5)
        finally:
            link.heal()
        _await_appended(trial.cluster.ingestors[victim])

    return fault


def full_disk(disk: SmallDisk, victim: int) -> Fault:
    """Return a fault: an ingestor's disk has no byte left, then has space again."""

    def fault(trial: Trial) -> None:
        node = trial.cluster.ingestors[victim]
        disk.fill()
        try:
            until("a full disk", lambda: _stands_still(node, trial.senders), 20)
            trial.pause(0.5, 3)
            trial.check_now()
        finally:
            disk.free()
        _await_appended(node)

    return fault


def _stands_still(node: Node, senders: Senders) -> bool:
    """Return whether a node stores nothing of what is written."""
    before = node.appended()
    senders.await_writes(3)
    return node.appended() == before


def _await_appended(node: Node) -> None:
    """Wait until a node has stored more than now.

    Raises:
        TimeoutError: if it does not within half a minute.
    """
    before = node.appended()
    until(f"{node.name} to take writes again", lambda: node.appended() > before, 30)


def _restart_router(trial: Trial, router: Node) -> None:
    router.server.process.terminate()
    trial.pause(0, 0.5)
    trial.cluster.service.remove(router.name)
    router.server.process.wait(60)
    trial.cluster.revive_router(router)


_PLAIN: Final[Mapping[str, Fault]] = {
    "kill-ingestor": kill_ingestor,
    "kill-router": kill_router,
    "restart-ingestor": restart_ingestor,
    "restart-router": restart_router,
    "slow-ingestor": slow_ingestor,
    "late-ingestor": late_ingestor,
    "rolling-restart": rolling_restart,
    "drain": drain,
    "grow": grow,
    "shrink": shrink,
}
SLOPPY: Final = "--receive.sloppy-quorum"
SLOPPY_FAULTS: Final[Mapping[str, Fault]] = {
    "kill-ingestor": kill_ingestor,
    "kill-two": kill_two_ingestors,
    "kill-router": kill_router,
    "slow-ingestor": slow_ingestor,
    "rolling-restart": rolling_restart,
    "grow": grow,
    "shrink": shrink,
}
_NODES: Final[Mapping[str, Fault]] = {
    "kill-node": kill_node,
    "restart-node": restart_router,
    "slow-node": slow_ingestor,
    "rolling-restart": rolling_restart_of_nodes,
}
# Three replicas need three nodes, and two more for a quorum without two of those.
_IMPOSSIBLE: Final = {3: {"shrink", "drain", "kill-two"}, 5: {"grow"}}
_PLACES: Final = (Place(is_relayed=True), *[Place()] * 4)


def drawn(
    source: random.Random, ring_size: int, faults: Mapping[str, Fault]
) -> list[tuple[str, Fault]]:
    """Return three to five faults in a row; a ring of three can only grow, one of five shrink."""
    chosen = []
    for _ in range(source.randint(3, 5)):
        name = source.choice([name for name in faults if name not in _IMPOSSIBLE[ring_size]])
        if name in {"grow", "shrink"}:
            ring_size = 8 - ring_size
        chosen.append((name, faults[name]))
    return chosen


@contextlib.contextmanager
def plain_cluster(folder: Path, ring_size: int = 3) -> Iterator[Started]:
    """Run five ingestors that are processes as any other, and yield them with their faults."""
    with running_cluster(folder, Topology(_PLACES, ring_size)) as cluster:
        yield cluster, _PLAIN


@contextlib.contextmanager
def sloppy_cluster(folder: Path, ring_size: int = 5) -> Iterator[Started]:
    """Run the same behind routers that write to the next node while one is down."""
    topology = Topology(_PLACES, ring_size, router_flags=(SLOPPY,))
    with running_cluster(folder, topology) as cluster:
        yield cluster, SLOPPY_FAULTS


@contextlib.contextmanager
def node_cluster(folder: Path, ring_size: int = 3) -> Iterator[Started]:
    """Run nodes that are routers and ingestors both."""
    topology = Topology([Place()] * ring_size, ring_size, n_routers=0)
    with running_cluster(folder, topology) as cluster:
        yield cluster, _NODES


@contextlib.contextmanager
def hostile_cluster(folder: Path, ring_size: int = 3) -> Iterator[Started]:
    """Run five ingestors, one behind a link that can be cut, one on a disk that can be filled.

    Raises:
        NotPossibleHere: without root, `ip` or `mount`.
    """
    with network_of_its_own() as link, small_disk(folder / "disk", _DISK_MIB) as disk:
        places = list(_PLACES)
        places[1] = Place(link.host, link.prefix)
        places[2] = Place(folder=disk.folder / "ingestor-2")
        with running_cluster(folder, Topology(places, ring_size)) as cluster:
            yield (
                cluster,
                {
                    **_PLAIN,
                    "black-hole": black_hole(link, 1),
                    "flapping-link": flapping_link(link, 1),
                    "full-disk": full_disk(disk, 2),
                },
            )


CLUSTERS: Final[Mapping[str, Callable[[Path, int], AbstractContextManager[Started]]]] = {
    "plain": plain_cluster,
    "sloppy": sloppy_cluster,
    "nodes": node_cluster,
    "hostile": hostile_cluster,
}
"""By name; each takes a folder and how many ingestors are in the ring at first."""
