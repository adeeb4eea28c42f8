"""Which remote-write version a request is."""

from __future__ import annotations

import pytest

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.remotewrite.negotiation import UnsupportedMedia, negotiate

V2_TYPE = b"application/x-protobuf;proto=io.prometheus.write.v2.Request"
V1_TYPE = b"application/x-protobuf;proto=prometheus.WriteRequest"


def headers(version=None, content_type=None, encoding=None):
    given = {
        b"x-prometheus-remote-write-version": version,
        b"content-type": content_type,
        b"content-encoding": encoding,
    }
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (headers(), 1),
        (headers(b"0.1.0", b"application/x-protobuf", b"snappy"), 1),
        (headers(b"0.1.0", b"application/json", b"gzip"), 1),
        (headers(b"2.0.1", b"application/x-protobuf"), 1),
        (headers(b"2.0.0", V2_TYPE, b"snappy"), 2),
        (headers(b"2.0.0", V2_TYPE), 2),
        (headers(b"2.0.0", b"Application/X-Protobuf; proto=IO.Prometheus.Write.V2.Request"), 2),
        (headers(b"2.0.0", V1_TYPE), 1),
        (headers(b"2.0.0", b"application/x-protobuf"), 1),
        (headers(b"2.0.0"), InvalidInput),
        (headers(b"2.0.0", b"application/json"), UnsupportedMedia),
        (headers(b"2.0.0", b"application/x-protobuf;proto=other"), UnsupportedMedia),
        (headers(b"2.0.0", b"application/x-protobuf;charset=utf-8"), UnsupportedMedia),
        (headers(b"2.0.0", V2_TYPE, b"gzip"), UnsupportedMedia),
        (headers(None, V2_TYPE), InvalidInput),
        (headers(b"0.1.0", V2_TYPE), InvalidInput),
    ],
)
def test_headers_decide(given, expected):
    """As upstream, but a 2.0 message is never taken for an empty 1.0."""
    if isinstance(expected, int):
        assert negotiate(given) == expected
    else:
        with pytest.raises(expected) as caught:
            negotiate(given)
        assert type(caught.value) is expected
