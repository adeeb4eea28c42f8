"""Hashrings by tenant, and what a configuration is refused or warned about for."""

import json

import numpy as np
import pytest

from thanostack.lib.foundation.errors import InvalidInput, NoHashring
from thanostack.lib.hashring import Endpoint, HashmodRing, Hashrings, KetamaRing, series_hashes
from thanostack.lib.hashring.config import dialled

HASHES = np.random.default_rng(3).integers(0, 2**64, 300, np.uint64)


def parsed(*rings, algorithm="ketama", replication_factor=1):
    return Hashrings.parse(
        json.dumps(rings), algorithm=algorithm, replication_factor=replication_factor
    )


def ring(*endpoints, **more):
    return {"endpoints": list(endpoints), **more}


def zoned(zones):
    return [{"address": f"n{i}:1", "az": az} for i, az in enumerate(zones)]


def shards(size, **more):
    return {"shuffle_sharding_config": {"shard_size": size, **more}}


def test_first_matching_ring_takes_a_tenant():
    """In order, exact or pattern; one without tenants takes all; asking again changes nothing."""
    rings = parsed(
        ring("a1", hashring="a", tenants=["team-a"]),
        ring("b1", hashring="b", tenants=["team-*"], tenant_matcher_type="glob"),
        ring("c1", hashring="c"),
        ring("d1", hashring="d", tenants=["other"]),
    )
    for _ in range(2):
        assert ["a", "b", "c"] == [rings.name_of(t) for t in ("team-a", "team-b", "other")]
    assert rings.ring_of("team-b") is rings.ring_of("team-c")


def test_no_ring_for_a_tenant_is_an_error_that_says_so():
    """Not a default: the sender keeps the data until the configuration is mended."""
    rings = parsed(ring("a1", tenants=["a"]))
    for ask in (rings.ring_of, rings.name_of):
        with pytest.raises(NoHashring, match="no matching hashring to handle tenant 'b'"):
            ask("b")


def test_algorithm_of_a_ring_overrides_the_flag():
    rings = parsed(ring("a1", tenants=["a"], algorithm="hashmod"), ring("b1"), algorithm="ketama")
    assert isinstance(rings.ring_of("a"), HashmodRing)
    assert isinstance(rings.ring_of("b"), KetamaRing)


def test_upstream_external_labels_go_by_literal_names():
    """Patterns and rings for all give none; the first ring that lists a tenant counts."""
    rings = parsed(
        ring("a1", tenants=["team-*"], tenant_matcher_type="glob", external_labels={"ring": "g"}),
        ring("b1", tenants=["team-a", "x"], external_labels={"ring": "b"}),
        ring("c1", tenants=["team-a"], external_labels={"ring": "c"}),
        ring("d1", external_labels={"ring": "d"}),
    )
    assert "" == rings.name_of("team-a")
    assert {"ring": "b"} == rings.external_labels_of("team-a")
    assert {"ring": "g"} == rings.external_labels_of("team-*")
    assert {} == rings.external_labels_of("team-b") == rings.external_labels_of("other")


def test_counts_and_addresses():
    rings = parsed(
        ring("a1", "a2", hashring="a", tenants=["x", "y", "z"]), ring("a1", hashring="b")
    )
    assert {"a": 2, "b": 1} == rings.node_counts
    assert {"a": 3, "b": 0} == rings.tenant_counts
    assert {"a1", "a2"} == rings.addresses


def test_endpoint_forms():
    """A text, or an object; the Cap'n Proto address is made from what stands before the colon."""
    rings = parsed(
        ring("n1:10901", {"address": "n2", "az": "a"}, {"address": "n3", "capnproto_address": "c"})
    )
    expected = [("n1:10901", "", "n1:19391"), ("n2", "a", "n2:19391"), ("n3", "", "c")]
    assert [Endpoint(*each) for each in expected] == list(rings.ring_of("t").endpoints)


def test_hashmod_sorts_addresses_by_bytes():
    endpoints = [Endpoint(a) for a in ("n2", "n10", "é", "N3", "z")]
    assert ["N3", "n10", "n2", "z", "é"] == [e.address for e in HashmodRing(endpoints).endpoints]


