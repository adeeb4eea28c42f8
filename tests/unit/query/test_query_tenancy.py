"""Enforced tenancy over HTTP: no request, however it is written, leaves its tenant."""

import httpx
import pytest
from fastapi import FastAPI

from thanostack.lib.storeapi.server import LabeledStore, StoreServer, external_run
from thanostack.query.endpoints import LocalEndpoint
from thanostack.query.service import tenant_metadata
from thanostack.query.settings import QuerySettings
from thanostack.query.wiring import Querier
from thanostack.runtime.http_common import CLIENT_CERTIFICATE
from thanostack.runtime.logs import configure
from thanostack.runtime.process import new_process
from thanostack.runtime.settings import load
from thanostack.testing.certificates import Authority
from thanostack.testing.memory_store import MemoryStore

START = 1_700_000_000


def store(tenant, *names):
    samples = [(START * 1000 + k * 15_000, float(k)) for k in range(40)]
    rows = [({"__name__": name, "of": tenant}, samples) for name in names]
    return LabeledStore(external_run({"replica": "a", "tenant_id": tenant}), MemoryStore(rows))


@pytest.fixture
async def ask():
    """Return a function that makes a client of a querier with some flags over two tenants."""
    made = []

    async def make(*flags, certificate=None, **headers):
        given = {}
        for flag in ("--query.enforce-tenancy=true", *flags):
            name, _, value = flag.removeprefix("--").partition("=")
            given.setdefault(name, []).append(value)
        process = new_process("query", configure("query", level="error", form="logfmt"))
        stores = {"a": [store("a", "up", "only_a")], "b": [store("b", "up", "only_b")]}
        local = [LocalEndpoint(name, StoreServer(lambda s=s: s)) for name, s in stores.items()]
        querier = Querier(load(QuerySettings, given, {}), process, local=local)
        application = FastAPI()
        application.include_router(querier.api().router())

        async def certified(scope, receive, send):
            scope[CLIENT_CERTIFICATE] = certificate
            await application(scope, receive, send)

        transport = httpx.ASGITransport(certified)
        base = "http://q/api/v1/"
        client = httpx.AsyncClient(transport=transport, base_url=base, headers=headers)
        made.append(client)
        return client

    yield make
    for client in made:
        await client.aclose()


async def query(client, text):
    answer = (await client.get("query", params={"query": text, "time": START + 300})).json()
    assert answer["status"] == "success", answer
    return [(item["metric"], item["value"][1]) for item in answer["data"]["result"]]


async def test_selectors_stay_inside(ask):
    """Whatever a query says about the tenant label is replaced, as upstream replaces it."""
    client = await ask(**{"THANOS-TENANT": "a"})
    for text in (
        "up",
        'up{tenant_id="b"}',
        'up{tenant_id=~".*"}',
        'up{tenant_id!="a"}',
        '{__name__=~"up", tenant_id="b"}',
        'max_over_time(up{tenant_id="b"}[2m])',
        'max_over_time(up{tenant_id="b"}[2m:15s])',
        'up{tenant_id="b"} offset 15s',
        '(up{tenant_id="b"} or up{tenant_id="b"}) + 0',
        'topk(scalar(count(up{tenant_id="b"})), up{tenant_id="b"})',
        'topk(scalar(count(up{tenant_id=~".+"})), up)',
    ):
        found = await query(client, text)
        assert [labels["of"] for labels, _ in found] == ["a"], text


async def test_an_aggregations_parameter_is_no_exception(ask):
    """Upstream looks at every tenant's series there."""
    client = await ask(**{"THANOS-TENANT": "a"})
    found = await query(client, 'quantile(scalar(count(up{tenant_id=~".+"})) - 1, up * 0 + 7)')
    assert [value for _, value in found] == ["7"]  # one tenant: the quantile 0
    answer = await client.get("query", params={"query": "topk(scalar(only_b), up)", "time": START})
    assert answer.json()["error"] == "Parameter value is NaN"  # it sees none


async def test_labels_that_come_from_the_query(ask):
    """absent() makes labels of matchers: upstream's rewriting shows there, and so does ours."""
    client = await ask(**{"THANOS-TENANT": "a"})
    assert await query(client, "absent(only_b)") == [({"tenant_id": "a"}, "1")]
    assert await query(client, 'absent(only_b{x="y"})') == [({"tenant_id": "a", "x": "y"}, "1")]


