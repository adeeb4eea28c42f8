"""What is read of a cluster, whatever it looks like, and what is asked for that."""

import asyncio

import pytest

from thanostack_operator.api.reading import read_stack
from thanostack_operator.kube import ApiError, KubeClient
from thanostack_operator.observe import is_ready, is_running, observe, pod_problem
from thanostack_operator.plan.observed import Drain, Ingestor, Ref, Router
from thanostack_operator.testing.api_server import FakeApiServer, Refusal
from thanostack_operator.testing.clusters import cluster_at_rest, ring_spec

CORE = "/api/v1/namespaces/ns"
APPS = "/apis/apps/v1/namespaces/ns"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices"
LABELS = {"thanostack.io/stack": "x"}
INGESTOR = LABELS | {"thanostack.io/ring": "default", "app.kubernetes.io/component": "ingestor"}
ROUTER = LABELS | {"app.kubernetes.io/component": "receive"}
RUNNING = {
    "podIP": "10.0.0.1",
    "containerStatuses": [{"state": {"running": {}}}],
    "conditions": [{"type": "Ready", "status": "True"}],
}
UNREADY = RUNNING | {"conditions": [{"type": "Ready", "status": "False"}]}
PATHS = {
    "StatefulSet": f"{APPS}/statefulsets",
    "Deployment": f"{APPS}/deployments",
    "Service": f"{CORE}/services",
    "ConfigMap": f"{CORE}/configmaps",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/ns/poddisruptionbudgets",
}


class Pods:
    """Pods that answer, and which were asked."""

    def __init__(self):
        self.asked = []

    async def config_hash(self, address):
        self.asked.append(address)
        return 17.0, ""

    async def drain(self, address):
        self.asked.append(address)
        return Drain("draining")


def stack_of(**spec):
    return read_stack(
        {"metadata": {"name": "x", "namespace": "ns", "uid": "u"}, "spec": ring_spec(3) | spec}
    )


def pod(server, name, labels, **status):
    server.put(f"{CORE}/pods/{name}", {"metadata": {"name": name, "labels": labels},
                                       "status": status})  # fmt: skip


async def look(server, pods=None, stack=None):
    kube = KubeClient(server.client())
    return await observe(stack or stack_of(), kube, pods or Pods(), now=5.0, failures={"a": "b"})


async def test_of_nothing_there_is_nothing():
    observed = await look(FakeApiServer())
    assert (observed.objects, observed.ingestors, observed.routers) == ({}, {}, ())
    assert (observed.pods, observed.drains, observed.namesakes) == (frozenset(), {}, {})
    assert (observed.now, observed.failures, observed.missing) == (5.0, {"a": "b"}, frozenset())


def served(cluster):
    """Return an API server with what a cluster in memory has."""
    server = FakeApiServer(absent={"monitoring.coreos.com/v1"})
    for ref, live in cluster.objects.items():
        server.put(f"{PATHS[ref.kind]}/{ref.name}", live)
    for name, claim in cluster.claims.items():
        server.put(f"{CORE}/persistentvolumeclaims/{name}", claim)
    return server


async def test_all_objects_of_a_stack_are_found_and_at_rest_nothing_more_is_asked():
    cluster = cluster_at_rest()
    server = served(cluster)
    observed = await look(server)
    assert observed.objects.keys() == cluster.objects.keys()
    assert {ref.uid for ref in observed.objects} == {ref.uid for ref in cluster.objects}
    assert observed.claims.keys() == cluster.claims.keys()
    # A list a kind, slices, pods, claims, one question of discovery.
    assert len(server.requests) == 9
    assert not observed.service_monitors


async def test_objects_of_other_stacks_are_not_seen():
    server = served(cluster_at_rest())
    labels = {"thanostack.io/stack": "y"}
    server.put(f"{CORE}/services/y-query", {"metadata": {"name": "y-query", "labels": labels}})
    server.put(f"{CORE}/services/other", {"metadata": {"name": "other"}})
    server.put(
        "/api/v1/namespaces/elsewhere/services/x-query",
        {"metadata": {"name": "x-query", "labels": LABELS}},
    )
    observed = await look(server)
    assert [ref.name for ref in observed.objects if ref.kind == "Service"] == [
        "x-ingestor-default", "x-receive", "x-query"
    ]  # fmt: skip
    assert observed.namesakes == {}


