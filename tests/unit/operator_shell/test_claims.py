"""Claims and classes are read as far as that is permitted, and grow on a real path of requests."""

import pytest

from thanostack_operator.api.reading import read_stack
from thanostack_operator.apply import carry_out
from thanostack_operator.kube import ApiError, KubeClient
from thanostack_operator.observe import observe
from thanostack_operator.plan.observed import Drain, Ref
from thanostack_operator.plan.outcome import GrowClaim, Plan, ReplaceSet
from thanostack_operator.plan.planner import plan
from thanostack_operator.plan.volumes import request_of
from thanostack_operator.testing.api_server import FakeApiServer, Refusal
from thanostack_operator.testing.clusters import cluster_at_rest, condition, ring_spec
from thanostack_operator.testing.stacks import VERSION

CORE = "/api/v1/namespaces/ns"
CLAIMS = f"{CORE}/persistentvolumeclaims"
SET = "x-ingestor-default"
SET_PATH = f"/apis/apps/v1/namespaces/ns/statefulsets/{SET}"
STACK = "/apis/thanostack.io/v1alpha1/namespaces/ns/thanosstacks/x"
CLASS = "/apis/storage.k8s.io/v1/storageclasses/standard"
FOLDERS = {
    "StatefulSet": "/apis/apps/v1/namespaces/ns/statefulsets",
    "Deployment": "/apis/apps/v1/namespaces/ns/deployments",
    "Service": f"{CORE}/services",
    "ConfigMap": f"{CORE}/configmaps",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/ns/poddisruptionbudgets",
}


class Pods:
    """Nobody is asked."""

    async def drain(self, _):
        return Drain("unknown", "refused")


def sized(size):
    return ring_spec(3, storage={"size": size})


class World:
    """An API server with a stack at rest, which asks for 20Gi where there are 10Gi."""

    def __init__(self, allowed=True):
        cluster = cluster_at_rest(**sized("10Gi"))
        self.now = cluster.now
        self.server = server = FakeApiServer(absent={"monitoring.coreos.com/v1"})
        for ref, live in cluster.objects.items():
            server.put(f"{FOLDERS[ref.kind]}/{ref.name}", live)
        for name, claim in cluster.claims.items():
            server.put(f"{CLAIMS}/{name}", claim)
        uid = server.objects[SET_PATH]["metadata"]["uid"]
        for name, pod in cluster.pods.items():
            if pod.ring:
                labels = {"thanostack.io/stack": "x", "thanostack.io/ring": "default"}
                metadata = {"name": name, "namespace": "ns", "labels": labels}
                metadata |= {"ownerReferences": [{"uid": uid}]}
                server.put(f"{CORE}/pods/{name}", {"metadata": metadata})
        server.put(CLASS, {"allowVolumeExpansion": allowed})
        metadata = {"name": "x", "namespace": "ns", "uid": "u", "generation": 2}
        body = {"metadata": metadata, "spec": sized("20Gi"), "status": cluster.stack.status}
        server.put(STACK, body)
        server.requests.clear()
        self.failures = {}

    async def look(self):
        stack = read_stack(self.server.objects[STACK])
        kube = KubeClient(self.server.client())
        seen = await observe(stack, kube, Pods(), now=self.now, failures=self.failures)
        return stack, kube, seen

    async def operate(self):
        """Make one pass and return its plan."""
        stack, kube, seen = await self.look()
        planned = plan(stack, seen, operator_version=VERSION)
        self.failures = await carry_out(planned, stack, kube, Pods(), {})
        self.now += 3
        return planned

    async def operate_for(self, n_passes):
        for _ in range(n_passes):
            await self.operate()

    def sizes(self):
        claims = [found for path, found in self.server.objects.items() if path.startswith(CLAIMS)]
        found = self.server.objects.get(SET_PATH)
        templates = found["spec"]["volumeClaimTemplates"] if found else []
        return [request_of(claim) for claim in (*claims, *templates)]

    def pods(self):
        return [path for path in self.server.objects if path.startswith(f"{CORE}/pods/")]


def refuse(status, message="no"):
    def fault():
        raise Refusal(status, message)

    return fault


async def test_claims_are_patched_and_the_set_is_made_anew_around_its_pods():
    world = World()
    await world.operate_for(4)
    assert world.sizes() == ["20Gi"] * 4
    assert len(world.pods()) == 3
    writes = [asked for asked in world.server.writes() if STACK not in asked]
    assert writes == [
        *(f"PATCH {CLAIMS}/data-{SET}-{n}" for n in range(3)),
        f"DELETE {SET_PATH}",
        f"PATCH {SET_PATH}",
    ]