async def test_metadata_stays_inside(ask):
    """With and without match[], whatever it says."""
    client = await ask(**{"THANOS-TENANT": "a"})
    for matches in ([], ['up{tenant_id="b"}'], ['{__name__=~".+"}', '{of="b", tenant_id!="a"}']):
        params = {"match[]": matches} if matches else {}
        values = (await client.get("label/of/values", params=params)).json()["data"]
        assert values == ["a"], matches
        names = (await client.get("label/__name__/values", params=params)).json()["data"]
        assert "only_b" not in names
        assert (await client.get("labels", params=params)).status_code == 200
        if matches:
            found = (await client.get("series", params=params)).json()["data"]
            assert {labels["of"] for labels in found} <= {"a"}, matches


async def test_endpoints_stay_inside(ask):
    """Label sets of others are not shown; upstream shows them."""
    client = await ask(**{"THANOS-TENANT": "a"})
    page = (await client.get("stores")).json()["data"]
    sets = [labels for kind in page.values() for one in kind for labels in one["labelSets"]]
    assert sets == [{"replica": "a", "tenant_id": "a"}]


async def test_who_it_is(ask):
    """The header configured, else THANOS-TENANT, else the default; and any label."""
    client = await ask("--query.tenant-header=X-Scope", **{"x-scope": "b", "THANOS-TENANT": "a"})
    assert [labels["of"] for labels, _ in await query(client, "up")] == ["b"]
    client = await ask("--query.tenant-header=X-Scope", **{"THANOS-TENANT": "a"})
    assert [labels["of"] for labels, _ in await query(client, "up")] == ["a"]
    client = await ask("--query.default-tenant-id=b")
    assert [labels["of"] for labels, _ in await query(client, "up")] == ["b"]
    client = await ask("--query.tenant-label-name=of", **{"THANOS-TENANT": "b"})
    assert [labels["tenant_id"] for labels, _ in await query(client, "up")] == ["b"]
    assert await query(await ask(**{"THANOS-TENANT": "nobody"}), "up") == []


async def test_who_it_is_by_certificate(ask, tmp_path):
    """The header is not looked at then, and nobody gets in without."""
    pair = Authority(tmp_path).issue("c", common_name="b")
    flag = "--query.tenant-certificate-field=commonName"
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    shown = x509.load_pem_x509_certificate(pair.cert.read_bytes()).public_bytes(Encoding.DER)
    client = await ask(flag, certificate=shown, **{"THANOS-TENANT": "a"})
    assert [labels["of"] for labels, _ in await query(client, "up")] == ["b"]
    for other in (await ask(flag), await ask(flag.replace("commonName", "organization"))):
        answer = await other.get("query", params={"query": "up"}, headers={"THANOS-TENANT": "a"})
        assert (answer.status_code, answer.json()["errorType"]) == (400, "bad_data")


def test_how_endpoints_hear_of_it():
    """As metadata, unless grpcio would refuse the call for it."""
    assert tenant_metadata("a b") == (("thanos-tenant", "a b"),)
    assert tenant_metadata("ä") == ()


async def test_a_name_beyond_ascii(ask):
    """It is taken from the header's bytes, as the write path takes it."""
    client = await ask()
    answer = await client.get(
        "query", params={"query": "absent(x)"}, headers=[(b"thanos-tenant", "ä".encode())]
    )
    assert answer.json()["data"]["result"][0]["metric"] == {"tenant_id": "ä"}


async def test_mistakes(ask):
    """Upstream's words, its spelling included; a tenant that is none is refused."""
    client = await ask()
    answer = await client.get("query", params={"query": "up{"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(
        "error parsing query string, when enforcing tenenacy: 1:4: parse error: "
    )
    answer = await client.get("series", params={"match[]": "up{"})
    assert answer.json()["error"].startswith("1:4: parse error: ")
    answer = await client.get("query", params={"query": "up"}, headers={"THANOS-TENANT": "../b"})
    assert answer.status_code == 400
    assert "tenant name not valid" in answer.json()["error"]
