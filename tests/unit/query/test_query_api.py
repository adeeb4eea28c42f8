"""The HTTP API over stores of the same process: answers, parameters, headers, errors."""

import asyncio
import dataclasses
import gzip
import json
import threading

import httpx
import pytest
from fastapi import FastAPI

from thanostack.lib.storeapi.server import (
    LabeledStore,
    StoreServer,
    UnreadableStore,
    external_run,
)
from thanostack.query.endpoints import LocalEndpoint
from thanostack.query.settings import QuerySettings
from thanostack.query.wiring import Querier
from thanostack.runtime.logs import configure
from thanostack.runtime.process import new_process
from thanostack.runtime.settings import load
from thanostack.testing.memory_store import MemoryStore

START = 1_700_000_000


def samples(value, count=40, shift=0):
    return [(START * 1000 + shift + k * 15_000, value + k) for k in range(count)]


def series(name, value=0.0, shift=0, **labels):
    return {"__name__": name, **labels}, samples(value, shift=shift)


def replica(name, *rows):
    labels = external_run({"replica": name, "tenant_id": "t"})
    return LabeledStore(labels, MemoryStore(rows))


def replicas():
    return [
        replica("a", series("up", job="x"), series("up", 5.0, job="y")),
        replica("b", series("up", 100.0, 1000, job="x"), series("down", job="z")),
    ]


@pytest.fixture
async def api():
    """Return a function that asks a querier with some flags over the two replicas."""
    made = []

    async def make(*flags, stores=None, endpoint=None, **options):
        given = {}
        for flag in ("--query.replica-label=replica", *flags):
            name, _, value = flag.removeprefix("--").partition("=")
            given.setdefault(name, []).append(value)
        settings = load(QuerySettings, given, {})
        process = new_process("query", configure("query", level="error", form="logfmt"))
        found = replicas() if stores is None else stores
        server = endpoint or StoreServer(lambda: found)
        local = [LocalEndpoint("local", server)] if found else []
        querier = Querier(settings, process, local=local)
        application = FastAPI()
        application.include_router(querier.api().router())
        transport = httpx.ASGITransport(application, **options)
        client = httpx.AsyncClient(transport=transport, base_url="http://q")
        made.append(client)
        return client

    yield make
    for client in made:
        await client.aclose()


async def data(client, path, method="GET", **params):
    options = {"params": params} if method == "GET" else {"data": params}
    response = await client.request(method, f"/api/v1/{path}", **options)
    answer = response.json()
    assert response.status_code == 200, answer
    return answer["data"]


def metrics(found):
    return [item["metric"] for item in found["result"]]


async def test_instant_query(api):
    """Replicas become one series; labels and values are Prometheus's."""
    client = await api()
    found = await data(client, "query", query="up", time=START + 300)
    assert found["resultType"] == "vector"
    expected = [{"__name__": "up", "job": job, "tenant_id": "t"} for job in "xy"]
    assert expected == metrics(found)
    assert found["result"][1]["value"] == [START + 300, "25"]


async def test_range_query_by_form(api):
    """A form is as good as a query string; the step decides the points."""
    client = await api()
    times = {"start": START, "end": START + 60, "step": "30s"}
    found = await data(client, "query_range", "POST", query='up{job="y"}', **times)
    assert found["result"][0]["values"] == [[START, "5"], [START + 30, "7"], [START + 60, "9"]]
    sent = await data(client, "query_range", query='up{job="y"}', **times)
    assert sent == found


async def test_a_form_in_parts_is_refused_by_its_name(api):
    """It was ignored, and the answer that there is no expression led nowhere."""
    client = await api()
    for path in ("query", "query_range", "series", "labels"):
        response = await client.post(f"/api/v1/{path}", files={"query": (None, "up")})
        assert response.status_code == 400
        assert response.json() == {
            "status": "error",
            "errorType": "bad_data",
            "error": "a form has to be sent as application/x-www-form-urlencoded, "
            "multipart/form-data is not read",
        }


async def test_a_lookback_of_less_than_a_millisecond_is_not_the_default(api):
    """It finds what is at the very time of the query; none and 0 are the default of 5 minutes."""
    client = await api()
    for lookback, later, is_found in (
        ("0.0001", 0, True), ("0.0001", 7, False), ("1e-12", 7, True), ("0", 7, True),
        ("-1", 7, True), ("1", 7, False), ("20s", 7, True),
    ):  # fmt: skip
        given = {"query": 'up{job="y"}', "time": START + 30 + later, "lookback_delta": lookback}
        found = await data(client, "query", **given)
        assert bool(found["result"]) == is_found, given


