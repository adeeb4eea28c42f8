"""Whatever happens in whatever order, no plan does harm, and every stack comes to rest.

A cluster in memory is changed at random: specs, crashes, evictions, silent ingestors, lagging and
restarted routers, an operator that is killed in the middle of a plan, a status that is lost,
foreign edits, volumes that may grow or not. Each plan is judged before it is carried out.
"""

import json
import random
import re
from dataclasses import replace

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from thanostack_operator.api.stack import ThanosStack, ThanosStackSpec
from thanostack_operator.api.status import ThanosStackStatus
from thanostack_operator.manifests.hashrings import read_members
from thanostack_operator.manifests.names import ingestor_name
from thanostack_operator.plan.model import Cluster
from thanostack_operator.plan.observed import dig
from thanostack_operator.plan.outcome import GrowClaim, Plan, ReplaceSet, StartDrain
from thanostack_operator.plan.planner import plan
from thanostack_operator.plan.times import duration_s, seconds
from thanostack_operator.plan.volumes import is_less, request_of
from thanostack_operator.testing.clusters import writes

NAMES = ("a", "b", "c")
FACTOR = re.compile(r"--receive.replication-factor=([0-9]+)")
TIMEOUT = "2m"
# Enough for ten ingestors to leave one by one and every component to roll out, twice over.
REST_ROUNDS_MAX = 900


def members_in(text: str | None) -> dict[str, list[int]]:
    """Return the ordinals of each ring in the order in which they stand."""
    return {} if not text else {r: [m.ordinal for m in of] for r, of in read_members(text).items()}


