"""The StoreAPI's promises: external labels, replica labels, order, shards, limits, Info."""

import itertools

import pytest

from thanostack.lib.foundation.errors import InvalidInput, InvalidMatcher, LimitExceeded
from thanostack.lib.model.label_runs import encode_run
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.pb import store_pb2
from thanostack.lib.storeapi.codec import decode_frames
from thanostack.lib.storeapi.info import TIME_MAX, parse_info
from thanostack.lib.storeapi.requests import (
    LabelRequest,
    SeriesRequest,
    Shard,
    encode_label_request,
    encode_series_request,
)
from thanostack.lib.storeapi.server import (
    LabeledStore,
    SelectLimits,
    StoreServer,
    UnreadableStore,
    external_run,
)
from thanostack.testing.memory_store import MemoryStore

EQ, NEQ, RE = MatchType.EQ, MatchType.NEQ, MatchType.RE
UP = Matcher(EQ, "__name__", "up")
SAMPLES = [(1000, 1.0), (2000, 2.0)]


def store(external, *series, **options):
    rows = [(labels, SAMPLES) for labels in series]
    return LabeledStore(external_run(external), MemoryStore(rows, **options))


def up(**labels):
    return {"__name__": "up", **labels}


def server(*stores, **options):
    return StoreServer(lambda: stores, **options)


def ask(target, *matchers, mint=0, maxt=5000, **options):
    request = SeriesRequest(tuple(matchers), mint, maxt, **options)
    frames = list(target.series(encode_series_request(request)))
    batch = decode_frames(frames).batch
    return [batch.labels.mapping(i) for i in range(len(batch))]


def names(target, *matchers, **options):
    request = LabelRequest("", tuple(matchers), 0, 5000, **options)
    answer = target.label_names(encode_label_request(request))
    return list(store_pb2.LabelNamesResponse.FromString(answer).names)


def values(target, label, *matchers, **options):
    request = LabelRequest(label, tuple(matchers), 0, 5000, **options)
    answer = target.label_values(encode_label_request(request))
    return list(store_pb2.LabelValuesResponse.FromString(answer).values)


def test_external_labels_are_merged_in_and_win():
    """A series' own label of an external name is hidden."""
    target = server(store({"region": "eu", "z": "1"}, up(a="1"), up(a="2", region="us")))
    expected = [up(a="1", region="eu", z="1"), up(a="2", region="eu", z="1")]
    assert expected == ask(target, UP)


def test_matchers_on_external_labels_are_settled():
    """They choose stores and never reach them."""
    left, right = store({"region": "eu"}, up(a="1")), store({"region": "us"}, up(a="2"))
    target = server(left, right)
    assert [up(a="2", region="us")] == ask(target, UP, Matcher(RE, "region", "u."))
    assert [up(a="1", region="eu")] == ask(target, UP, Matcher(NEQ, "region", "us"))
    assert ask(target, UP, Matcher(EQ, "region", "asia")) == []
    assert all(query.matchers == (UP,) for query in left.store.queries)


def test_only_external_matchers_are_refused():
    """Upstream refuses what would select a whole store."""
    target = server(store({"region": "eu"}, up()))
    with pytest.raises(
        InvalidInput, match=r"^no matchers specified \(excluding external labels\)$"
    ):
        ask(target, Matcher(EQ, "region", "eu"))


def test_order_holds_after_external_labels():
    """A series that is a prefix of others moves behind them; the answer is sorted all the same."""
    target = server(store({"z": "1"}, up(), up(a="1"), up(b="2"), batch_size=1))
    assert [up(a="1", z="1"), up(b="2", z="1"), up(z="1")] == ask(target, UP)


def test_replica_labels_are_removed_and_series_join():
    """External and own replica labels go; equal series become one with all chunks once."""
    target = server(
        store({"replica": "a"}, up(host="1"), up(host="2", rep="x")),
        store({"replica": "b"}, up(host="1"), up(host="2", rep="y")),
    )
    request = SeriesRequest((UP,), 0, 5000, without_replica_labels=("replica", "rep"))
    batch = target.select(request)
    found = [batch.labels.mapping(i) for i in range(len(batch))]
    assert [up(host="1"), up(host="2")] == found
    # The replicas hold the same bytes.
    assert batch.chunk_offsets.tolist() == [0, 1, 2]