async def test_dedup_can_be_turned_off(api):
    """Each replica shows with its label; other labels can be named as replicas."""
    client = await api()
    found = await data(client, "query", query="count(up)", time=START + 30, dedup="false")
    assert found["result"][0]["value"][1] == "3"
    named = {"query": "up", "time": START + 30, "replicaLabels[]": ["replica", "job"]}
    assert metrics(await data(client, "query", **named)) == [{"__name__": "up", "tenant_id": "t"}]


async def test_series_and_labels(api):
    """Metadata over all stores."""
    client = await api()
    up = [{"__name__": "up", "job": job, "tenant_id": "t"} for job in "xy"]
    down = {"__name__": "down", "job": "z", "tenant_id": "t"}
    assert up == await data(client, "series", **{"match[]": "up"})
    assert [down, *up] == await data(client, "series", **{"match[]": ["up", "down"]})
    assert await data(client, "labels") == ["__name__", "job", "replica", "tenant_id"]
    hidden = await data(client, "labels", **{"replicaLabels[]": "replica"})
    assert hidden == ["__name__", "job", "tenant_id"]
    assert await data(client, "label/job/values") == ["x", "y", "z"]
    assert await data(client, "label/job/values", **{"match[]": "down"}) == ["z"]
    assert await data(client, "label/replica/values") == ["a", "b"]
    assert await data(client, "label/U______name____/values", **{"match[]": "up"}) == ["up"]
    assert await data(client, "label/U___6a_ob/values") == ["x", "y", "z"]


async def test_limits_cut_with_a_warning(api):
    """And such an answer is not to be cached."""
    client = await api()
    for path, params in (
        ("query", {"query": "up", "time": START}),
        ("query_range", {"query": "up", "start": START, "end": START + 60, "step": 30}),
        ("series", {"match[]": "up"}),
        ("label/job/values", {}),
        ("labels", {}),
    ):
        response = await client.get(f"/api/v1/{path}", params={**params, "limit": 1})
        found = response.json()["data"]
        assert len(found["result"] if path.startswith("query") else found) == 1
        assert response.json()["warnings"] == ["results truncated due to limit"]
        assert response.headers["cache-control"] == "no-store"


async def test_promql_annotations_may_be_cached(api):
    """They say nothing about missing data; infos have a list of their own."""
    client = await api()
    response = await client.get(
        "/api/v1/query", params={"query": "rate(up[2m])", "time": START + 300}
    )
    assert "warnings" not in response.json()
    assert "might not be a counter" in response.json()["infos"][0]
    assert "cache-control" not in response.headers


@pytest.mark.parametrize(
    ("path", "params", "status", "kind", "text"),
    [
        (
            "query",
            {"query": "sum("},
            400,
            "bad_data",
            "1:5: parse error: unclosed left parenthesis",
        ),
        ("query", {"query": "up", "time": "x"}, 400, "bad_data", "Invalid time value for 'time': "),
        ("query_range", {"query": "up"}, 400, "bad_data", 'cannot parse "" to a valid timestamp'),
        (
            "query_range",
            {"query": '"x"', "start": 1, "end": 2, "step": 1},
            400,
            "bad_data",
            'invalid expression type "string" for range query, must be Scalar or instant Vector',
        ),
        ("query", {"query": "up + on() group_left up"}, 422, "execution", ""),
        ("query", {"query": "up", "timeout": "0"}, 503, "timeout", "query timed out"),
        ("series", {}, 400, "bad_data", "no match[] parameter provided"),
        ("series", {"match[]": "{"}, 400, "bad_data", "1:"),
        ("status/nothing", {}, 404, "not_found", "no such API: status/nothing"),
        ("nothing/here", {}, 404, "not_found", "no such API: /api/v1/nothing/here"),
        ("receive", {}, 404, "not_found", "no such API: /api/v1/receive; writes go to the port of"),
        ("status/tsdb", {}, 501, "unavailable", "/api/v1/status/tsdb is not offered yet"),
    ],
)
async def test_errors(api, path, params, status, kind, text):
    """Status, type and text; never to be cached."""
    client = await api()
    response = await client.get(f"/api/v1/{path}", params={"time": START, **params})
    answer = response.json()
    assert (status, "error", kind) == (response.status_code, answer["status"], answer["errorType"])
    assert answer["error"].startswith(text)