async def test_a_namesake_without_the_label_is_looked_up():
    server = FakeApiServer()
    found = server.put(f"{CORE}/services/x-query", {"metadata": {"name": "x-query"}})
    observed = await look(server)
    ref = Ref("v1", "Service", "x-query", found["metadata"]["uid"])
    assert observed.namesakes == {ref: found}
    (seen,) = observed.namesakes
    assert seen.uid == ref.uid
    assert observed.objects == {}


@pytest.mark.parametrize(
    "path", [f"{CORE}/pods", SLICES, f"{APPS}/statefulsets", f"{CORE}/services/x-query"]
)
async def test_what_cannot_be_read_ends_the_pass(path):
    server = FakeApiServer()

    def refuse():
        raise Refusal(403, "forbidden: may not")

    server.faults[f"GET {path}"] = refuse
    with pytest.raises(ApiError, match="403: forbidden: may not"):
        await look(server)


SECRETS = {"query": {"secrets": [{"name": "there", "mountPath": "/a"},
                                 {"name": "gone", "mountPath": "/b"}],
                     "configMaps": [{"name": "file", "mountPath": "/c"}]}}  # fmt: skip


async def test_secrets_and_config_maps_that_are_not_there_are_named():
    server = FakeApiServer()
    server.put(f"{CORE}/secrets/there", {"metadata": {"name": "there"}})
    observed = await look(server, stack=stack_of(**SECRETS))
    assert observed.missing == {"Secret/gone", "ConfigMap/file"}


async def test_files_of_further_volumes_are_looked_for_too():
    """Kubernetes never starts a pod without them, and says so nowhere but in an event."""
    volumes = [
        {"name": "a", "secret": {"secretName": "gone"}},
        {"name": "b", "configMap": {"name": "file"}},
        {"name": "c", "configMap": {"name": "may-be-gone", "optional": True}},
        {"name": "d", "secret": {"secretName": "../../other/secrets/theirs"}},
        {"name": "e", "secret": "nonsense"},
        {"name": "f", "persistentVolumeClaim": {"claimName": "claim"}},
    ]
    observed = await look(FakeApiServer(), stack=stack_of(query={"extraVolumes": volumes}))
    assert observed.missing == {"Secret/gone", "ConfigMap/file"}


@pytest.mark.parametrize("status", [403, 500])
async def test_not_being_allowed_to_look_for_secrets_is_no_error(status):
    server = FakeApiServer()

    def refuse():
        raise Refusal(status, "no")

    server.faults["GET .*/secrets/.*"] = refuse
    if status == 403:
        assert (await look(server, stack=stack_of(**SECRETS))).missing is None
        return
    with pytest.raises(ApiError, match="500"):
        await look(server, stack=stack_of(**SECRETS))


def endpoint(ordinal, zone=None, **conditions):
    target = {"kind": "Pod", "name": f"x-ingestor-default-{ordinal}"}
    return {"targetRef": target, "zone": zone, "conditions": conditions}