def test_stores_are_merged_in_order():
    """Series of several stores come in one ascending stream."""
    target = server(
        store({"tenant": "b"}, *(up(a=str(i)) for i in range(5))),
        store({"tenant": "a"}, *(up(a=str(i)) for i in range(5))),
    )
    expected = [up(a=str(i), tenant=t) for i in range(5) for t in "ab"]
    assert expected == ask(target, UP, batch_size=3)


def test_time_range_limits_and_labels_only():
    """Chunks outside are not there; `limit` cuts series; `skip_chunks` sends labels alone."""
    target = server(store({"x": "1"}, *(up(a=str(i)) for i in range(5))))
    assert ask(target, UP, mint=2001) == []
    assert [up(a="0", x="1"), up(a="1", x="1")] == ask(target, UP, limit=2)
    request = SeriesRequest((UP,), 0, 5000, skip_chunks=True)
    batch = target.select(request)
    assert (len(batch), len(batch.chunks)) == (5, 0)


def test_limit_holds_over_shards_and_joined_series():
    """The cap counts what leaves, not what a store sends."""
    series = [up(a=str(i), rep=r) for i in range(5) for r in "xy"]
    target = server(store({"e": "1"}, *series))
    kept = ask(target, UP, limit=3, without_replica_labels=("rep",))
    assert [up(a=str(i), e="1") for i in range(3)] == kept


def test_shards_divide_series():
    """Every series belongs to exactly one shard."""
    target = server(store({"e": "1"}, *(up(a=str(i), b=str(i % 3)) for i in range(20))))
    shards = [ask(target, UP, shard=Shard(i, 3, by=True, labels=("b",))) for i in range(3)]
    assert sum(map(len, shards)) == 20
    assert sorted(map(str, ask(target, UP))) == sorted(map(str, itertools.chain(*shards)))
    for shard in shards:
        others = [label["b"] for other in shards if other is not shard for label in other]
        assert not {labels["b"] for labels in shard} & set(others)


def test_select_limits():
    """A call that would return too much is refused, naming the flag."""
    target = server(store({"e": "1"}, up(a="1"), up(a="2"), up(a="3")), limits=SelectLimits(2, 0))
    with pytest.raises(LimitExceeded, match=r"store\.limits\.request-series"):
        ask(target, UP)
    target = server(store({"e": "1"}, up(a="1"), up(a="2")), limits=SelectLimits(0, 120))
    with pytest.raises(LimitExceeded, match=r"store\.limits\.request-samples"):
        ask(target, UP)


def test_label_names():
    """External names belong to whatever has series; replica labels can be hidden."""
    target = server(store({"region": "eu", "replica": "a"}, up(a="1"), {"__name__": "x", "b": "1"}))
    assert names(target) == ["__name__", "a", "b", "region", "replica"]
    assert names(target, UP, without_replica_labels=("replica",)) == ["__name__", "a", "region"]
    assert names(target, Matcher(EQ, "region", "us")) == []
    assert names(target, Matcher(EQ, "__name__", "nothing")) == []
    assert names(target, limit=2) == ["__name__", "a"]


def test_label_values():
    """External labels have one value, where anything matches."""
    target = server(
        store({"region": "eu"}, up(a="1"), up(a="2")), store({"region": "us"}, up(a="3"))
    )
    assert values(target, "a") == ["1", "2", "3"]
    assert values(target, "region") == ["eu", "us"]
    assert values(target, "region", Matcher(EQ, "a", "3")) == ["us"]
    assert values(target, "region", Matcher(EQ, "region", "eu")) == ["eu"]
    assert values(target, "a", limit=1) == ["1"]
    assert values(target, "region", without_replica_labels=("region",)) == []
    assert values(target, "missing") == []


@pytest.mark.parametrize("limit", [-1, -(2**63), 2**63 - 1])
def test_a_limit_that_bounds_nothing(limit):
    """Below zero is none, as upstream reads it; and more than there is."""
    target = server(store({"region": "eu"}, up(a="1"), up(a="2")))
    assert len(ask(target, UP, limit=limit)) == 2
    assert names(target, limit=limit) == ["__name__", "a", "region"]
    assert values(target, "a", limit=limit) == ["1", "2"]


