"""A finalizer that somebody else sets between our reading and our writing is not lost."""

from thanostack_operator.api.reading import read_stack
from thanostack_operator.apply import carry_out
from thanostack_operator.kube import KubeClient
from thanostack_operator.manifests.names import FINALIZER
from thanostack_operator.plan.outcome import Plan, SetFinalizers
from thanostack_operator.release import release
from thanostack_operator.testing.api_server import FakeApiServer

PATH = "/apis/thanostack.io/v1alpha1/namespaces/ns/thanosstacks/x"
STACK = {"metadata": {"name": "x", "namespace": "ns", "finalizers": [FINALIZER]}, "spec": {}}


def finalizers(server):
    return server.objects[PATH]["metadata"]["finalizers"]


def set_by_another(server):
    """Return a fault: another controller sets its finalizer, once."""

    def fault():
        server.faults.clear()
        metadata = {**STACK["metadata"], "finalizers": [FINALIZER, "their/own"]}
        server.put(PATH, {**server.objects[PATH], "metadata": metadata})

    return fault


async def carry(server, stack, *finalizers_after):
    plan = Plan(actions=(SetFinalizers(finalizers_after),))
    return await carry_out(plan, stack, KubeClient(server.client()), None, {})


async def test_a_plan_that_is_older_than_the_resource_is_refused():
    server = FakeApiServer()
    stack = read_stack(server.put(PATH, STACK))
    server.faults[f"PATCH {PATH}"] = set_by_another(server)
    failures = await carry(server, stack)
    assert finalizers(server) == [FINALIZER, "their/own"]
    assert failures["ThanosStack/x"].startswith("409")  # the next pass reads it anew
    assert await carry(server, read_stack(server.objects[PATH]), "their/own") == {}
    assert finalizers(server) == ["their/own"]


async def run_release(server):
    return await release(
        KubeClient(server.client()), [], home="home", lease_name="lease", deployment=""
    )


async def test_the_release_reads_anew_and_keeps_what_came_meanwhile():
    server = FakeApiServer()
    server.put(PATH, STACK)
    server.faults[f"PATCH {PATH}"] = set_by_another(server)
    assert await run_release(server) == 1
    assert finalizers(server) == ["their/own"]
    assert server.writes() == [f"PATCH {PATH}"] * 2


async def test_a_release_after_the_crd_and_the_deployment_went_has_nothing_to_do():
    """Else the hook of an uninstallation would fail for ever."""
    server = FakeApiServer(absent={"thanostack.io/v1alpha1"})
    client = KubeClient(server.client())
    names = {"home": "home", "lease_name": "lease", "deployment": "operator"}
    assert await release(client, ["ns", "other"], **names) == 0
    assert f"GET {PATH.removesuffix('/x')}" in server.requests