def test_order_of_endpoints_does_not_matter():
    """The same nodes hold the same series however the file lists them."""
    names = [f"n{i}" for i in range(7)]
    for algorithm in ("hashmod", "ketama"):
        placed = []
        for order in (names, names[::-1]):
            a_ring = parsed(ring(*order), algorithm=algorithm, replication_factor=3).ring_of("t")
            addresses = np.array([e.address for e in a_ring.endpoints])
            placed.append(addresses[a_ring.place(HASHES, 3)].tolist())
        assert placed[0] == placed[1]


def test_a_used_up_zone_is_not_waited_for():
    """Upstream never comes back from building this ring: one zone cannot give a second node."""
    a_ring = parsed(ring(*zoned("abbbb")), replication_factor=4).ring_of("t")
    rows = a_ring.place(HASHES, 4)
    assert [4] * len(rows) == [len(set(row)) for row in rows.tolist()]
    assert (rows == 0).any(axis=1).all()


def test_a_shard_is_cached_and_the_oldest_goes():
    rings = parsed(ring(*zoned("abcabc"), hashring="r", **shards(3, cache_size=2)))
    first = rings.ring_of("t1")
    assert first is rings.ring_of("t1")
    for tenant in ("t2", "t1", "t3", "t2"):
        rings.ring_of(tenant)
    cache = rings.shards["r"]
    assert (6, 2, 2, 2) == (cache.requests, cache.hits, cache.evicted, len(cache))
    assert first.endpoints == rings.ring_of("t1").endpoints


def test_shards_are_small_and_spread_over_zones():
    rings = parsed(ring(*zoned("aaabbbccc"), **shards(4)), replication_factor=3)
    seen = set()
    for i in range(40):
        a_ring = rings.ring_of(f"t{i}")
        assert ["a", "a", "b", "b", "c", "c"] == sorted(e.az for e in a_ring.endpoints)
        assert {"a", "b", "c"} == {a_ring.endpoints[n].az for n in a_ring.place(HASHES, 3)[0]}
        seen.add(frozenset(a_ring.endpoints))
    assert len(seen) > 15


def test_a_joining_node_changes_a_shard_by_one():
    zones = "abc" * 5
    small, large = (parsed(ring(*zoned(z), **shards(6))) for z in (zones, zones + "a"))
    changed = 0
    for i in range(60):
        before, after = (set(r.ring_of(f"t{i}").endpoints) for r in (small, large))
        assert len(before - after) <= 1
        changed += before != after
    assert 0 < changed < 40


def test_override_without_matcher_type_is_exact():
    """Upstream: it matches no tenant. One reasonable reading exists, so it is that, with a word."""
    config = shards(3, overrides=[{"shard_size": 6, "tenants": ["big"]}])
    rings = parsed(ring(*zoned("abcabc"), **config))
    assert (6, 3) == (len(rings.ring_of("big").endpoints), len(rings.ring_of("t").endpoints))
    where = "hashrings[0].shuffle_sharding_config.overrides[0]"
    said = f"{where}: no tenant_matcher_type, taken as exact; Thanos ignores it"
    assert [said] == list(rings.warnings)


def test_what_has_no_effect_is_warned_about():
    """Unknown keys as upstream takes them, and overrides of what is not sharded."""
    config = {"shuffle_sharding_config": {"overrides": [
        {"shard_size": 1, "tenants": ["t"], "tenant_matcher_type": "exact"}]}}  # fmt: skip
    rings = parsed(ring("n1:1", tenant=["t"], **config))
    assert [
        "hashrings[0].shuffle_sharding_config: overrides have no effect without a shard_size",
        "hashrings[0]: unknown field 'tenant' has no effect; did you mean 'tenants'?",
    ] == list(rings.warnings)


