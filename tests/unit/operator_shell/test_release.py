"""Before the uninstallation: the operator is stopped, and then every stack is let go."""

import datetime as dt

import pytest

from thanostack_operator import release as module
from thanostack_operator.kube import ApiError, KubeClient
from thanostack_operator.lease import LEASE_S
from thanostack_operator.manifests.names import FINALIZER
from thanostack_operator.release import release
from thanostack_operator.testing.api_server import FakeApiServer, Refusal

DEPLOYMENT = "/apis/apps/v1/namespaces/home/deployments/operator"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/home/leases/lease"
STACKS = "/apis/thanostack.io/v1alpha1/namespaces/{}/thanosstacks/{}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(module, "WAIT_MAX_S", 0.3)


def server_with(**stacks):
    """Return an API server with the operator, and stacks by "namespace_name"."""
    server = FakeApiServer()
    server.put(DEPLOYMENT, {"metadata": {"name": "operator"}, "spec": {"replicas": 2}})
    for key, finalizers in stacks.items():
        namespace, name = key.split("_")
        metadata = {"name": name, "namespace": namespace, "finalizers": finalizers}
        server.put(STACKS.format(namespace, name), {"metadata": metadata})
    return server


def held(server, age_s=0.0, **spec):
    renewed = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age_s)
    spec = {"holderIdentity": "pod", "renewTime": renewed.isoformat()} | spec
    server.put(LEASE, {"metadata": {"name": "lease"}, "spec": spec})


async def run(server, namespaces=(), deployment="operator"):
    return await release(
        KubeClient(server.client()),
        namespaces,
        home="home",
        lease_name="lease",
        deployment=deployment,
    )


def finalizers(server, namespace, name):
    return server.objects[STACKS.format(namespace, name)]["metadata"]["finalizers"]


async def test_the_operator_is_stopped_before_any_stack_is_let_go():
    server = server_with(a_x=[FINALIZER], b_y=["their/own", FINALIZER], b_z=["their/own"])
    assert await run(server) == 2
    assert server.objects[DEPLOYMENT]["spec"]["replicas"] == 0
    assert finalizers(server, "a", "x") == []
    assert finalizers(server, "b", "y") == ["their/own"]
    assert server.writes() == [
        f"PATCH {DEPLOYMENT}",
        f"PATCH {STACKS.format('a', 'x')}",
        f"PATCH {STACKS.format('b', 'y')}",
    ]


async def test_only_stacks_of_the_given_namespaces_are_let_go():
    server = server_with(a_x=[FINALIZER], b_x=[FINALIZER], c_x=[FINALIZER])
    assert await run(server, ["a", "c"]) == 2
    assert finalizers(server, "b", "x") == [FINALIZER]


async def test_an_operator_that_still_renews_is_waited_for():
    """It would put the finalizer back."""
    server = server_with(a_x=[FINALIZER])
    held(server)
    with pytest.raises(ApiError, match="an operator still renews the lease home/lease"):
        await run(server)
    assert finalizers(server, "a", "x") == [FINALIZER]


@pytest.mark.parametrize(
    "how",
    [
        {"age_s": LEASE_S + 1},
        {"holderIdentity": None},
        {"holderIdentity": ""},
        {"renewTime": None},
        {"renewTime": "soon"},
    ],
)
async def test_a_lease_that_nobody_holds_is_no_hindrance(how):
    server = server_with(a_x=[FINALIZER])
    held(server, **how)
    assert await run(server) == 1


async def test_a_lease_given_back_while_it_is_waited_for():
    server = server_with(a_x=[FINALIZER])
    held(server)
    looks = []

    def look():
        looks.append(1)
        if len(looks) == 3:
            held(server, holderIdentity=None)

    server.faults[f"GET {LEASE}"] = look
    assert await run(server) == 1
    assert len(looks) == 3


async def test_an_operator_that_runs_elsewhere_is_not_stopped_but_waited_for():
    server = server_with(a_x=[FINALIZER])
    assert await run(server, deployment="") == 1
    assert server.objects[DEPLOYMENT]["spec"]["replicas"] == 2


async def test_a_stack_that_goes_meanwhile_is_no_error():
    server = server_with(a_x=[FINALIZER], a_y=[FINALIZER])
    path = STACKS.format("a", "x")
    server.faults[f"PATCH {path}"] = lambda: server.objects.pop(path, None)
    assert await run(server) == 1


async def test_what_is_refused_is_told():
    server = server_with(a_x=[FINALIZER])

    def refuse():
        raise Refusal(403, "forbidden")

    server.faults["PATCH .*/thanosstacks/x"] = refuse
    with pytest.raises(ApiError, match="403: forbidden"):
        await run(server)
    server.faults = {f"PATCH {DEPLOYMENT}": refuse}
    with pytest.raises(ApiError, match="403: forbidden"):
        await run(server)
    assert finalizers(server, "a", "x") == [FINALIZER]