async def test_endpoints_are_read_in_numeric_order_whatever_their_conditions():
    server = FakeApiServer()
    slices = [
        [endpoint(10, "a", serving=True), endpoint(2), endpoint(1, serving=False)],
        [endpoint(3, serving=True, terminating=True), {"addresses": ["10.0.0.9"]}],
        None,
    ]
    for number, endpoints in enumerate(slices):
        metadata = {"name": f"s{number}", "labels": INGESTOR}
        server.put(f"{SLICES}/s{number}", {"metadata": metadata, "endpoints": endpoints})
    server.put(f"{SLICES}/of-routers", {"metadata": {"name": "of-routers", "labels": ROUTER},
                                        "endpoints": [endpoint(7)]})  # fmt: skip
    observed = await look(server)
    assert observed.ingestors == {
        "default": (
            Ingestor(1, ready=False),
            Ingestor(2, ready=True),  # conditions that are not said are good
            Ingestor(3, ready=False, terminating=True),
            Ingestor(10, ready=True, zone="a"),
        )
    }


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_of_a_pod_in_two_slices_the_ready_endpoint_counts(order):
    server = FakeApiServer()
    endpoints = [endpoint(0, serving=False), endpoint(0, serving=True)]
    for number in order:
        metadata = {"name": f"s{number}", "labels": INGESTOR}
        server.put(f"{SLICES}/s{number}", {"metadata": metadata, "endpoints": [endpoints[number]]})
    assert (await look(server)).ingestors == {"default": (Ingestor(0, ready=True),)}


async def test_running_routers_are_asked_for_their_hash():
    server, pods = FakeApiServer(), Pods()
    pod(server, "r0", ROUTER, **RUNNING)
    pod(server, "r1", ROUTER, **UNREADY | {"podIP": "10.0.0.2"})
    pod(server, "r2", ROUTER, **RUNNING | {"podIP": None})
    pod(server, "r3", ROUTER, podIP="10.0.0.4", containerStatuses=[{"state": {"waiting": {}}}])
    pod(server, "q0", LABELS | {"app.kubernetes.io/component": "query"}, **RUNNING)
    observed = await look(server, pods)
    assert observed.routers == (Router("r0", True, 17.0), Router("r1", False, 17.0))
    assert pods.asked == ["10.0.0.1", "10.0.0.2"]


async def test_ingestors_that_leave_or_are_not_ready_are_asked_for_their_drain():
    server, pods = FakeApiServer(), Pods()
    name = "x-ingestor-default"
    pod(server, f"{name}-0", INGESTOR, **RUNNING)
    pod(server, f"{name}-1", INGESTOR, **UNREADY | {"podIP": "10.0.0.11"})
    pod(server, f"{name}-3", INGESTOR, **RUNNING | {"podIP": "10.0.0.13"})
    pod(server, f"{name}-4", INGESTOR)
    left = INGESTOR | {"thanostack.io/ring": "left"}
    pod(server, "x-ingestor-left-0", left, **RUNNING | {"podIP": "10.0.0.20"})
    observed = await look(server, pods)
    assert sorted(pods.asked) == ["10.0.0.11", "10.0.0.13", "10.0.0.20"]
    assert observed.drains == {
        f"{name}-1": Drain("draining"),
        f"{name}-3": Drain("draining"),
        f"{name}-4": Drain("unknown", "its container does not run"),
        "x-ingestor-left-0": Drain("draining"),
    }
    assert observed.pods == {f"{name}-{n}" for n in (0, 1, 3, 4)} | {"x-ingestor-left-0"}
    assert f"{name}-4" not in observed.addresses


CLAIM = f"{CORE}/persistentvolumeclaims/data-x-ingestor-default-3"
UNBOUND, BOUND = {"status": {"phase": "Pending"}}, {"status": {"phase": "Bound"}}
BINDING = UNBOUND | {"spec": {"volumeName": "pv"}}
PENDING = {"phase": "Pending"}
PULLING = [{"state": {"waiting": {"reason": "ImagePullBackOff"}}, "restartCount": 0}]
CRASHED = [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 1}]
ENDED = [{"state": {"terminated": {"exitCode": 1}}, "restartCount": 0}]


@pytest.mark.parametrize(
    ("status", "claim", "never_ran"),
    [
        (PENDING, UNBOUND, True),
        (PENDING | {"containerStatuses": PULLING}, UNBOUND, True),
        (PENDING, None, True),
        (PENDING, BOUND, False),  # it may hold what an earlier pod wrote
        (PENDING, BINDING, False),
        (PENDING, {"status": {"phase": "Lost"}}, False),
        (PENDING | {"containerStatuses": CRASHED}, UNBOUND, False),
        (PENDING | {"containerStatuses": ENDED}, UNBOUND, False),
        ({"phase": "Unknown"}, UNBOUND, False),
        ({}, UNBOUND, False),
    ],
)
async def test_an_ingestor_that_leaves_never_ran_if_nothing_started_and_no_volume_is_there(
    status, claim, never_ran
):
    server = FakeApiServer()
    put_pending(server, 3, status)
    if claim:
        server.put(CLAIM, claim)
    observed = await look(server)
    assert observed.drains["x-ingestor-default-3"].never_ran is never_ran