class PlanMachine(RuleBasedStateMachine):
    """See the module."""

    @initialize(factor=st.sampled_from([1, 3]), extra=st.integers(0, 2), zones=st.booleans())
    def start(self, factor: int, extra: int, zones: bool) -> None:
        self.factor, self.paused, self.version = factor, False, "v1"
        self.rings: dict[str, int] = {"a": factor + extra}
        self.size = 10
        self.damaged = self.broken = False
        self.cluster = Cluster(ThanosStack("x", "ns", "uid-x", 1, self.spec()))
        if zones:
            self.cluster.zones = {
                f"x-ingestor-{ring}-{n}": f"zone-{n % 3}" for ring in NAMES for n in range(9)
            }

    def spec(self) -> ThanosStackSpec:
        rings = [
            {"name": name, "replicas": n, "tenants": [f"tenant-{name}"],
             "scaleDown": {"drainTimeout": TIMEOUT}, "storage": {"size": f"{self.size}Gi"}}
            for name, n in self.rings.items()
        ]  # fmt: skip
        receive = {"replicationFactor": self.factor, "rings": rings}
        return ThanosStackSpec.model_validate(
            {"receive": receive, "paused": self.paused, "version": self.version}
        )

    # What the operator does.

    def plan(self) -> Plan:
        seen = self.cluster.observe()
        planned = plan(self.cluster.stack, seen, operator_version="v0")
        self.judge(planned)
        return planned

    @rule(s=st.sampled_from([1.0, 5.0, 20.0]))
    def operate(self, s: float) -> None:
        self.cluster.carry_out(self.plan())
        self.damaged = self.damaged and self.paused
        self.cluster.tick(s)

    @rule(rounds=st.integers(2, 30))
    def go_on(self, rounds: int) -> None:
        for _ in range(rounds):
            self.operate(5.0)

    @rule(applied=st.integers(0, 6), acts=st.booleans())
    def operator_is_killed(self, applied: int, acts: bool) -> None:
        planned = self.plan()
        part = replace(
            planned,
            apply=planned.apply[:applied],
            actions=planned.actions if acts else (),
            prune=(),
            status=None,
        )
        self.cluster.carry_out(part)

    @rule(s=st.sampled_from([5.0, 60.0, 700.0]))
    def operator_is_away(self, s: float) -> None:
        self.cluster.tick(s)

    # What users do.

    @rule(name=st.sampled_from(NAMES), more=st.integers(0, 4))
    def scale(self, name: str, more: int) -> None:
        if name in self.rings:
            self.rings[name] = self.factor + more
            self.cluster.change(self.spec())

    @rule(name=st.sampled_from(NAMES), first=st.booleans())
    def add_ring(self, name: str, first: bool) -> None:
        if name not in self.rings:
            added = {name: self.factor}
            self.rings = added | self.rings if first else self.rings | added
            self.cluster.change(self.spec())

    @rule(name=st.sampled_from(NAMES), instead=st.sampled_from([None, *NAMES]))
    def remove_ring(self, name: str, instead: str | None) -> None:
        rings = {ring: n for ring, n in self.rings.items() if ring != name}
        if instead and instead != name:
            rings.setdefault(instead, self.factor)
        if rings:
            self.rings = rings
            self.cluster.change(self.spec())

    @rule(factor=st.sampled_from([1, 3]))
    def change_factor(self, factor: int) -> None:
        self.factor = factor
        self.rings = {name: max(n, factor) for name, n in self.rings.items()}
        self.cluster.change(self.spec())

    @rule(version=st.sampled_from(["v1", "v2"]))
    def upgrade(self, version: str) -> None:
        self.version = version
        self.cluster.change(self.spec())

    @rule(by=st.integers(1, 9))
    def enlarge(self, by: int) -> None:
        self.size += by
        self.cluster.change(self.spec())

    @rule()
    def pause(self) -> None:
        self.paused = not self.paused
        self.cluster.change(self.spec())

    # What befalls a cluster.

    def any_pod(self, seed: int) -> str | None:
        names = sorted(self.cluster.pods)
        return random.Random(seed).choice(names) if names else None

    @rule(seed=st.integers(0, 99), how=st.sampled_from(["crash", "end", "silent", "failed"]))
    def pod_suffers(self, seed: int, how: str) -> None:
        name = self.any_pod(seed)
        if name is None:
            return
        if how == "crash":
            self.cluster.crash(name)
        elif how == "end":
            self.cluster.end(name)
        elif how == "silent":
            self.cluster.silent ^= {name}
        elif self.cluster.drains.get(name) == "draining":
            self.cluster.drains[name] = "failed"

    @rule(seed=st.integers(0, 99), zone=st.sampled_from(["", "zone-0", "zone-9"]))
    def node_changes(self, seed: int, zone: str) -> None:
        name = self.any_pod(seed)
        if name is not None:
            self.cluster.zones[name] = self.cluster.pods[name].zone = zone

    @rule(s=st.sampled_from([5.0, 45.0]))
    def hashrings_take_long(self, s: float) -> None:
        self.cluster.delays = replace(self.cluster.delays, load_s=s)

    @rule()
    def images_come_and_go(self) -> None:
        self.broken = not self.broken
        images = {"thanostack/thanostack:v2"} if self.broken else set()
        self.cluster.broken_images = images

    @rule()
    def the_storage_class_changes(self) -> None:
        may = self.cluster.expandable.get("standard", True)
        self.cluster.expandable = {"standard": not may}

    @precondition(lambda self: not self.damaged)
    @rule()
    def status_is_lost(self) -> None:
        self.cluster.stack = replace(self.cluster.stack, status=None)

    @precondition(lambda self: dig(self.cluster.stack.status, "rings"))
    @rule(how=st.sampled_from(["text", "gone"]))
    def hashrings_are_edited(self, how: str) -> None:
        known = members_in(self.cluster.published())
        told = {r["name"]: len(r["members"]) for r in self.cluster.stack.status["rings"]}
        if not known or any(told.get(ring) != len(of) for ring, of in known.items()):
            return  # nobody knows any more what it was
        if any(ring not in self.rings for ring in known):
            return
        ref = next(ref for ref in self.cluster.objects if ref.name == "x-hashrings")
        if how == "gone":
            del self.cluster.objects[ref]
        else:
            self.cluster.objects[ref]["data"]["hashrings.json"] = "[]"
        self.damaged = True

    @rule(by=st.integers(-2, 2))
    def a_set_is_scaled_by_hand(self, by: int) -> None:
        for ref, live in self.cluster.objects.items():
            if ref.kind == "StatefulSet" and by > 0:
                live["spec"]["replicas"] += by
                return

    # What must hold.

    def judge(self, planned: Plan) -> None:
        ThanosStackStatus.model_validate(planned.status)
        if self.paused:
            assert not writes(planned)
        for wanted in planned.apply:
            if wanted["kind"] == "ConfigMap" and wanted["metadata"]["name"] == "x-hashrings":
                self.judge_hashrings(wanted["data"]["hashrings.json"])
            if wanted["kind"] == "StatefulSet":
                self.judge_set(wanted)
            if wanted["metadata"]["name"] == "x-receive" and "template" in wanted["spec"]:
                self.judge_routers(json.dumps(wanted), planned)
        for action in planned.actions:
            if isinstance(action, StartDrain):
                self.judge_outside(action.pod)
            if isinstance(action, GrowClaim):
                assert is_less(request_of(self.cluster.claims[action.name]), action.size)
            if isinstance(action, ReplaceSet):
                self.judge_replacement(action, planned)
        for ref in planned.prune:
            if ref.kind == "StatefulSet":
                self.judge_removal(ref.name)

    def needed(self) -> int:
        """Return how many members the routers need; one that ends keeps its former hashrings."""
        routers = self.cluster.routers().values()
        running = [pod.template for pod in routers if pod.ends_at is None]
        return max((int(FACTOR.search(template)[1]) for template in running), default=1)

    def judge_routers(self, wanted: str, planned: Plan) -> None:
        texts = [w["data"]["hashrings.json"] for w in planned.apply if w["kind"] == "ConfigMap"]
        members = members_in(texts[0] if texts else self.cluster.published())
        least = min(map(len, members.values()))
        assert least >= int(FACTOR.search(wanted)[1]), "routers would find too small a ring"

    def judge_hashrings(self, text: str) -> None:
        after, before = members_in(text), members_in(self.cluster.published())
        for ring, members in after.items():
            assert len(members) >= self.needed(), f"ring {ring} is too small: {members}"
            assert members == sorted(members)
        if self.damaged or not before or text == self.cluster.published():
            return
        held = {pod.text for pod in self.cluster.routers().values()}
        assert held <= {self.cluster.published()}, "a router has other hashrings"
        moved = {r: set(before[r]) ^ set(after[r]) for r in before.keys() & after.keys()}
        assert sum(map(len, moved.values())) <= 1, f"more than one member moves: {moved}"
        for ring in moved:
            left = set(before[ring]) - set(after[ring])
            assert left <= {max(before[ring])}, "another than the highest leaves"
            others = [f"x-ingestor-{ring}-{n}" for n in after[ring]] if left else []
            assert all(self.cluster.is_ready(pod) for pod in others), "one leaves, one is down"

    def judge_set(self, wanted: dict) -> None:
        name, replicas = wanted["metadata"]["name"], wanted["spec"]["replicas"]
        ring = name.removeprefix("x-ingestor-")
        members = members_in(self.cluster.published()).get(ring, [])
        assert self.damaged or replicas > max(members, default=-1), "a member would be removed"
        live = self.cluster.observe().find("StatefulSet", name)
        pods = [p.ordinal for p in self.cluster.pods.values() if p.ring == ring]
        if live is None:
            assert replicas > max(pods, default=-1), "one that is made anew removes ingestors"
            return
        assert "deletionTimestamp" not in live["metadata"]
        claims = [made["spec"]["volumeClaimTemplates"] for made in (wanted, live)]
        assert claims[0] == claims[1], "the API server refuses that"
        if live["spec"]["replicas"] <= replicas:
            return
        former = live["spec"]["replicas"]
        assert replicas == former - 1, "more than one ingestor goes"
        assert max(pods, default=0) < former, "the pod before is not gone yet"
        self.judge_gone(f"{name}-{former - 1}")

    def judge_replacement(self, action: ReplaceSet, planned: Plan) -> None:
        """Its claims are large, and nothing moves that its successor would not know."""
        ring = action.ref.name.removeprefix("x-ingestor-")
        pods = {name: pod for name, pod in self.cluster.pods.items() if pod.ring == ring}
        assert self.cluster.stack.finalizers, "deleted now, it would leave its pods behind"
        for name in pods:
            assert not is_less(request_of(self.cluster.claims[f"data-{name}"]), action.size)
            assert self.cluster.drains.get(name, "serving") == "serving", f"{name} drains"
        live = self.cluster.objects[action.ref]
        applied = {wanted["metadata"]["name"] for wanted in planned.apply}
        assert not applied & {action.ref.name, "x-hashrings"}
        template = json.dumps(live["spec"]["template"], sort_keys=True)
        assert {pod.template for pod in pods.values()} <= {template}, "its pods are being replaced"
        assert f":{self.version}" in template, "it would be made anew with another template"
        held = {pod.text for pod in self.cluster.routers().values()}
        assert held <= {self.cluster.published()}, "a router has other hashrings"

    def judge_removal(self, name: str) -> None:
        ring = name.removeprefix("x-ingestor-")
        assert ring not in self.rings
        for pod in [n for n, p in self.cluster.pods.items() if p.ring == ring]:
            self.judge_gone(pod, "15m")

    def judge_gone(self, pod: str, timeout: str = TIMEOUT) -> None:
        self.judge_outside(pod)
        if self.cluster.drains.get(pod) == "drained":
            return
        transitions = dig(self.cluster.stack.status, "transitions", default=[])
        since = {t["name"]: seconds(t["since"]) for t in transitions}.get(f"drain/{pod}")
        assert since is not None, f"{pod} goes undrained"
        assert self.cluster.now - since >= duration_s(timeout), f"{pod} goes before its timeout"

    def judge_outside(self, pod: str) -> None:
        ring, _, ordinal = pod.removeprefix("x-ingestor-").rpartition("-")
        texts = [self.cluster.published(), *(p.text for p in self.cluster.routers().values())]
        for text in texts:
            assert int(ordinal) not in members_in(text).get(ring, []), f"{pod} is in a ring"

    def teardown(self) -> None:
        """Once nothing happens any more, the stack rests as the spec says."""
        if not hasattr(self, "cluster"):
            return
        self.paused, self.cluster.silent, self.cluster.broken_images = False, set(), set()
        self.cluster.expandable = {}
        self.cluster.change(self.spec())
        for _ in range(3):  # whatever was ended or begun comes to light
            self.cluster.tick(20.0)
        for _ in range(REST_ROUNDS_MAX):
            self.operate(5.0)
            conditions = dig(self.cluster.stack.status, "conditions", default=[])
            if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                break
        for _ in range(5):  # what still ends is gone
            self.operate(5.0)
        planned = self.plan()
        assert not writes(planned), planned
        assert not planned.waiting, planned
        assert planned.status == self.cluster.stack.status, "a stack at rest is written to"
        wanted = {name: list(range(n)) for name, n in self.rings.items()}
        assert wanted == members_in(self.cluster.published())
        assert list(self.rings) == [r["hashring"] for r in json.loads(self.cluster.published())]
        sets = {ref.name: live["spec"]["replicas"] for ref, live in self.cluster.objects.items()
                if ref.kind == "StatefulSet"}  # fmt: skip
        assert {ingestor_name("x", name): n for name, n in self.rings.items()} == sets
        size = f"{self.size}Gi"
        used = [
            self.cluster.claims[f"data-{name}"] for name, p in self.cluster.pods.items() if p.ring
        ]
        used += [c for ref, live in self.cluster.objects.items() if ref.kind == "StatefulSet"
                 for c in live["spec"]["volumeClaimTemplates"]]  # fmt: skip
        assert {request_of(claim) for claim in used} == {size}


TestPlanMachine = PlanMachine.TestCase
# Explaining a failure traces every line, which takes minutes here.
TestPlanMachine.settings = settings(
    max_examples=50, stateful_step_count=25, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)  # fmt: skip
