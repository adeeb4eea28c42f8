"""The community's command lines with our program in place of theirs, there and back.

    sender ──> router ──> ingestor-0, -1, -2 (each also a router)  <── query

kube-thanos's manifests, word for word but for what one machine forces: addresses, folders, what
Kubernetes fills in, three ingestors and three copies instead of one of each, and no store gateway.
The same words and folders are run by the real Thanos, by ours, and by the real Thanos again.

The real Thanos has been seen to drop up to two samples when it flushes its heads in its own stop.
They are counted, and may not be more.
"""

import contextlib
import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from thanostack.runtime.check_config import COMPONENTS
from thanostack.runtime.thanos_commands import find_commands
from thanostack.testing import held_samples
from thanostack.testing.bodies import request_body
from thanostack.testing.ports import free_port
from thanostack.testing.processes import peer_program, running, thanostack, until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]
MANIFESTS = Path(__file__).parents[1] / "data/manifests/kube-thanos.yaml"
PODS = [f"thanos-receive-ingestor-default-{n}" for n in range(3)]
DOMAIN = "thanos-receive-ingestor-default.thanos:10901"
SERIES, ROUNDS = 60, 150
NEWS_S = 6
PAUSE_S = 0.05
QUORUM = 2
REAL_DROPS_MAX = 2


class Words:
    """Command lines of the manifests, made to run side by side on this machine."""

    def __init__(self, folder):
        self.folder = folder
        text = MANIFESTS.read_text()
        commands = find_commands(text, "kube-thanos", COMPONENTS)
        self._words = dict(
            zip(("router", "ingestor", "query"), (c.words for c in commands), strict=True)
        )
        self.ports = {
            (name, port): free_port()
            for name in ("router", "query", *PODS)
            for port in (9090, 10901, 10902, 19291, 19391)
        }
        ring = [{"endpoints": [self._at(pod, 10901) for pod in PODS], "hashring": "default"}]
        (folder / "hashrings.json").write_text(json.dumps([{**ring[0], "tenants": []}]))

    def _at(self, name, port):
        return f"127.0.0.1:{self.ports[name, port]}"

    def of(self, name):
        """Return the words of one container, for every program the same."""
        words = self._words["ingestor" if name in PODS else name]
        return [adapted for word in words for adapted in self._adapted(name, word)]

    def _adapted(self, name, word):
        if word.startswith("--endpoint="):
            if "store" in word:  # there is no store gateway
                return []
            return [f"--endpoint={self._at(pod, 10901)}" for pod in PODS]
        if word == "receive":
            # All containers share one address here; upstream takes this port without being told to.
            return [word, f"--receive.capnproto-address={self._at(name, 19391)}"]
        word = word.replace("$(NAME)", name).replace("$(NAMESPACE)", "thanos")
        word = word.replace(f"{name}.{DOMAIN}", self._at(name, 10901))
        for port in (9090, 10901, 10902, 19291):
            word = word.replace(f"0.0.0.0:{port}", self._at(name, port))
        word = word.replace("/var/lib/thanos-receive", str(self.folder))
        word = word.replace("/var/thanos/receive", str(self.folder / name))
        return [word.replace("replication-factor=1", "replication-factor=3")]

    def run(self, program, name):
        """Run one container by a program."""
        where = {
            "http_port": self.ports[name, 9090 if name == "query" else 10902],
            "grpc_port": self.ports[name, 10901],
            "write_port": self.ports[name, 19291],
        }
        # A router of Thanos makes its empty data folder where it stands.
        command = ["env", "-C", str(self.folder), *program, *self.of(name)]
        return running(f"{program[0]} {name}", command, self.folder / f"{name}.log", **where)


class Sender:
    """Sends rounds of samples, each request once; anything but 2xx fails."""

    def __init__(self):
        self.start = (int(time.time()) - 900) * 1000
        self.rounds = 0
        self._source = random.Random(5)

    def send(self, server):
        """Send and return what was acknowledged."""
        acknowledged = []
        for _ in range(ROUNDS):
            t = self.start + self.rounds * 1000
            self.rounds += 1
            series = [
                ({"__name__": f"swapped_{n % 3}", "n": str(n)}, [(t, self._source.gauss(n, 1))])
                for n in range(SERIES)
            ]
            server.send([request_body(series)])
            acknowledged += series
            time.sleep(PAUSE_S)
        return held_samples.of_written(acknowledged)


