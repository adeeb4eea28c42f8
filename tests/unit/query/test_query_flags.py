"""Each flag of the querier reaches what it is about."""

import asyncio
import io
import json

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from thanostack.lib.foundation.clock import ManualClock
from thanostack.lib.pb import info_pb2, store_pb2
from thanostack.lib.storeapi.server import LabeledStore, StoreServer, external_run
from thanostack.query import wiring
from thanostack.query.configured import configured_endpoints
from thanostack.query.discovery import EndpointSpec
from thanostack.query.endpoints import EndpointTLS, LocalEndpoint
from thanostack.query.settings import QuerySettings
from thanostack.runtime import grpc_call, logs, web_port
from thanostack.runtime.command_line import split
from thanostack.runtime.process import log_of, new_process
from thanostack.runtime.settings import load
from thanostack.testing.memory_store import MemoryStore


def parse(*arguments):
    return load(QuerySettings, split(arguments, QuerySettings).flags, {})


def process():
    return new_process("query", logs.configure("query", level="error", form="logfmt"))


ENGINE, SERVICE, API, TIMES = (
    wiring.engine_options,
    wiring.service_options,
    wiring.api_options,
    wiring._times,
)


@pytest.mark.parametrize(
    ("arguments", "options", "field", "value"),
    [
        (["--query.lookback-delta=1m"], ENGINE, "lookback_ms", 60_000),
        (["--query.lookback-delta=1m"], SERVICE, "lookback_ms", 60_000),
        (["--query.default-evaluation-interval=30s"], ENGINE, "default_step_ms", 30_000),
        (["--query.bytes-max=64MB"], ENGINE, "bytes_max", 64 << 20),
        (["--query.samples-max=7"], ENGINE, "samples_max", 7),
        (["--query.timeout=7s"], SERVICE, "timeout_s", 7),
        (["--no-query.dynamic-lookback-delta"], SERVICE, "dynamic_lookback", False),
        (["--store.response-timeout=3s"], SERVICE, "response_timeout_s", 3),
        (["--query.fetched-bytes-max=1MB"], SERVICE, "fetched_bytes_max", 1 << 20),
        (["--query.response-batch-size=9"], SERVICE, "batch_size", 9),
        (["--deduplication.func=chain"], SERVICE, "dedup", "chain"),
        (["--stack.id=s"], SERVICE, "stack_id", "s"),
        (
            ["--query.enforce-tenancy", "--query.tenant-label-name=team"],
            SERVICE,
            "enforced_label",
            "team",
        ),
        (["--query.tenant-label-name=team"], SERVICE, "enforced_label", ""),
        (["--query.replica-label=a,b"], API, "replica_labels", ("a", "b")),
        (["--no-query.partial-response"], API, "partial_response", False),
        (["--query.auto-downsampling"], API, "auto_downsampling", True),
        (
            ["--query.instant.default.max_source_resolution=5m"],
            API,
            "instant_resolution_ms",
            300_000,
        ),
        (["--query.default-step=10s"], API, "default_step_ms", 10_000),
        (["--query.metadata.default-time-range=1h"], API, "metadata_range_ms", 3_600_000),
        (["--web.disable-cors"], API, "cors", False),
        (["--web.external-prefix=/x"], API, "prefix", "/x"),
        (["--web.external-prefix=/x", "--web.route-prefix=/y"], API, "prefix", "/y"),
        (["--endpoint.info-timeout=2s"], TIMES, "info_timeout_s", 2),
        (["--store.unhealthy-timeout=3s"], TIMES, "unhealthy_timeout_s", 3),
        (["--store.sd-dns-interval=4s"], TIMES, "dns_interval_s", 4),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_options_follow_the_flags(arguments, options, field, value):
    """What a flag sets is not the default, and is set by that flag."""
    found = getattr(options(parse(*arguments)), field)
    assert value == getattr(found, "value", found)
    assert value == "" or found != getattr(options(parse()), field)


def test_endpoints_are_those_of_the_flags():
    """Old and new names; strict and group where the flag's name says so."""
    settings = parse(
        "--endpoint=a:1", "--store=b:1", "--endpoint-strict=c:1", "--endpoint-group=d:1",
        "--endpoint-group-strict=e:1", "--endpoint.sd-config=endpoints: [{address: 'f:1'}]",
    )  # fmt: skip
    expected = {
        EndpointSpec("a:1"),
        EndpointSpec("b:1"),
        EndpointSpec("c:1", strict=True),
        EndpointSpec("d:1", group=True),
        EndpointSpec("e:1", strict=True, group=True),
        EndpointSpec("f:1"),
    }
    found = process()
    assert expected == set(configured_endpoints(settings, found, EndpointTLS(found.tls))())


async def test_no_endpoints_at_all_are_noticed():
    """Such a querier is ready and answers everything with nothing: it says so when it starts."""
    told = [
        wiring.Querier(parse(*arguments), process()).is_told_of_endpoints
        for arguments in ((), ("--endpoint=a:1",), ("--endpoint.sd-config=endpoints: []",))
    ]
    assert told == [False, True, False]


def test_the_endpoint_file_is_read_again(tmp_path):
    """After --endpoint.sd-config-reload-interval, and not before."""
    file, clock = tmp_path / "endpoints.yaml", ManualClock(0)
    file.write_text("endpoints: [{address: 'a:1'}]")
    settings = parse(
        f"--endpoint.sd-config-file={file}", "--endpoint.sd-config-reload-interval=10s"
    )
    found = process()
    object.__setattr__(found, "clock", clock)
    configured = configured_endpoints(settings, found, EndpointTLS(found.tls))
    file.write_text("endpoints: [{address: 'b:1'}]")
    clock.advance(9_999)
    assert [spec.address for spec in configured()] == ["a:1"]
    clock.advance(1)
    assert [spec.address for spec in configured()] == ["b:1"]


async def test_who_looks_names_up(monkeypatch):
    """--store.sd-dns-resolver=golang asks the system, miekgdns asks DNS."""
    asked = []

    def resolver(*, system, **others):
        asked.append(system)

    monkeypatch.setattr(wiring, "Resolver", resolver)
    wiring.Querier(parse(), process())
    wiring.Querier(parse("--store.sd-dns-resolver=golang"), process())
    assert asked == [False, True]


def local_endpoint(*jobs):
    rows = [({"__name__": "up", "job": job}, [(1000, 1.0)]) for job in jobs]
    labeled = LabeledStore(external_run({"team": "a"}), MemoryStore(rows))
    return LocalEndpoint("local", StoreServer(lambda: [labeled]))


async def test_connections_are_labelled_as_asked():
    """--query.conn-metric.label chooses the labels of the connection metric."""
    found = process()
    wiring.Querier(
        parse("--query.conn-metric.label=store_type"), found, local=[local_endpoint("x")]
    )
    names = {
        tuple(sample.labels)
        for metric in found.registry.collect()
        for sample in metric.samples
        if sample.name == "thanos_store_nodes_grpc_connections"
    }
    assert names == {("store_type",)}


async def test_how_many_queries_run_at_once():
    """--query.max-concurrent is the size of the pool, and shown."""
    found = process()
    querier = wiring.Querier(parse("--query.max-concurrent=3"), found)
    assert querier._pool._max_workers == 3
    assert found.registry.get_sample_value("thanos_query_concurrent_gate_queries_max") == 3


async def test_selector_labels_are_announced():
    """--selector-label is what the querier says of itself."""
    querier = wiring.Querier(parse('--selector-label=zone="1"'), process())
    context = grpc_call.CallContext({}, "peer", 10)
    answer = querier.handlers()["/thanos.info.Info/Info"].handle(b"", context)
    (labels,) = info_pb2.InfoResponse.FromString(answer).label_sets
    assert [(label.name, label.value) for label in labels.labels] == [("zone", "1")]


async def test_the_tenant_header_is_the_one_named():
    """--query.tenant-header names it, --query.default-tenant-id is for requests without."""
    settings = parse(
        "--query.tenant-header=X-Team", "--query.default-tenant-id=none",
        "--query.enforce-tenancy", "--query.tenant-label-name=team",
    )  # fmt: skip
    application = FastAPI()
    querier = wiring.Querier(settings, process(), local=[local_endpoint("x")])
    application.include_router(querier.api().router())
    counts = []
    async with AsyncClient(transport=ASGITransport(application), base_url="http://q") as client:
        for headers in ({"X-Team": "a"}, {"X-Team": "b"}, {}):
            answer = await client.get("/api/v1/query?query=up&time=1", headers=headers)
            counts.append(len(answer.json()["data"]["result"]))
    assert counts == [1, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], None),
        (["--store.limits.request-series=1"], "store.limits.request-series: 2 exceeds"),
        (["--store.limits.request-samples=1"], "store.limits.request-samples: "),
    ],
)
async def test_store_limits_hold_for_the_queriers_own_store_api(arguments, error):
    """Two series of one chunk each are one too many where one may be sent."""
    querier = wiring.Querier(parse(*arguments), process(), local=[local_endpoint("x", "y")])
    request = store_pb2.SeriesRequest(min_time=0, max_time=2000)
    request.matchers.add(type=0, name="__name__", value="up")
    series = querier.handlers()["/thanos.Store/Series"].handle
    context = grpc_call.CallContext({}, "peer", 10)

    def run():
        return list(series(request.SerializeToString(), context))

    if error is None:
        assert await asyncio.to_thread(run)
    else:
        with pytest.raises(Exception, match=error):
            await asyncio.to_thread(run)