async def test_whether_one_never_ran_is_not_asked_of_those_that_stay_or_without_the_right():
    server = FakeApiServer()
    put_pending(server, 0, PENDING)
    assert not (await look(server)).drains["x-ingestor-default-0"].never_ran
    assert not [asked for asked in server.requests if "claims/" in asked]
    put_pending(server, 3, PENDING)
    server.faults[f"GET {CLAIM}"] = forbid
    assert not (await look(server)).drains["x-ingestor-default-3"].never_ran


def put_pending(server, ordinal, status):
    name = f"x-ingestor-default-{ordinal}"
    metadata = {"name": name, "namespace": "ns", "labels": INGESTOR}
    server.put(f"{CORE}/pods/{name}", {"metadata": metadata, "status": status})


def forbid():
    raise Refusal(403, "forbidden")


async def test_of_a_stack_that_is_deleted_every_ingestor_is_asked():
    server, pods = FakeApiServer(), Pods()
    pod(server, "x-ingestor-default-0", INGESTOR, **RUNNING)
    deleted = read_stack(
        {"metadata": {"name": "x", "namespace": "ns", "uid": "u", "deletionTimestamp": "now"}}
    )
    await look(server, pods, deleted)
    assert pods.asked == ["10.0.0.1"]
    assert not [asked for asked in server.requests if "/x-" in asked]  # nothing is made any more


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"containerStatuses": None, "conditions": None},
        {"containerStatuses": [{}], "conditions": []},
        {"containerStatuses": [{"state": {}}]},
        {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]},
        {"containerStatuses": [{"state": {"waiting": {}}}]},
        {"conditions": [{"type": "PodScheduled", "status": "True"}]},
    ],
)
async def test_a_pod_that_says_little_neither_runs_nor_has_a_problem(status):
    server = FakeApiServer()
    metadata = {"name": "x-ingestor-default-0", "labels": INGESTOR}
    server.put(f"{CORE}/pods/x-ingestor-default-0", {"metadata": metadata, "status": status})
    observed = await look(server)
    assert observed.pod_problems == {}
    assert observed.drains["x-ingestor-default-0"].state == "unknown"
    made = {"metadata": metadata, "status": status}
    assert (is_running(made), is_ready(made)) == (False, False)


def waiting(reason, message=None, last=None):
    terminated = {"terminated": {"message": last}} if last else {}
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [{"state": state, "lastState": terminated}]}


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (waiting("ImagePullBackOff", "no such image"), "ImagePullBackOff: no such image"),
        (waiting("CrashLoopBackOff", None, "out of\nspace\n"), "CrashLoopBackOff: out of\nspace"),
        (waiting("CrashLoopBackOff", "again", "x" * 999), f"CrashLoopBackOff: again: {'x' * 300}"),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                             "message": "no node"}]},
            "Unschedulable: no node",
        ),
    ],
)  # fmt: skip
def test_a_pod_that_does_not_run_says_why(status, problem):
    assert pod_problem({"status": status}) == problem


async def test_what_pods_say_is_asked_for_at_once():
    """Ten routers that take three seconds to answer take three seconds."""

    class Slow(Pods):
        async def config_hash(self, address):
            await asyncio.sleep(3)
            return await super().config_hash(address)

    server = FakeApiServer()
    for number in range(10):
        pod(server, f"r{number}", ROUTER, **RUNNING | {"podIP": f"10.0.0.{number}"})
    loop = asyncio.get_running_loop()
    began = loop.time()
    observed = await look(server, Slow())
    assert len(observed.routers) == 10
    assert loop.time() - began == 3
