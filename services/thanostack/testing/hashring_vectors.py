"""Answers to the cases of tests/data/hashring, by our hashrings, in the form of the golden vectors.

The other side is `tests/interop/peers/vectors`, which answers with Thanos's own code. Series are
made from their number, here and there alike: up to 13 labels of all lengths, empty, long and not
UTF-8, every third series unsorted. Nodes are ranks in the sorted addresses of a configuration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from thanostack.lib.foundation.errors import InvalidInput, NoHashring
from thanostack.lib.hashring import Hashrings, config_hash, series_hashes
from thanostack.lib.hashring.go_glob import Glob
from thanostack.lib.hashring.go_rand import uint64_draws
from thanostack.lib.hashring.shuffle import shard_seed
from thanostack.lib.model.label_runs import Int64Array, Uint8Array, uvarint

REFUSED = "refused"


def numbered_labels(i: int) -> list[tuple[bytes, bytes]]:
    """Return the labels of series i in the order they are sent."""

    def value(j: int) -> bytes:
        kind = (i * 7 + j) % 11
        special = {
            0: b"",
            1: f"é€😀-{i}".encode(),
            2: b"x" * (i % 300),
            3: b"\xff\xfe%d" % i,
            4: b"v" * (i % 97 * 20),
        }
        return special.get(kind, b"value-%d-%d" % (i, j))

    labels = [(b"label_%02d" % j if j else b"__name__", value(j)) for j in range(i % 14)]
    return labels[::-1] if i % 3 == 1 else labels


@cache
def numbered_body(n_series: int) -> tuple[Uint8Array, Int64Array]:
    """Return a request of the first series, one sample each, and the bounds of their messages."""
    out, bounds = bytearray(), []
    for i in range(n_series):
        pairs = (_field(1, name) + _field(2, value) for name, value in numbered_labels(i))
        message = b"".join(_field(1, pair) for pair in pairs) + _field(2, b"\x10\x01")
        out += _field(1, message)
        bounds.append((len(out) - len(message), len(out)))
    return np.frombuffer(bytes(out), np.uint8), np.array(bounds, np.int64)


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + uvarint(len(payload)) + payload


def answers(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Return our vectors; everything refused is the word, whatever the error's text."""
    names = cases["globs"]["names"]
    draws = [uint64_draws(int(d["seed"]), d["count"]).astype("<u8") for d in cases["draws"]]
    return {
        "placements": [placement(case) for case in cases["placements"]],
        "seeds": [str(shard_seed(*pair)) for pair in cases["seeds"]],
        "draws": [hashlib.sha256(d.tobytes()).hexdigest() for d in draws],
        "globs": {p: _glob_results(p, names) for p in cases["globs"]["patterns"]},
        "config_hashes": [config_hash(text.encode()) for text in cases["configs"]],
    }


def placement(case: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the series of one case go, for each of its tenants."""
    try:
        rings = Hashrings.parse(
            json.dumps(case["config"]),
            algorithm=case["algorithm"],
            replication_factor=case["replication_factor"],
        )
    except InvalidInput:
        return {"name": case["name"], "error": REFUSED}
    tenants = {}
    for i, tenant in enumerate(case["tenants"]):
        tenants[tenant] = _placement_of(rings, tenant, case, 0 if i else case["n_full"])
    return {"name": case["name"], "tenants": tenants}


def _placement_of(
    rings: Hashrings, tenant: str, case: Mapping[str, Any], n_full: int
) -> dict[str, Any]:
    try:
        ring = rings.ring_of(tenant)
    except NoHashring:
        return {"error": REFUSED}
    body, bounds = numbered_body(case["n_series"])
    nodes = ring.place(series_hashes(body, tenant.encode(), bounds), case["replication_factor"])
    addresses = sorted(rings.addresses)
    ranks = np.array([addresses.index(e.address) for e in ring.endpoints], "<i4")[nodes]
    answer: dict[str, Any] = {
        "sha256": hashlib.sha256(ranks.tobytes()).hexdigest(),
        "nodes": np.unique(ranks).tolist(),
    }
    return answer | ({"first": ranks[:n_full].tolist()} if n_full else {})


def _glob_results(pattern: str, names: list[str]) -> str:
    try:
        glob = Glob(pattern)
    except InvalidInput:
        return REFUSED
    return "".join("y" if glob.matches(name) else "n" for name in names)
