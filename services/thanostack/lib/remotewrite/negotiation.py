"""Which remote-write message a body is, by its headers.

| version header | content type | taken as |
|---|---|---|
| `2.0.0` | `application/x-protobuf;proto=io.prometheus.write.v2.Request` | 2.0 |
| `2.0.0` | `application/x-protobuf`, with or without `;proto=prometheus.WriteRequest` | 1.0 |
| `2.0.0` | none: refused; anything else: unsupported | |
| any other or none | never looked at, but for the next line | 1.0 |
| any other or none | names the 2.0 message | refused |

Upstream takes the last case for 1.0, under which a 2.0 body has no known field: it answers 200 and
stores nothing. We refuse it, and we refuse any body that has the other version's shape
(`body_shape`), which upstream also takes for an empty one, either way round.

Source: Thanos `pkg/receive/handler.go`; Prometheus remote-write specification 2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from thanostack.lib.foundation.errors import InvalidInput

Version = Literal[1, 2]

V2_MESSAGE: Final = b"io.prometheus.write.v2.request"
V1_MESSAGE: Final = b"prometheus.writerequest"
_PROTOBUF: Final = b"application/x-protobuf"


class UnsupportedMedia(InvalidInput):
    """The body is of a type or encoding that remote write does not have."""


def negotiate(headers: Mapping[bytes, bytes]) -> Version:
    """Return the version of a write request.

    Args:
        headers: by lower-case name.

    Raises:
        InvalidInput: if the headers contradict each other, or 2.0 is announced without a type.
        UnsupportedMedia: if 2.0 is announced with a type or encoding it does not have.
    """
    content_type = headers.get(b"content-type", b"")
    if headers.get(b"x-prometheus-remote-write-version", b"").strip() != b"2.0.0":
        if V2_MESSAGE in content_type.lower():
            raise InvalidInput(
                "the content type names the remote write 2.0 message, but the header "
                "X-Prometheus-Remote-Write-Version is not 2.0.0"
            )
        return 1
    encoding = headers.get(b"content-encoding", b"snappy").strip().lower()
    if encoding != b"snappy":
        raise UnsupportedMedia(
            f"content encoding {encoding.decode(errors='replace')!r} is not supported; "
            "remote write is compressed with snappy"
        )
    return _version_of(content_type)


def _version_of(content_type: bytes) -> Version:
    if not content_type.strip():
        raise InvalidInput("remote write 2.0 needs a Content-Type header")
    media, _, parameter = content_type.lower().partition(b";")
    name, _, message = parameter.strip().partition(b"=")
    if media.strip() == _PROTOBUF and name.strip() in {b"", b"proto"}:
        message = message.strip()
        if message == V2_MESSAGE:
            return 2
        if message in {b"", V1_MESSAGE}:
            return 1
    shown = content_type.decode(errors="replace")
    raise UnsupportedMedia(
        f"content type {shown!r} is not supported; send application/x-protobuf with "
        "proto=io.prometheus.write.v2.Request or proto=prometheus.WriteRequest"
    )