@contextlib.contextmanager
def system(words, program):
    """Run all five containers by one program; yield the router and the querier."""
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(words.run(program, name))
            for name in (*PODS, "router", "query")
        }
        for server in servers.values():
            server.wait_ready()
        until("ingestors", lambda: knows_all(servers["query"]))
        yield servers["router"], servers["query"]


def knows_all(querier):
    stores = querier.api("stores").get("receive", ())
    return len(stores) == len(PODS) and not any(store["lastError"] for store in stores)


def stored(querier):
    """Return what each ingestor holds, once a querier, who hears of news every 5 s, has it all."""
    seen, since = None, 0.0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = stored_now(querier)
        if found != seen:
            seen, since = found, time.monotonic()
        elif all(found.values()) and time.monotonic() - since > NEWS_S:
            return found
        time.sleep(0.5)
    raise TimeoutError("the querier's answers do not settle")


def stored_now(querier):
    """Return what each ingestor holds, by its replica label."""
    query = '{__name__=~"swapped_.+"}[2h]'
    held = held_samples.of_query(querier, query, time.time() + 5, dedup="false")
    by_pod = {pod: {} for pod in PODS}
    for labels, samples in held.items():
        by_pod[dict(labels)["replica"]][labels] = samples
    return {
        pod: held_samples.without(found, "replica", "tenant_id", "receive")
        for pod, found in by_pod.items()
    }


def merged(*parts):
    result = {}
    for held in parts:
        for labels, samples in held.items():
            result.setdefault(labels, {}).update(samples)
    return result


def check(sent, held, what):
    """Check that nothing is there that nobody sent; return how many samples have too few copies.

    An acknowledged sample is on a quorum of the ingestors; the last one gets it as well, unless the
    next sample of the series overtook it on the way.
    """
    for pod, found in held.items():
        assert held_samples.missing(found, sent) == [], f"{what}: invented in {pod}"
    copies = Counter(
        (labels, t) for found in held.values() for labels, times in found.items() for t in times
    )
    n_short = sum(copies[labels, t] < QUORUM for labels, times in sent.items() for t in times)
    sizes = [held_samples.size(held[pod]) for pod in PODS]
    print(
        f"{what}: {held_samples.size(sent)} acknowledged, {sizes} in the ingestors, "
        f"{n_short} on fewer than {QUORUM}"
    )
    return n_short


def test_there_and_back(tmp_path):
    """Every acknowledged sample is there after each swap, none is invented, both queriers agree.

    The exception is what the real Thanos drops in its own stop, of what it had: it is counted. What
    we acknowledged or took over is all there, in each ingestor.
    """
    words, sender = Words(tmp_path), Sender()
    real, ours = [str(peer_program("thanos"))], thanostack()

    with system(words, real) as (router, querier):
        first = sender.send(router)
        left = stored(querier)
        assert check(first, left, "Thanos") == 0

    with system(words, ours) as (router, querier):
        taken_over = stored(querier)
        n_lost = check(first, taken_over, "ours, after Thanos has stopped")
        for pod in PODS:
            dropped = held_samples.size(left[pod]) - held_samples.size(taken_over[pod])
            print(f"{pod}: Thanos dropped {dropped} samples in its stop")
            assert dropped <= REAL_DROPS_MAX
        second = sender.send(router)
        before = stored(querier)
        assert check(merged(first, second), before, "ours") == n_lost
        for pod in PODS:
            assert held_samples.missing(taken_over[pod], before[pod]) == []

    with system(words, real) as (router, querier):
        after = stored(querier)
        assert check(merged(first, second), after, "Thanos, after ours has stopped") == n_lost
        for pod in PODS:
            assert held_samples.differences(before[pod], after[pod]) == []
        third = sender.send(router)
        at_theirs = stored(querier)
        everything = merged(first, second, third)
        assert check(everything, at_theirs, "Thanos again") == n_lost
        querier.stop()
        with words.run(ours, "query") as our_querier:
            our_querier.wait_ready()
            assert stored(our_querier) == at_theirs