class Killed(BaseException):
    """What ends an operator between two requests."""


@pytest.mark.parametrize("n_writes", range(10))
async def test_an_operator_that_is_killed_between_any_two_writes_is_followed_by_another(n_writes):
    """The next one knows nothing but what is there."""
    world, left = World(), [n_writes]

    def count():
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    world.server.faults["(PATCH|DELETE|POST) .*"] = count
    with pytest.raises(Killed):
        await world.operate_for(20)
    world.server.faults.clear()
    world.failures = {}
    for _ in range(5):
        planned = await world.operate()
        assert "Drift" not in [event.reason for event in planned.events]
    assert world.sizes() == ["20Gi"] * 4
    assert len(world.pods()) == 3


async def test_nothing_is_patched_or_deleted_that_was_written_to_meanwhile():
    world = World()
    server = world.server
    claim = server.objects[f"{CLAIMS}/data-{SET}-0"]["metadata"]
    live = server.objects[SET_PATH]["metadata"]
    ref = Ref("apps/v1", "StatefulSet", SET, live["uid"])
    actions = (
        GrowClaim(f"data-{SET}-0", "20Gi", claim["uid"], "former"),
        GrowClaim(f"data-{SET}-1", "20Gi", "former", ""),
        GrowClaim("data-gone", "20Gi", "u", "1"),
        ReplaceSet(ref, "former", "20Gi"),
    )
    stack, kube, _ = await world.look()
    failures = await carry_out(Plan(actions=actions), stack, kube, Pods(), {})
    assert {name: why[:3] for name, why in failures.items()} == {
        f"PersistentVolumeClaim/data-{SET}-0": "409",
        f"PersistentVolumeClaim/data-{SET}-1": "409",
    }
    assert world.sizes() == ["10Gi"] * 4


async def test_a_class_is_asked_once_and_only_while_something_is_to_grow():
    world = World(allowed=False)
    planned = await world.operate()
    assert world.server.requests.count(f"GET {CLASS}") == 1
    assert "StorageClass standard does not let" in condition(planned.status, "Stalled")["message"]
    assert not [asked for asked in world.server.writes() if "claims" in asked]
    world.server.put(CLASS, {"allowVolumeExpansion": True})
    await world.operate_for(4)
    world.server.requests.clear()
    await world.operate()
    assert f"GET {CLASS}" not in world.server.requests


@pytest.mark.parametrize("status", [403, 404])
async def test_a_class_that_cannot_be_read_is_tried_and_the_refusal_passed_on(status):
    world = World()
    world.server.faults[f"GET {CLASS}"] = refuse(status)
    words = "only dynamically provisioned pvc can be resized"
    world.server.faults[f"PATCH {CLAIMS}/.*"] = refuse(403, words)
    await world.operate()
    message = condition((await world.operate()).status, "Stalled")["message"]
    assert f"data-{SET}-2 (StorageClass standard) is refused to grow: 403: {words}" in message


async def test_without_the_right_to_claims_that_is_told_and_all_else_is_seen():
    world = World()
    world.server.faults[f"GET {CLAIMS}"] = refuse(403)
    assert (await world.look())[2].claims is None
    planned = await world.operate()
    assert "may not list PersistentVolumeClaims" in condition(planned.status, "Stalled")["message"]


@pytest.mark.parametrize("path", [CLAIMS, CLASS])
async def test_an_api_server_that_fails_ends_the_look(path):
    world = World()
    world.server.faults[f"GET {path}"] = refuse(500)
    with pytest.raises(ApiError, match="500"):
        await world.look()


async def test_a_claim_without_the_label_is_known_by_its_name():
    world = World()
    bare = world.server.objects[f"{CLAIMS}/data-{SET}-1"]
    del bare["metadata"]["labels"]
    world.server.put(f"{CLAIMS}/other", {"metadata": {"name": "other"}})
    assert sorted((await world.look())[2].claims) == [f"data-{SET}-{n}" for n in range(3)]


async def test_of_a_stack_that_is_deleted_no_claim_is_read():
    world = World()
    world.server.objects[STACK]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await world.look()
    assert not [asked for asked in world.server.requests if "claims" in asked]