def test_logs_are_as_the_flags_say(capsys):
    """--log.format and --log.level are the logs' form; --debug.name is on every line."""
    log = log_of("query", parse("--log.format=json", "--log.level=warn", "--debug.name=n"))
    log.info("not shown")
    log.warning("shown")
    (line,) = io.StringIO(capsys.readouterr().err).readlines()
    assert (json.loads(line)["msg"], json.loads(line)["name"]) == ("shown", "n")


async def test_servers_get_their_times(monkeypatch):
    """Connection age and grace periods reach the servers."""
    seen = {}

    class Server:
        port = 1

        def __init__(self, *_, options, **others):
            seen["age"] = options.connection_age_s

        async def start(self):
            pass

        async def stop(self, grace_s):
            seen["grpc"] = grace_s

        def set_serving(self, _):
            pass

    class Pages:
        port = 1

        def __init__(self, *_, grace_s, **others):
            seen["http"] = grace_s

        async def serve(self):
            pass

        async def stop(self):
            pass

    monkeypatch.setattr(wiring, "GrpcServer", Server)
    monkeypatch.setattr(web_port, "HTTPServer", Pages)
    found = process()
    settings = parse(
        "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0", "--http-grace-period=3s",
        "--grpc-grace-period=4s", "--grpc-server-max-connection-age=5s",
    )  # fmt: skip
    monkeypatch.setattr(found.supervisor, "task", lambda *_: None)
    drains = []
    monkeypatch.setattr(found.supervisor, "drain", lambda _, drain: drains.append(drain))
    monkeypatch.setattr(wiring.Querier, "discover", lambda _: Server.start(None))
    await wiring.start(settings, found)
    for drain in drains:
        await drain()
    assert seen == {"age": 5, "grpc": 4, "http": 3}
