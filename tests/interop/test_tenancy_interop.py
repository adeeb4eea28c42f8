"""Enforced tenancy beside the real querier's: the same flags, the same requests, the same answers.

receive (ours): tenants red, blue  <── query (real) --query.enforce-tenancy
                                   <── query (ours) --query.enforce-tenancy  <── query (real)
"""

import contextlib
import random
import time

import httpx
import pytest

from thanostack.testing.bodies import request_body
from thanostack.testing.processes import our_query, our_receive, thanos_query, until

pytestmark = [pytest.mark.interop, pytest.mark.enable_socket]
FLAGS = ("--query.enforce-tenancy", "--query.tenant-header=X-Scope")
TENANTS = ("red", "blue", "nobody")
MATCHERS = ("", 'tenant_id="blue"', 'tenant_id=~".*"', 'tenant_id!="red"', 'n="1"', 'n!~"1|2"')
SHAPES = (
    "{s}",
    "sum by (tenant_id) ({s})",
    "count({s}) by (n)",
    "max_over_time({s}[2m])",
    "rate({s}[2m])",
    "max_over_time({s}[3m:30s])",
    "{s} offset 15s",
    "-({s}) + 1",
    "{s} * on (n) group_left () {t}",
    "{s} unless {t}",
    "absent({s})",
    "absent_over_time({s}[1m])",
    "label_replace({s}, 'x', '$1', 'n', '(.*)')",
    "quantile(0.5, {s})",
    "topk(2, {s})",
    "histogram_quantile(0.9, {s})",
    "scalar({s}) + 0",
    "sort_desc({s})",
)
TEXTS = ("up{", "sum(", "rate(up)", "{}", 'up{tenant_id="blue"', "1 + 1", "vector(1)", "'text'", "")


class Side:
    """One querier, asked over HTTP as a tenant."""

    def __init__(self, server):
        self.server = server
        self.client = httpx.Client(timeout=60, trust_env=False)

    def ask(self, path, tenant, **params):
        """Return status and data, or the error in full.

        Annotations are left out: upstream has them all in `warnings`, infos without a position,
        and loses those of a series request.
        """
        url = f"http://127.0.0.1:{self.server.http_port}/api/v1/{path}"
        headers = {"X-Scope": tenant} if tenant else {}
        answer = self.client.get(url, params=params, headers=headers)
        body = answer.json()
        if body["status"] == "error":
            return answer.status_code, body["errorType"], body["error"]
        return answer.status_code, settled(body["data"])


def settled(data):
    """Order what has no order: instant vectors and label sets."""
    if isinstance(data, dict) and data.get("resultType") == "vector":
        return sorted(data["result"], key=str)
    return sorted(data, key=str) if isinstance(data, list) else data


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tenancy")
    now = int(time.time()) // 15 * 15
    with contextlib.ExitStack() as stack:
        receive = stack.enter_context(our_receive(folder / "data"))
        receive.wait_ready()
        for shift, tenant in enumerate(("red", "blue")):
            rows = [
                (
                    {"__name__": name, "n": str(n), "of": tenant},
                    [((now - 300 + k * 15) * 1000, 10.0 * shift + n * k) for k in range(20)],
                )
                for name in ("up", f"only_{tenant}")
                for n in range(4)
            ]
            receive.send([request_body(rows)], tenant=tenant)
        real = stack.enter_context(thanos_query(folder, receive.grpc_port, flags=FLAGS))
        ours = stack.enter_context(our_query(folder, receive.grpc_port, flags=FLAGS))
        stacked = stack.enter_context(thanos_query(folder, ours.grpc_port))
        for server in (real, ours, stacked):
            server.wait_ready()
        sides = Side(real), Side(ours)
        for side in sides:
            until("both tenants", lambda s=side: all(
                len(s.ask("query", t, query="up", time=now)[1]) == 4 for t in ("red", "blue")
            ))  # fmt: skip
        yield *sides, Side(stacked), now


def selector(chance):
    name = chance.choice(["up", "only_red", "only_blue", ""])
    matcher = chance.choice(MATCHERS if name else MATCHERS[1:])
    inside = f"{{{matcher}}}" if matcher else ""
    return name + inside if name else f'{{__name__=~"up|only.*", {matcher}}}'


def queries(count, seed=1):
    chance = random.Random(seed)
    for _ in range(count):
        shape = chance.choice(SHAPES)
        yield shape.format(s=selector(chance), t=selector(chance))


def test_instant_queries(world):
    """Every shape of query, as each tenant, what it says about tenants included."""
    real, ours, _, now = world
    for query in [*queries(120), *TEXTS]:
        for tenant in TENANTS:
            asked = {"query": query, "time": now}
            expected = real.ask("query", tenant, **asked)
            assert expected == ours.ask("query", tenant, **asked), (query, tenant)


def test_range_queries(world):
    """The same over time."""
    real, ours, _, now = world
    for query in [*queries(40, seed=2), *TEXTS]:
        for tenant in TENANTS[:2]:
            asked = {"query": query, "start": now - 120, "end": now, "step": 30}
            expected = real.ask("query_range", tenant, **asked)
            assert expected == ours.ask("query_range", tenant, **asked), (query, tenant)


def test_metadata(world):
    """Series, names and values, with and without match[], and what does not parse."""
    real, ours, _, now = world
    chance = random.Random(3)
    times = {"start": now - 600, "end": now}
    matches = [[], ["up{"], ["{}"], ['{tenant_id="blue"}']]
    matches += [[selector(chance) for _ in range(chance.choice([1, 2]))] for _ in range(20)]
    for match in matches:
        for path in ("series", "labels", "label/of/values", "label/tenant_id/values"):
            for tenant in TENANTS:
                asked = {**times, **({"match[]": match} if match else {})}
                expected = real.ask(path, tenant, **asked)
                assert expected == ours.ask(path, tenant, **asked), (path, match, tenant)


def test_who_it_is(world):
    """No header is the default tenant; one that is no tenant is refused."""
    real, ours, _, now = world
    assert real.ask("query", "", query="up", time=now) == ours.ask(
        "query", "", query="up", time=now
    )
    for tenant in ("../red", "a/b"):
        (code, kind, text) = real.ask("query", tenant, query="up")
        (our_code, our_kind, our_text) = ours.ask("query", tenant, query="up")
        assert (code, kind) == (our_code, our_kind)
        assert our_text.startswith(text)


def test_what_we_close(world):
    """Upstream lets a parameter of an aggregation look at everybody's series; we do not."""
    real, ours, _, now = world
    leak = 'quantile(scalar(count(only_blue{tenant_id="blue"})), up * 0) > 0 or vector(0)'
    asked = {"query": leak, "time": now}
    assert real.ask("query", "red", **asked)[1][0]["value"][1] == "+Inf"  # it saw four series
    assert ours.ask("query", "red", **asked)[1][0]["value"][1] == "0"


def test_stacked_queriers_see_everybody(world):
    """Over gRPC nothing is enforced, as upstream: whoever asks there enforces it itself."""
    _, _, stacked, now = world
    query = 'count by (tenant_id) (up{tenant_id=~".+"})'
    found = until("both tenants", lambda: (
        len(rows := stacked.ask("query", "", query=query, time=now)[1]) == 2 and rows
    ))  # fmt: skip
    assert sorted(row["metric"]["tenant_id"] for row in found) == ["blue", "red"]
