"""Write requests taken apart: by tenant field, by tuples, by label."""

from __future__ import annotations

import numpy as np
import pytest

from thanostack.lib.foundation.errors import InvalidInput, LimitExceeded
from thanostack.lib.pb import prometheus_remote_pb2, remote_write_v2_pb2, store_pb2
from thanostack.lib.remotewrite import split
from thanostack.lib.remotewrite.split import count_series, fields_of, split_by_label, tenants_of
from thanostack.testing.write_storage import write_request, write_request_v2


def as_array(data):
    return np.frombuffer(data, np.uint8)


def series_of(body):
    request = prometheus_remote_pb2.WriteRequest.FromString(body.tobytes())
    return [
        ({label.name: label.value for label in series.labels}, series.samples[0].value)
        for series in request.timeseries
    ]


def fill(target, *names):
    for value, name in enumerate(names):
        series = target.add()
        series.labels.add(name="__name__", value=name)
        series.samples.add(timestamp=1, value=value)


def test_series_are_counted_in_both_versions():
    """Only fields that are series count."""
    pairs = [({"a": str(i)}, [(1, 1.0)]) for i in range(50)]
    assert count_series(as_array(write_request(*pairs)), 1) == 50
    assert count_series(as_array(write_request_v2(*pairs)), 2) == 50
    assert count_series(as_array(b"\x1a\x02\x08\x01"), 1) == 0
    assert count_series(as_array(b""), 1) == 0


def test_an_old_request_is_one_range_of_bytes():
    """Fields 1 to 3: the tenant's series are a view of the request, not a copy."""
    request = store_pb2.WriteRequest(tenant="a", replica=3)
    fill(request.timeseries, "x", "y")
    data = as_array(request.SerializeToString())
    (part,) = tenants_of(data)
    assert part.tenant == b"a"
    assert series_of(part.body) == [({"__name__": "x"}, 0), ({"__name__": "y"}, 1)]
    assert part.body.base is not None
    assert np.shares_memory(part.body, data)


def test_a_new_request_has_many_tenants():
    """Field 4, also beside field 1, also the same tenant twice; empty tuples are nobody's."""
    request = store_pb2.WriteRequest(tenant="a")
    fill(request.timeseries, "x")
    for tenant, names in (("b", ["p", "q"]), ("a", ["y"]), ("c", [])):
        entry = request.timeseriesTenantData.add(tenant=tenant)
        fill(entry.timeseries, *names)
    parts = {
        part.tenant: series_of(part.body)
        for part in tenants_of(as_array(request.SerializeToString()))
    }
    assert parts == {
        b"a": [({"__name__": "x"}, 0), ({"__name__": "y"}, 0)],
        b"b": [({"__name__": "p"}, 0), ({"__name__": "q"}, 1)],
    }


def test_interleaved_fields_are_joined():
    """An encoder may put fields in any order; runs are put together."""
    one, two = write_request(({"a": "1"}, [(1, 1.0)])), write_request(({"a": "2"}, [(1, 2.0)]))
    (part,) = tenants_of(as_array(one + b"\x12\x01t" + two + b"\x18\x05"))
    assert (part.tenant, series_of(part.body)) == (b"t", [({"a": "1"}, 1), ({"a": "2"}, 2)])


def test_more_fields_than_the_first_room_are_read():
    """Room grows with the message, up to a bound."""
    data = as_array(b"\x0a\x00\x18\x01" * 40)
    assert len(fields_of(data, 1)) == 80


def test_fields_are_bounded(monkeypatch):
    """A message of nothing but tiny fields is refused."""
    monkeypatch.setattr(split, "FIELDS_MAX", 50)
    with pytest.raises(LimitExceeded, match="fields_limit"):
        fields_of(as_array(b"\x0a\x00\x18\x01" * 40), 1)


@pytest.mark.parametrize("data", [b"\x0a\x05a", b"\x0b", b"\x22\x02\x0a\x09", b"\xff" * 20])
def test_malformed_requests_are_invalid_input(data):
    """At the top level and inside a tenant's tuple."""
    with pytest.raises(InvalidInput):
        tenants_of(as_array(data))


def test_splitting_keeps_order_and_removes_the_label():
    """Parts come in order of appearance, series within them too."""
    body = write_request(
        ({"a": "1", "team": "red"}, [(1, 1.0)]),
        ({"a": "2"}, [(1, 2.0)]),
        ({"team": "blue", "z": "3"}, [(1, 3.0)]),
        ({"team": "red"}, [(1, 4.0)]),
        ({"a": "5", "team": ""}, [(1, 5.0)]),
    )
    parts = [
        (part.tenant, series_of(part.body)) for part in split_by_label(as_array(body), b"team")
    ]
    assert parts == [
        (b"red", [({"a": "1"}, 1), ({}, 4)]),
        (b"", [({"a": "2"}, 2), ({"a": "5"}, 5)]),
        (b"blue", [({"z": "3"}, 3)]),
    ]


def test_an_empty_request_has_no_parts():
    """Metadata alone is nobody's."""
    assert split_by_label(as_array(b"\x1a\x00"), b"team") == []


def test_splitting_is_bounded(monkeypatch):
    """Too many series or tenants in one request are a limit, not memory."""
    body = as_array(write_request(*[({"team": str(i)}, [(1, 1.0)]) for i in range(40)]))
    monkeypatch.setattr(split, "SPLIT_TENANTS_MAX", 10)
    with pytest.raises(LimitExceeded, match="split_tenants_limit"):
        split_by_label(body, b"team")
    monkeypatch.setattr(split, "SPLIT_SERIES_MAX", 10)
    with pytest.raises(LimitExceeded, match="series_limit"):
        split_by_label(body, b"team")


def test_version_2_is_split_with_its_symbols():
    """Parts keep all symbols; a reference beyond them is left for storage to refuse."""
    request = remote_write_v2_pb2.Request(symbols=["", "a", "1", "team", "red"])
    for refs in ([1, 2, 3, 4], [1, 2], [3, 0], [3, 9], [3]):
        request.timeseries.add(labels_refs=refs)
    parts = split_by_label(as_array(request.SerializeToString()), b"team", 2)
    decoded = {
        part.tenant: remote_write_v2_pb2.Request.FromString(part.body.tobytes()) for part in parts
    }
    refs = {
        tenant: [list(series.labels_refs) for series in group.timeseries]
        for tenant, group in decoded.items()
    }
    assert refs == {b"red": [[1, 2]], b"": [[1, 2], [], [3, 9], [3]]}
    assert decoded[b"red"].symbols == request.symbols


def test_a_malformed_version_2_body_is_invalid_input():
    """A symbol that is no text is the sender's fault."""
    with pytest.raises(InvalidInput):
        split_by_label(as_array(b"\x22\x01\xff\x2a\x00"), b"team", 2)
