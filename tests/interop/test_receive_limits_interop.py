"""Limits, relabeling and status/tsdb beside the real Thanos and the real Prometheus's rules.

the same flags and the same requests ──► thanos receive ──► the same codes, texts, figures
                                     └─► thanostack receive
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import time
import urllib.error
import urllib.request
from pathlib import Path

import cramjam
import pytest

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.relabel.config import parse_relabel_configs
from thanostack.lib.relabel.rules import Rule, relabel
from thanostack.testing.processes import our_receive, thanos_receive
from thanostack.testing.relabel_cases import random_case
from thanostack.testing.write_storage import write_request

pytestmark = pytest.mark.interop
RELABEL = Path(__file__).parent / "peers" / "relabel" / "build.py"
LIMITS = """
write:
  default: {request: {size_bytes_limit: 3000, series_limit: 20, samples_limit: 30}}
  tenants:
    free: {request: {size_bytes_limit: 0, series_limit: 0, samples_limit: 0}}
    few: {request: {series_limit: 1}}
"""
RULES = """
- {source_labels: [job, code], regex: "(a.*);5..", action: drop}
- {source_labels: [__name__], regex: "(metric)_([0-9]+)", target_label: n, replacement: "${2}-$1"}
- {source_labels: [pod], modulus: 7, target_label: shard, action: hashmod}
- {regex: "(.*)_old", replacement: "${1}_new", action: labelmap}
- {regex: ".*_old", action: labeldrop}
- {source_labels: [zone], target_label: zone, action: uppercase}
"""


def peer_relabel(cases):
    """Return what the real Prometheus makes of cases."""
    specification = importlib.util.spec_from_file_location("relabel_peer", RELABEL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return list(module.relabel(cases))


def our_relabel(case):
    try:
        rules = [Rule(config) for config in parse_relabel_configs(case["config"])]
    except InvalidInput:
        return None
    results = []
    for labels in case["series"]:
        pairs = relabel([(n.encode(), v.encode()) for n, v in labels], rules)
        decoded = [[n.decode(), v.decode()] for n, v in pairs or ()]
        results.append(None if pairs is None else decoded)
    return results


def comparable(results):
    """Return label sets in one order where Go's is not fixed: it sorts names that are repeated."""
    return results and [
        sorted(pairs) if pairs and len(dict(pairs)) < len(pairs) else pairs for pairs in results
    ]


def test_random_rules_as_prometheus():
    """Fresh random rules and label sets each day, thousands of them."""
    seed = int(time.time() // 86_400)
    source = random.Random(seed)
    cases = [random_case(source, n_series=10) for _ in range(1000)]
    for case, answer in zip(cases, peer_relabel(cases), strict=True):
        expected = None if "error" in answer else answer["results"]
        found = our_relabel(case)
        assert comparable(found) == comparable(expected), (seed, case, answer)


def send(server, body, tenant):
    """Return (status, text) of a write."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.write_port}/api/v1/receive",
        bytes(cramjam.snappy.compress_raw(body)),
        {"THANOS-TENANT": tenant, "Content-Encoding": "snappy"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def status(server, query="", **headers):
    url = f"http://127.0.0.1:{server.write_port}/api/v1/status/tsdb{query}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits")
    flags = (f"--receive.limits-config={LIMITS}", f"--receive.relabel-config={RULES}")
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(our_receive(folder / "ours", *flags))
        real = stack.enter_context(thanos_receive(folder / "real", *flags))
        for server in (ours, real):
            server.wait_ready()
        yield ours, real


def series(n, samples=1, **labels):
    now = int(time.time() * 1000)
    return write_request(
        *(
            ({"__name__": f"m{i}", **labels}, [(now + t, 1.0) for t in range(samples)])
            for i in range(n)
        )
    )


@pytest.mark.parametrize(
    ("body", "tenant", "code"),
    [
        (series(20), "a", 200),
        (series(21), "b", 413),
        (series(15, samples=2), "c", 200),
        (series(16, samples=2), "d", 413),
        (series(1, text="x" * 3500), "e", 413),
        (series(40, samples=2, text="x" * 200), "free", 200),
        (series(2), "few", 413),
        (series(1), "a/b", 400),
        (b"", "a", 200),
    ],
)
def test_limits_of_requests_as_thanos(pair, body, tenant, code):
    """The same code, and Thanos's text in front of ours."""
    (our_code, our_text), (real_code, real_text) = (send(server, body, tenant) for server in pair)
    assert (our_code, real_code) == (code, code)
    if code == 413:
        assert our_text.startswith(real_text.strip())


def test_relabeled_series_and_their_cardinality_as_thanos(pair):
    """The same requests leave the same series, by every figure of status/tsdb."""
    source, now = random.Random(5), int(time.time() * 1000)
    for k in range(20):
        request = [
            (
                dict(sorted({
                    "__name__": f"metric_{source.randrange(9)}",
                    "code": source.choice(("200", "500", "503")),
                    "job": source.choice(("api", "batch", "agent")),
                    "pod": f"pod-{source.randrange(200)}",
                    "zone": source.choice(("eu-é", "us")),
                    **({"rack_old": "r1"} if source.random() < 0.3 else {}),
                }.items())),
                [(now + k, 1.0)],
            )
            for _ in range(100)
        ]  # fmt: skip
        # The same series twice in one request is a conflict with itself at best.
        distinct = list({tuple(labels.items()): (labels, s) for labels, s in request}.values())
        codes = [send(server, write_request(*distinct), "free")[0] for server in pair]
        assert codes == [200, 200]
    ours, real = (status(server, "?limit=10000", **{"THANOS-TENANT": "free"}) for server in pair)
    assert ours[0] == real[0] == 200
    (our_data,), (real_data,) = ours[1]["data"], real[1]["data"]
    assert list(our_data) == list(real_data)
    for name, expected in real_data.items():
        found = our_data[name]
        if isinstance(expected, list):
            found, expected = ({e["name"]: e["value"] for e in both} for both in (found, expected))
        elif name == "headStats":
            # Times are those of each server's own first requests.
            found, expected = (
                {k: v for k, v in both.items() if not k.endswith("Time")}
                for both in (found, expected)
            )
        assert found == expected, name


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ("?all_tenants=true", {"THANOS-TENANT": "a"}, 400),
        ("?limit=x", {}, 400),
        ("?limit=0", {}, 200),
        ("", {"THANOS-TENANT": "nobody"}, 200),
    ],
)
def test_parameters_of_status_as_thanos(pair, query, headers, code):
    """Codes and bodies alike."""
    ours, real = (status(server, query, **headers) for server in pair)
    assert (ours[0], real[0]) == (code, code)
    if code == 400:
        assert ours[1] == real[1]
    else:
        assert len(ours[1]["data"]) == len(real[1]["data"])