@pytest.mark.parametrize(
    ("path", "nothing", "marker"),
    [
        ("rules", {"groups": []}, "rules"),
        ("rules?type=alert", {"groups": []}, "rules"),
        ("alerts", {"alerts": []}, "rules"),
        ("targets", {"activeTargets": [], "droppedTargets": []}, "targets"),
        ("metadata?limit=40000", {}, "metric_metadata"),
        ("query_exemplars?query=up", [], "exemplars"),
    ],
)
async def test_what_no_endpoint_has_is_empty(api, path, nothing, marker):
    """Grafana asks for it; with an endpoint that has some, nothing would be a wrong answer."""
    client = await api()
    assert nothing == await data(client, path)
    telling = StoreServer(replicas)
    described = dataclasses.replace(telling.describe(), apis=frozenset({marker}))
    telling.describe = lambda: described
    client = await api(endpoint=telling)
    refused = await client.get(f"/api/v1/{path}")
    assert (501, "unavailable") == (refused.status_code, refused.json()["errorType"])
    bare = path.partition("?")[0]
    text = f"/api/v1/{bare} of endpoints is not passed on yet: ask those that have it (1)"
    assert text == refused.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "label/job/values", 405),
        ("POST", "metadata", 405),
        ("POST", "rules", 405),
        ("POST", "stores", 405),
        ("POST", "status/buildinfo", 405),
        ("POST", "query_exemplars", 200),
        ("DELETE", "series", 405),
        ("POST", "nothing", 404),
    ],
)
async def test_a_wrong_method_is_called_that(api, method, path, status):
    """It was 404 and "no such API", of an API that is there."""
    response = await (await api()).request(method, f"/api/v1/{path}")
    assert status == response.status_code
    if status == 405:
        assert "GET" in response.headers["allow"]


async def test_a_step_that_does_not_fit_is_422(api):
    """It names the flag, and the process lives on."""
    client = await api("--query.bytes-max=10B")
    params = {"query": "sum(up)", "start": START, "end": START + 600, "step": 1}
    response = await client.get("/api/v1/query_range", params=params)
    assert (response.status_code, response.json()["errorType"]) == (422, "execution")
    assert "query.bytes-max" in response.json()["error"]


async def test_large_answers_are_streamed_and_compressed(api):
    """Compression where the client takes it; the content is the same."""
    rows = [series("many", float(i), i=f"{i:04}") for i in range(2000)]
    client = await api(stores=[replica("a", *rows)])
    params = {"query": "many", "start": START, "end": START + 600, "step": 15}
    plain = await client.get(
        "/api/v1/query_range", params=params, headers={"accept-encoding": "identity"}
    )
    async with client.stream(
        "GET", "/api/v1/query_range", params=params, headers={"accept-encoding": "gzip"}
    ) as packed:
        body = b"".join([part async for part in packed.aiter_raw()])
    assert (
        packed.headers["content-encoding"],
        packed.headers["vary"],
    ) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(body) == plain.content
    assert len(plain.json()["data"]["result"]) == 2000
    assert len(await data(client, "series", **{"match[]": "many"})) == 2000


async def test_small_answers_are_not_compressed(api):
    """It would only cost time."""
    client = await api()
    response = await client.get("/api/v1/query", params={"query": "1"})
    assert "content-encoding" not in response.headers


async def test_tenancy_is_enforced(api):
    """A matcher on the tenant label is replaced, and labels are only the tenant's."""
    other = LabeledStore(
        external_run({"replica": "a", "tenant_id": "u"}), MemoryStore([series("up", job="secret")])
    )
    client = await api("--query.enforce-tenancy=true", stores=[*replicas(), other])
    headers = {"THANOS-TENANT": "u"}
    for query in ("up", 'up{tenant_id="t"}', 'up{tenant_id=~".+"}'):
        response = await client.get(
            "/api/v1/query", params={"query": query, "time": START}, headers=headers
        )
        assert [m["job"] for m in metrics(response.json()["data"])] == ["secret"]
    for path in ("label/job/values", "series?match[]=up"):
        response = await client.get(f"/api/v1/{path}", headers=headers)
        assert "secret" in response.text
        assert '"x"' not in response.text
    nobody = await client.get("/api/v1/label/job/values")
    assert nobody.json()["data"] == []


async def test_cors_and_prefix(api):
    """Headers on every route, unless turned off; routes below a prefix."""
    client = await api("--web.route-prefix=/p/")
    response = await client.options("/p/api/v1/query")
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (204, "*")
    assert (await client.get("/p/api/v1/labels")).status_code == 200
    silent = await api("--web.disable-cors=true")
    assert "access-control-allow-origin" not in (await silent.get("/api/v1/labels")).headers


