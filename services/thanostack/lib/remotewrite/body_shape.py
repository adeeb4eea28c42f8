"""Whether a write request's body is what its headers announce.

The two messages share no field: 1.0 has series in 1 and metadata in 3, 2.0 has symbols in 4 and
series in 5 and keeps 1 to 3 free. Protobuf skips what it does not know, so that one read as the
other is empty: upstream answers 200, the sender drops its samples, and nothing is stored.

Source: Prometheus `prompb/remote.proto`, `prompb/io/prometheus/write/v2/types.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.model.label_runs import Uint8Array
from thanostack.lib.remotewrite.negotiation import Version
from thanostack.lib.remotewrite.split import count_series

_TAGS: Final[Mapping[int, frozenset[int]]] = {
    1: frozenset({0x0A, 0x1A}),
    2: frozenset({0x22, 0x2A}),
}
_HEADERS: Final[Mapping[int, str]] = {
    1: "Content-Type: application/x-protobuf, with ;proto=prometheus.WriteRequest or without",
    2: "X-Prometheus-Remote-Write-Version: 2.0.0 and Content-Type: "
    "application/x-protobuf;proto=io.prometheus.write.v2.Request",
}


def check_shape(body: Uint8Array, version: Version) -> None:
    """Refuse a body of which the version that it was announced as understands nothing.

    Args:
        body: uint8[n], decoded; an empty one is a request without series in either version.
        version: as announced.

    Raises:
        InvalidInput: if it begins as the other version's message does, or begins with a field of
            neither and has no series; or if it is malformed.

    Cost: one look at the first byte, but for a body that begins with a field of neither version.
    """
    first = int(body[0]) if len(body) else None
    if first is None or first in _TAGS[version]:
        return
    other = 3 - version
    if first in _TAGS[other]:
        raise InvalidInput(
            f"the body is a remote write {other}.0 message; send the headers {_HEADERS[other]}"
        )
    if not count_series(body, version):
        raise InvalidInput(f"the body is no remote write {version}.0 message: it has no series")
