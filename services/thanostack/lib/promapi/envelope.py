"""The JSON around every answer, and whether it may be cached.

    {"status":"success","data":…,"warnings":[…],"infos":[…]}
    {"status":"error","errorType":"bad_data","error":"…"}

At most ten warnings and ten infos are told, then how many were left out.

Source: Prometheus `web/api/v1/api.go`, `util/annotations`; Thanos `pkg/api/api.go`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

TEXTS_MAX = 10
TRUNCATED = "results truncated due to limit"


def encode_error(error_type: str, message: str) -> bytes:
    """Return the body of a failed request."""
    # A text may carry bytes of a query that were not UTF-8.
    text = message.encode("utf-8", "replace").decode()
    return orjson.dumps({"status": "error", "errorType": error_type, "error": text})


def encode_success(data: Any, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> bytes:
    """Return the body of an answer whose data orjson can write."""
    return b'{"status":"success","data":' + orjson.dumps(data) + closing(warnings, infos)


def closing(warnings: Sequence[str], infos: Sequence[str]) -> bytes:
    """Return what follows the data: warnings, infos and the closing brace."""
    body = b""
    for name, texts, kind in (
        (b"warnings", warnings, "warning"),
        (b"infos", infos, "info"),
    ):
        if texts:
            body += b',"' + name + b'":' + orjson.dumps(_cut(texts, kind))
    return body + b"}"


def _cut(texts: Sequence[str], kind: str) -> list[str]:
    shown = [text.encode("utf-8", "replace").decode() for text in texts[:TEXTS_MAX]]
    more = len(texts) - TEXTS_MAX
    if more > 0:
        plural = "s" if more > 1 else ""
        shown.append(f"{more} more {kind}{plural} omitted")
    return shown


def is_cacheable(warnings: Sequence[str]) -> bool:
    """Return whether no warning tells of missing data; PromQL's own do not matter."""
    return all(text.startswith(("PromQL warning: ", "PromQL info: ")) for text in warnings)
