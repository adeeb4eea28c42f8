"""What the querier counts of evaluations: upstream's names, labels and buckets."""

import httpx
import pytest
from fastapi import FastAPI

from thanostack.lib.storeapi.server import LabeledStore, StoreServer, external_run
from thanostack.query.endpoints import LocalEndpoint
from thanostack.query.engine_metrics import bound_of
from thanostack.query.settings import QuerySettings
from thanostack.query.wiring import Querier
from thanostack.runtime.logs import configure
from thanostack.runtime.process import new_process
from thanostack.runtime.settings import load
from thanostack.testing.memory_store import MemoryStore

ENGINE = {"engine": "prometheus", "mode": "local"}
START = 1_700_000_000


class World:
    """A querier over ten series of 400 samples each, more than a chunk holds."""

    def __init__(self, *flags):
        given = {}
        for flag in flags:
            name, _, value = flag.removeprefix("--").partition("=")
            given.setdefault(name, []).append(value)
        process = new_process("query", configure("query", level="error", form="logfmt"))
        samples = [(START * 1000 + k * 15_000, 1.0) for k in range(400)]
        rows = [({"__name__": "up", "job": f"{i}"}, samples) for i in range(10)]
        store = StoreServer(lambda: [LabeledStore(external_run({"a": "b"}), MemoryStore(rows))])
        querier = Querier(
            load(QuerySettings, given, {}), process, local=[LocalEndpoint("local", store)]
        )
        self.application = FastAPI()
        self.application.include_router(querier.api().router())
        self.registry = process.registry

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)

    async def get(self, path, **params):
        transport = httpx.ASGITransport(self.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://q") as client:
            return await client.get(f"/api/v1/{path}", params=params)


async def test_evaluations_are_counted_however_they_end():
    """The slice that we can tell, the queries in flight, and the samples."""
    world = World("--query.max-concurrent=7")
    assert world.value("prometheus_engine_queries_concurrent_max", **ENGINE) == 7
    assert world.value("prometheus_engine_query_samples_total", **ENGINE) == 0
    times = {"start": START, "end": START + 6000, "step": 15}
    assert (await world.get("query_range", query="up", **times)).status_code == 200
    assert (await world.get("query", query="up + on() up", time=START)).status_code == 422
    assert (await world.get("query", query="up +")).status_code == 400
    for kind in ("", "_histogram"):
        name = f"prometheus_engine_query_duration{kind}_seconds_count"
        assert world.value(name, **ENGINE, slice="inner_eval") == 2
    assert world.value("prometheus_engine_queries", **ENGINE) == 0
    assert world.value("prometheus_engine_query_samples_total", **ENGINE) == 4000


async def test_selects_are_counted():
    """Two selectors that ask for the same are one select; a gate there is not."""
    world, gate = World(), "thanos_query_concurrent_selects_gate_selects"
    await world.get("query", query="up + up + sum(up offset 1m)", time=START)
    await world.get("series", **{"match[]": "up"})
    assert world.value(f"{gate}_total") == 3
    assert world.value(f"{gate}_in_flight") == 0
    assert world.value(f"{gate}_max") == 0


@pytest.mark.parametrize(
    ("flags", "labels"),
    [
        ((), {"series_le": "10", "samples_le": "10000"}),
        (
            (
                "--query.telemetry.request-series-seconds-quantiles=11",
                "--query.telemetry.request-series-seconds-quantiles=12.5",
                "--query.telemetry.request-samples-quantiles=4000",
                "--query.telemetry.request-duration-seconds-quantiles=60",
            ),
            {"series_le": "11", "samples_le": "+Inf"},
        ),
    ],
)
async def test_queries_are_timed_by_what_they_fetched(flags, labels):
    """The flags of telemetry choose the buckets; a query without series is not timed."""
    world, name = World(*flags), "thanos_store_api_query_duration_seconds"
    labels = {**labels, "tenant": "default-tenant"}
    await world.get("query", query="1")
    await world.get("query", query="none", time=START)
    times = {"start": START, "end": START + 6000, "step": 15}
    await world.get("query_range", query="up", **times)
    assert world.value(f"{name}_count", **labels) == 1
    assert world.value(f"{name}_bucket", **labels, le="60.0" if flags else "10.0") == 1


def test_bounds_are_spelled_as_go_spells_them():
    """Without exponent, without a zero behind the point."""
    assert [bound_of(v, (0.5, 1e7, 1e8)) for v in (0, 1, 1e8)] == ["0.5", "10000000", "+Inf"]
    assert bound_of(5, ()) == "+Inf"