def test_label_values_need_a_name():
    """The text is upstream's."""
    with pytest.raises(InvalidInput, match=r"^label name parameter cannot be empty$"):
        server().label_values(store_pb2.LabelValuesRequest(label="").SerializeToString())


def test_requests_that_cannot_be_read():
    """Malformed bytes and expressions are the caller's fault."""
    with pytest.raises(InvalidInput, match=r"malformed SeriesRequest"):
        list(server().series(b"\xff"))
    bad = store_pb2.SeriesRequest(matchers=[{"type": 2, "name": "a", "value": "("}])
    with pytest.raises(InvalidMatcher):
        list(server().series(bad.SerializeToString()))


def test_info_tells_labels_times_and_abilities():
    """An open-ended store announces no end; one without samples begins at the end of time."""
    empty = LabeledStore(encode_run({"tenant": "b"}), MemoryStore([]))
    info = parse_info(server(store({"tenant": "a"}, up()), empty).info())
    assert info.component == "receive"
    assert info.label_sets == (((b"tenant", b"a"),), ((b"tenant", b"b"),))
    assert (info.mint, info.maxt) == (1000, TIME_MAX)
    assert [(t.mint, t.maxt) for t in info.tsdbs] == [(1000, TIME_MAX), (TIME_MAX, TIME_MAX)]
    assert info.has_store
    assert info.supports_sharding
    assert info.supports_without_replica_labels


def test_info_of_finished_stores():
    """A store that takes no more samples says where it ends."""
    info = parse_info(server(store({"t": "a"}, up()), open_ended=False, component="store").info())
    assert (info.component, info.mint, info.maxt) == ("store", 1000, 2000)


def test_a_store_that_cannot_be_read_is_told_to_whom_it_concerns():
    """A warning beside what the others hold; who asks for another tenant hears nothing."""
    lost = LabeledStore(external_run({"tenant": "b"}), UnreadableStore(), "b is missing")
    target = server(store({"tenant": "a"}, up()), lost)
    for matcher, rows, texts in (
        (UP, 1, ("b is missing",)),
        (Matcher(EQ, "tenant", "b"), 0, ("b is missing",)),
        (Matcher(NEQ, "tenant", "b"), 1, ()),
    ):
        request = SeriesRequest((UP, matcher), 0, 5000)
        decoded = decode_frames(list(target.series(encode_series_request(request))))
        assert (len(decoded.batch), decoded.warnings) == (rows, texts)
        asked = [LabelRequest(name, (UP, matcher), 0, 5000) for name in ("tenant", "")]
        ask_values, ask_names = map(encode_label_request, asked)
        values = store_pb2.LabelValuesResponse.FromString(target.label_values(ask_values))
        names = store_pb2.LabelNamesResponse.FromString(target.label_names(ask_names))
        assert tuple(values.warnings) == tuple(names.warnings) == texts
        assert list(values.values) == ["a"] * rows


def test_who_asks_for_another_time_hears_nothing_of_a_store_that_cannot_be_read():
    """Its bounds are inclusive, and what many lack is said once."""
    lost = [
        LabeledStore(external_run({"tenant": "b"}), UnreadableStore(mint, mint + 999), "missing")
        for mint in (1000, 2000)
    ]
    target = server(store({"tenant": "a"}, up()), *lost)
    for mint, maxt, texts in ((0, 999, ()), (0, 1000, ("missing",)), (1999, 5000, ("missing",)),
                              (3000, 9000, ())):  # fmt: skip
        request = encode_series_request(SeriesRequest((UP,), mint, maxt))
        assert decode_frames(list(target.series(request))).warnings == texts
        names = target.label_names(encode_label_request(LabelRequest("", (UP,), mint, maxt)))
        assert tuple(store_pb2.LabelNamesResponse.FromString(names).warnings) == texts


def test_a_store_that_cannot_be_read_is_asked_for_anything():
    """Info tells its labels and all of time, or queriers would not ask and not hear."""
    lost = LabeledStore(external_run({"tenant": "b"}), UnreadableStore(), "b is missing")
    info = parse_info(server(store({"tenant": "a"}, up()), lost).info())
    assert info.may_hold((Matcher(EQ, "tenant", "b"),), 0, 1)