async def test_status_pages(api):
    """Endpoints, flags, build and runtime."""
    client = await api()
    stores = await data(client, "stores")
    assert [store["name"] for store in stores["receive"]] == ["local"]
    assert [{"replica": r, "tenant_id": "t"} for r in "ab"] == stores["receive"][0]["labelSets"]
    assert (await data(client, "status/flags"))["query.replica-label"] == "replica"
    assert (await data(client, "status/buildinfo"))["version"]
    assert (await data(client, "status/runtimeinfo"))["goroutineCount"] == 20


async def test_stats_are_shown_when_asked_for(api):
    """Samples and timings."""
    client = await api()
    found = await data(
        client, "query", query="sum_over_time(up[5m])", time=START + 300, stats="true"
    )
    assert found["stats"]["samples"]["totalQueryableSamples"] >= 40
    assert {"stats"} == set(found) - set(await data(client, "query", query="1"))


async def test_no_endpoint_is_an_error_only_if_all_are_wanted(api):
    """The texts and codes are upstream's."""
    client = await api(stores=[])
    params = {"query": "up", "time": START}
    assert (await data(client, "query", **params))["result"] == []
    strict = await client.get("/api/v1/query", params={**params, "partial_response": "false"})
    assert (strict.status_code, strict.json()["errorType"]) == (500, "internal")
    assert strict.json()["error"] == "No StoreAPIs available"
    times = {"start": START, "end": START, "step": 1, "partial_response": "false"}
    strict = await client.get("/api/v1/query_range", params={"query": "up", **times})
    assert (strict.status_code, strict.json()["errorType"]) == (422, "execution")


async def test_store_matchers_cannot_mean_this_process(api):
    """As upstream: a local store has no address."""
    client = await api()
    params = {"query": "up", "time": START, "storeMatch[]": '{__address__=~".*"}'}
    assert (await data(client, "query", **params))["result"] == []


class StuckStore(MemoryStore):
    """A store that does not answer until it is told to."""

    free = threading.Event()

    def series(self, query):
        self.free.wait(20)
        return super().series(query)


async def test_a_client_that_leaves_is_not_waited_for(api):
    """Its query is cancelled; nobody waits for a store that hangs."""
    store = StuckStore([series("up")])
    client = await api(stores=[LabeledStore(b"", store)])
    application, sent = client._transport.app, []
    messages = iter([{"type": "http.request", "body": b""}, {"type": "http.disconnect"}])

    async def receive():
        await asyncio.sleep(0.05)
        return next(messages)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/api/v1/query", "headers": [],
        "query_string": b"query=up", "root_path": "", "scheme": "http",
    }  # fmt: skip
    async with asyncio.timeout(5):
        await application(scope, receive, send)
    store.free.set()
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["errorType"] == "canceled"


def test_flags_that_contradict_each_other():
    """They are refused at the start."""
    from thanostack.lib.foundation.errors import SettingsInvalid

    for given in (
        {"endpoint.sd-config": ["endpoints: []"], "endpoint.sd-config-file": ["x"]},
        {"endpoint-strict": ["dns+a:1"]},
        {"query.max-concurrent": ["0"]},
        {"enable-feature": ["nope"]},
        {"selector-label": ["a=b"]},
        {"query.mode": ["distributed"]},
    ):
        with pytest.raises(SettingsInvalid):
            load(QuerySettings, given, {})


def test_replica_labels_are_split_at_commas():
    """Repeated and comma-separated, each once."""
    settings = load(QuerySettings, {"query.replica-label": ["a,b", "b, c"]}, {})
    assert settings.query_replica_label == ("a", "b", "c")
    assert json.loads(json.dumps(settings.effective()))


@pytest.mark.parametrize(
    ("path", "params"),
    [("query", {"query": "up"}), ("series", {"match[]": "up"}), ("label/job/values", {})],
)
async def test_what_is_missing_in_this_process_is_said(api, path, params):
    """As for stores behind a wire: a warning, or with partial_response=false an error."""
    lost = external_run({"replica": "a", "tenant_id": "lost"})
    client = await api(stores=[*replicas(), LabeledStore(lost, UnreadableStore(), "it is lost")])
    answer = (await client.get(f"/api/v1/{path}", params=params)).json()
    assert (answer["status"], answer["warnings"]) == ("success", ["it is lost"])
    if path == "query":
        strict = await client.get("/api/v1/query", params={**params, "partial_response": "false"})
        assert "it is lost" in strict.json()["error"]