@pytest.mark.parametrize("address", ["n1", "http://n1:1", "dnssrv+_grpc._tcp.n1", " n1:1", "[::1]"])
def test_an_address_that_nobody_can_connect_to_is_warned_about(address):
    """It is in force, as upstream: this node itself may be called anything."""
    assert list(parsed(ring(address)).warnings) == [
        f"hashrings[0].endpoints[0]: {address!r} is no host:port: forwards to it will fail"
    ]


@pytest.mark.parametrize("address", ["n-1.a.svc:10901", "10.0.0.1:1", "[::1]:1", "dns:///n1:1"])
def test_an_address_is_host_and_port(address):
    """With or without a scheme of gRPC's that adds nothing."""
    assert parsed(ring(address)).warnings == ()
    assert dialled(address) == address.removeprefix("dns:///")
    assert parsed(ring(address)).addresses == {address}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[", "not JSON"),
        ("[]", "is empty"),
        ("null", "is empty"),
        ('{"endpoints": ["a"]}', "expected a list of hashrings"),
        ("[7]", r"hashrings\[0\]: expected an object, not 7"),
        ('[{"endpoints": "a"}]', r"hashrings\[0\].endpoints: expected a list, not \"a\""),
        ('[{"endpoints": ["a", 3]}]', r"hashrings\[0\].endpoints\[1\]: expected an object, not 3"),
        ('[{"endpoints": [{}]}]', r"hashrings\[0\].endpoints\[0\]: endpoint address must be set"),
        ('[{"endpoints": ["a"], "algorithm": "Ketma"}]', "unknown; did you mean 'ketama'"),
        ('[{"endpoints": ["a"], "algorithm": "x"}]', "unknown; use 'hashmod' or 'ketama'"),
        ('[{"endpoints": ["a"], "tenants": ["t"], "tenant_matcher_type": "regex"}]', "'glob'"),
        ('[{"endpoints": ["a"], "tenants": ["[t"], "tenant_matcher_type": "glob"}]', "malformed"),
        ('[{"endpoints": ["a", "a"], "hashring": "r"}]', "'r': endpoint a is listed twice"),
        ('[{"endpoints": ["a"], "shuffle_sharding_config": {"shard_size": true}}]', "whole number"),
        ('[{"endpoints": ["a"], "external_labels": {"x": 1}}]', "external_labels.x: expected"),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be_used(text, message):
    """The message says where, and what to do."""
    with pytest.raises(InvalidInput, match=message):
        Hashrings.parse(text)


@pytest.mark.parametrize(
    ("a_ring", "algorithm", "message"),
    [
        (ring("a", "b"), "ketama", "2 endpoints cannot hold 3 replicas"),
        (ring("a", "b"), "hashmod", "2 endpoints cannot hold 3 replicas"),
        (ring(*zoned("abc")), "hashmod", "hashmod does not support availability zones"),
        (ring("a", "b", "c", **shards(3)), "hashmod", "hashmod does not support shuffle sharding"),
        (ring("a", "b", "c", **shards(4)), "ketama", "shard size 4 is larger than number of nodes"),
        (
            ring("a", "b", "c", **shards(2)),
            "ketama",
            "2 nodes, fewer than the replication factor 3",
        ),
        (ring(*zoned("abbb"), **shards(4)), "ketama", r"nodes in AZ 'a' \(1\): it takes 2 of each"),
        (
            ring("a", "b", "c", **shards(3, overrides=[{"shard_size": 0}])),
            "ketama",
            "without nodes",
        ),
        (ring("a", "b", "c"), "katama", "receive.hashrings-algorithm: 'katama' is unknown"),
    ],
)
def test_rings_that_cannot_be_built(a_ring, algorithm, message):
    """Refused as a whole, so that the ring in use stays."""
    with pytest.raises(InvalidInput, match=message):
        parsed(a_ring, algorithm=algorithm, replication_factor=3)


def test_hashes_of_nothing_and_of_what_is_no_label():
    body = np.frombuffer(b"\x0a\x02\x0a\x05", np.uint8)
    assert 0 == len(series_hashes(body, b"t", np.empty((0, 2), np.int64)))
    with pytest.raises(InvalidInput, match="malformed write request"):
        series_hashes(body, b"t", np.array([[0, 4]], np.int64))
