"""Volumes that grow: claims, then the StatefulSet without its pods; nothing else waits."""

import copy
from dataclasses import replace

import pytest

from thanostack_operator.plan.capacity import FOLLOW_S
from thanostack_operator.plan.outcome import GrowClaim, ReplaceSet, SetFinalizers
from thanostack_operator.plan.preview import preview
from thanostack_operator.plan.volumes import request_of
from thanostack_operator.testing.clusters import (
    change,
    cluster_at_rest,
    condition,
    live_of,
    operate,
    operate_until_ready,
    plan_of,
    ref_of,
    ring_spec,
    writes,
)
from thanostack_operator.testing.stacks import VERSION

SET = "x-ingestor-default"
CLAIMS = [f"data-{SET}-{n}" for n in range(3)]


def sized(size, replicas=3, **more):
    spec = ring_spec(replicas, storage={"size": size})
    return {"receive": spec["receive"] | more.pop("receive", {})} | more


def growing(size="20Gi", replicas=3, **more):
    """Return a cluster at rest whose stack asks for larger volumes by now."""
    cluster = cluster_at_rest(**sized("10Gi", min(replicas, 3)))
    change(cluster, **sized(size, replicas, **more))
    return cluster


def grown(planned):
    return [action.name for action in planned.actions if isinstance(action, GrowClaim)]


def replaced(planned):
    return [action.ref.name for action in planned.actions if isinstance(action, ReplaceSet)]


def carry(cluster, planned):
    cluster.carry_out(planned)
    return planned


def template_size(cluster):
    live = live_of(cluster, "StatefulSet", SET)
    return request_of(live["spec"]["volumeClaimTemplates"][0])


def waiting_for(planned):
    return {wait.step: wait.reason for wait in planned.waiting}


def test_claims_grow_then_the_set_goes_then_it_is_made_anew():
    cluster = growing()
    pods = dict(cluster.pods)
    first = carry(cluster, plan_of(cluster))
    assert grown(first) == CLAIMS
    assert writes(first) == list(first.actions), "nothing else is touched"
    second = carry(cluster, plan_of(cluster))
    assert (grown(second), replaced(second)) == ([], [SET])
    gone = plan_of(cluster)
    assert not writes(gone), "an object that goes is left to go"
    assert waiting_for(gone)[f"make StatefulSet {SET} anew"] == "the former one still goes"
    cluster.tick()
    (made,) = carry(cluster, plan_of(cluster)).apply
    assert made["metadata"]["name"] == SET
    assert template_size(cluster) == "20Gi"
    operate_until_ready(cluster)
    assert cluster.pods == pods, "no pod is touched"
    assert condition(cluster.stack.status, "VolumesGrown")["status"] == "True"
    assert not any("grow" in timer["name"] for timer in cluster.stack.status["transitions"])


def test_the_condition_and_events_tell_of_each_step():
    cluster = growing()
    planned = carry(cluster, plan_of(cluster))
    told = condition(planned.status, "VolumesGrown")
    assert (told["status"], told["reason"]) == ("False", "Growing")
    assert told["message"] == f"ring default: claims {', '.join(CLAIMS)} from 10Gi to 20Gi"
    assert condition(planned.status, "Ready")["status"] == "False"
    assert condition(planned.status, "Reconciling")["status"] == "True"
    assert condition(planned.status, "SpecValid")["status"] == "True"
    events = [*planned.events, *operate_until_ready(cluster)]
    assert [event.reason for event in events] == [
        "VolumesGrow", "StatefulSetReplaced", "Ready", "VolumesGrown",
    ]  # fmt: skip
    assert (
        events[1].message == f"StatefulSet {SET} is made anew for volumes of 20Gi; its pods run on"
    )


def test_the_set_that_is_deleted_is_the_one_that_was_seen():
    cluster = growing()
    operate(cluster)
    live_of(cluster, "StatefulSet", SET)["metadata"]["resourceVersion"] = "42"
    (action,) = plan_of(cluster).actions
    assert action == ReplaceSet(ref_of(cluster.observe(), "StatefulSet", SET), "42", "20Gi")
    assert action.ref.uid


def test_the_set_stays_until_the_last_claim_asks_for_the_size():
    """Its patch may have met an API server that was busy."""
    cluster = growing()
    operate(cluster)
    cluster.claims[CLAIMS[1]]["spec"]["resources"]["requests"]["storage"] = "10Gi"
    planned = plan_of(cluster, failures={f"PersistentVolumeClaim/{CLAIMS[1]}": "500: busy"})
    assert (grown(planned), replaced(planned)) == ([CLAIMS[1]], [])


def test_a_set_that_goes_is_not_written_to():
    cluster = growing()
    operate(cluster)
    cluster.carry_out(plan_of(cluster))
    change(cluster, **sized("20Gi"), version="v2")
    assert not [wanted for wanted in plan_of(cluster).apply if wanted["kind"] == "StatefulSet"]


def test_a_claim_is_patched_as_it_was_seen():
    cluster = growing()
    cluster.claims[CLAIMS[0]]["metadata"]["resourceVersion"] = "42"
    action = plan_of(cluster).actions[0]
    assert action == GrowClaim(CLAIMS[0], "20Gi", f"uid-{CLAIMS[0]}", "42")


@pytest.mark.parametrize("rounds", range(4))
@pytest.mark.parametrize("told", [True, False])
def test_an_operator_that_is_killed_anywhere_goes_on(rounds, told):
    """It made its requests, and wrote its status or not."""
    cluster = growing()
    operate(cluster, rounds)
    planned = plan_of(cluster)
    cluster.carry_out(planned if told else replace(planned, status=None))
    cluster.tick()
    events = operate_until_ready(cluster)
    assert template_size(cluster) == "20Gi"
    assert len(cluster.pods) == 7
    assert "Drift" not in [event.reason for event in events], "it was its own doing"


def absent():
    """Return a cluster in which the operator deleted a StatefulSet and was killed."""
    cluster = growing()
    operate(cluster, 2)
    assert cluster.observe().find("StatefulSet", SET) is None
    return cluster


def test_pods_without_their_set_are_neither_gone_nor_moved():
    cluster = absent()
    planned = plan_of(cluster)
    assert [made["kind"] for made in planned.apply] == ["StatefulSet"]
    assert planned.apply[0]["spec"]["replicas"] == 3
    assert not planned.actions
    assert not planned.prune
    before = cluster.stack.status
    for kept in ("rings", "hashrings", "ingestors"):
        assert planned.status[kept] == before[kept]
    assert condition(planned.status, "ComponentsAvailable")["status"] == "True"
    assert condition(planned.status, "RingStable")["status"] == "True"
    assert condition(planned.status, "VolumesGrown")["reason"] == "StatefulSetAbsent"


def test_a_ring_that_shrinks_meanwhile_is_made_whole_first():
    cluster = cluster_at_rest(**sized("10Gi", 4))
    change(cluster, **sized("20Gi", 4))
    operate(cluster, 2)
    change(cluster, **sized("20Gi", 3))
    planned = plan_of(cluster)
    (made,) = [wanted for wanted in planned.apply if wanted["kind"] == "StatefulSet"]
    assert made["spec"]["replicas"] == 4
    events = operate_until_ready(cluster)
    assert "IngestorRemoved" in [event.reason for event in events]
    assert cluster.drains[f"{SET}-3"] == "drained"


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("policy", ["Keep", "Flush"])
def test_a_stack_that_is_deleted_meanwhile_leaves_no_pods_behind(policy, paused):
    """Its pods would be nobody's: the StatefulSet is made first, and goes with the stack."""
    cluster = cluster_at_rest(**sized("10Gi"), deletionPolicy=policy)
    change(cluster, **sized("20Gi"), deletionPolicy=policy)
    while cluster.observe().find("StatefulSet", SET) is not None:
        operate(cluster)
        assert cluster.now < 1_700_002_000, "it is never replaced"
    if paused:
        change(cluster, **sized("20Gi"), deletionPolicy=policy, paused=True)
        operate(cluster, 3)
    alive = plan_of(cluster)
    cluster.stack = replace(cluster.stack, deleting=True)
    assert cluster.stack.finalizers
    assert not any(isinstance(action, SetFinalizers) for action in alive.actions)
    planned = carry(cluster, plan_of(cluster))
    assert [made["metadata"]["name"] for made in planned.apply] == [SET]
    assert not planned.actions
    assert not planned.prune
    assert live_of(cluster, "StatefulSet", SET)["spec"]["replicas"] == 3
    operate(cluster, 60)
    assert not cluster.stack.finalizers


def test_a_stack_that_is_deleted_while_the_set_goes_waits_for_that():
    cluster = growing(deletionPolicy="Keep")
    operate(cluster, 2)
    cluster.carry_out(plan_of(cluster))
    cluster.stack = replace(cluster.stack, deleting=True)
    planned = carry(cluster, plan_of(cluster))
    assert not writes(planned)
    assert live_of(cluster, "StatefulSet", SET)["metadata"]["deletionTimestamp"]
    cluster.tick()
    assert [made["kind"] for made in plan_of(cluster).apply] == ["StatefulSet"]


def test_a_stack_that_keeps_its_data_has_a_finalizer_no_longer_than_it_takes():
    cluster = cluster_at_rest(**sized("10Gi"), deletionPolicy="Keep")
    change(cluster, **sized("20Gi"), deletionPolicy="Keep")
    had = set()
    for _ in range(20):
        assert not replaced(plan_of(cluster)) or cluster.stack.finalizers
        operate(cluster)
        had.add(cluster.stack.finalizers)
    assert had == {(), ("thanostack.io/flush",)}
    assert not cluster.stack.finalizers
    assert template_size(cluster) == "20Gi"


def test_paused_means_that_it_is_not_made_yet():
    cluster = absent()
    change(cluster, **sized("20Gi"), paused=True)
    planned = plan_of(cluster)
    assert not writes(planned)
    message = condition(planned.status, "VolumesGrown")["message"]
    assert f"StatefulSet {SET} is not there, and is made anew; its pods run on" in message


def test_a_set_that_somebody_else_deleted_is_drift_as_ever():
    cluster = cluster_at_rest(**sized("10Gi"))
    del cluster.objects[ref_of(cluster.observe(), "StatefulSet", SET)]
    assert "Drift" in [event.reason for event in plan_of(cluster).events]


def test_replicas_that_rise_with_the_size_wait_for_it():
    """No ingestor gets a volume of the former size."""
    cluster = growing(replicas=5)
    sizes = set()
    for _ in range(40):
        operate(cluster)
        sizes |= {request_of(cluster.claims[f"data-{SET}-{n}"]) for n in (3, 4)
                  if f"data-{SET}-{n}" in cluster.claims}  # fmt: skip
    operate_until_ready(cluster)
    assert sizes == {"20Gi"}
    assert len(cluster.observe().ingestors["default"]) == 5


def test_a_kept_volume_grows_when_the_ring_grows_over_it_again():
    cluster = cluster_at_rest(**sized("10Gi", 5))
    change(cluster, **sized("10Gi", 3))
    operate_until_ready(cluster)
    change(cluster, **sized("20Gi", 3))
    operate_until_ready(cluster)
    kept = [request_of(cluster.claims[f"data-{SET}-{n}"]) for n in (2, 3, 4)]
    assert kept == ["20Gi", "10Gi", "10Gi"], "what no ingestor has is left alone"
    change(cluster, **sized("20Gi", 4))
    planned = plan_of(cluster)
    assert grown(planned) == [f"data-{SET}-3"]
    operate_until_ready(cluster)
    assert not replaced(plan_of(cluster))


@pytest.mark.parametrize(("asked", "grows"), [("30Gi", False), ("20480Mi", False), ("15Gi", True)])
def test_a_claim_never_shrinks(asked, grows):
    cluster = growing()
    cluster.claims[CLAIMS[1]]["spec"]["resources"]["requests"]["storage"] = asked
    assert (CLAIMS[1] in grown(plan_of(cluster))) is grows


@pytest.mark.parametrize("phase", ["Pending", "Lost"])
def test_a_claim_without_a_volume_cannot_grow_yet_and_holds_nothing(phase):
    cluster = growing()
    cluster.claims[CLAIMS[2]]["status"] = {"phase": phase}
    planned = carry(cluster, plan_of(cluster))
    assert grown(planned) == CLAIMS[:2]
    assert (
        f"{CLAIMS[2]} once there is a volume"
        in condition(planned.status, "VolumesGrown")["message"]
    )
    assert replaced(plan_of(cluster)) == [SET]


def test_a_claim_that_goes_is_left_alone():
    cluster = growing()
    cluster.claims[CLAIMS[2]]["metadata"]["deletionTimestamp"] = "now"
    assert grown(plan_of(cluster)) == CLAIMS[:2]


# What goes first.


def test_a_rollout_of_the_ring_goes_first():
    cluster = growing(version="v2")
    planned = plan_of(cluster)
    assert not grown(planned)
    assert waiting_for(planned)["grow volumes of ring default"] == f"{SET} rolls out"
    images = set()
    while not replaced(plan_of(cluster)):
        operate(cluster)
        images = {"v2" in pod.template for pod in cluster.pods.values() if pod.ring}
    assert images == {True}
    operate_until_ready(cluster)
    assert template_size(cluster) == "20Gi"


def test_a_rollout_that_is_held_goes_first_too():
    """A StatefulSet that is made anew would have the new template at once."""
    names = ("a", "b")
    both = {"replicationFactor": 3, "rings": [
        {"name": name, "replicas": 3, "tenants": [name], "storage": {"size": "10Gi"}}
        for name in names
    ]}  # fmt: skip
    cluster = cluster_at_rest(receive=both, version="v1")
    both = copy.deepcopy(both)
    both["rings"][1]["storage"]["size"] = "20Gi"
    change(cluster, receive=both, version="v2")
    waits = waiting_for(plan_of(cluster))
    assert "roll out x-ingestor-b" in waits
    assert waits["grow volumes of ring b"] == "x-ingestor-b rolls out"


def test_a_rollout_that_stalls_may_lack_room():
    cluster = cluster_at_rest(**sized("10Gi"), version="v1")
    cluster.broken_images = {"thanostack/thanostack:v2"}
    change(cluster, **sized("10Gi"), version="v2")
    operate(cluster, 5)
    change(cluster, **sized("20Gi"), version="v2")
    planned = carry(cluster, plan_of(cluster))
    assert condition(planned.status, "Stalled")["reason"] == "RolloutStalled"
    assert grown(planned) == CLAIMS
    later = plan_of(cluster)
    assert not replaced(later)
    assert waiting_for(later)["grow volumes of ring default"] == f"{SET} rolls out"


def test_an_ingestor_that_joins_or_leaves_goes_first():
    cluster = cluster_at_rest(**sized("10Gi", 4))
    change(cluster, **sized("20Gi", 3))
    reasons = set()
    while not replaced(plan_of(cluster)):
        planned = plan_of(cluster)
        if cluster.observe().find("StatefulSet", SET)["spec"]["replicas"] == 4:
            assert not grown(planned)
            reasons.add(waiting_for(planned)["grow volumes of ring default"])
        operate(cluster)
    assert reasons == {"the hashrings change", f"{SET}-3 leaves"}


def test_an_ingestor_that_has_yet_to_join_goes_first():
    cluster = cluster_at_rest(**sized("10Gi"))
    change(cluster, **sized("10Gi", 4))
    operate(cluster)
    change(cluster, **sized("20Gi", 4))
    assert (
        waiting_for(plan_of(cluster))["grow volumes of ring default"] == f"{SET}-3 joins or leaves"
    )


def test_a_drain_that_is_cancelled_ends_first():
    cluster = growing()
    cluster.drains[f"{SET}-1"] = "draining"
    planned = plan_of(cluster)
    assert not grown(planned)
    assert waiting_for(planned)["grow volumes of ring default"] == f"{SET}-1 is draining"


def test_other_fields_of_the_set_are_applied_first():
    cluster = growing()
    operate(cluster)
    live_of(cluster, "StatefulSet", SET)["spec"]["minReadySeconds"] = 1
    planned = plan_of(cluster)
    assert not replaced(planned)
    assert waiting_for(planned)[f"replace StatefulSet {SET}"] == "other fields of it change first"


def test_an_ingestor_that_is_down_holds_nothing():
    """Its disk may be full."""
    cluster = growing()
    cluster.crash(f"{SET}-1")
    cluster.pods[f"{SET}-1"].runs_at = cluster.now + 1e6
    assert grown(carry(cluster, plan_of(cluster))) == CLAIMS
    assert replaced(plan_of(cluster)) == [SET]


# What may not be.


def refusing(**more):
    cluster = growing(**more)
    cluster.expandable = {"standard": False}
    return cluster


def test_a_class_that_forbids_it_is_named_with_claims_and_cure():
    planned = plan_of(refusing())
    assert not writes(planned)
    assert not planned.waiting, "it is looked at each minute, not every few seconds"
    message = (
        f"ring default: volumes of 10Gi and not 20Gi: StorageClass standard does not let "
        f"{', '.join(CLAIMS)} grow: set allowVolumeExpansion: true on StorageClass standard if its "
        "driver can do it, or make a new ring with volumes of that size and remove this one"
    )
    for kind, status in (("VolumesGrown", "False"), ("Stalled", "True")):
        told = condition(planned.status, kind)
        assert (told["status"], told["reason"]) == (status, "ExpansionRefused")
        assert told["message"] == message
    assert condition(planned.status, "SpecValid")["status"] == "True"
    assert [(e.type, e.reason) for e in planned.events if message in e.message] == [
        ("Warning", "Stalled")
    ]


def test_a_class_that_forbids_it_stops_nothing_else():
    """Not its own ring's replicas either, nor a rollout, nor another ring."""
    cluster = refusing(replicas=4, version="v2")
    operate(cluster, 60)
    ready = {c["name"]: (c["ready"], c["updated"]) for c in cluster.stack.status["components"]}
    assert ready == {SET: (4, 4), "x-receive": (2, 2), "x-query": (2, 2)}
    assert len(cluster.stack.status["rings"][0]["members"]) == 4
    assert all("v2" in pod.template for pod in cluster.pods.values())
    assert template_size(cluster) == "10Gi"
    assert request_of(cluster.claims[f"data-{SET}-3"]) == "10Gi"
    cluster.expandable = {"standard": True}
    operate_until_ready(cluster)
    assert {request_of(claim) for claim in cluster.claims.values()} == {"20Gi"}


def test_another_ring_grows_all_the_same():
    rings = [
        {"name": name, "replicas": 3, "tenants": [name], "storage": {"size": "10Gi"}}
        for name in ("a", "b")
    ]
    cluster = cluster_at_rest(receive={"rings": rings})
    for name, claim in cluster.claims.items():
        claim["spec"]["storageClassName"] = "slow" if "-a-" in name else "fast"
    cluster.expandable = {"slow": False, "fast": True}
    rings = [ring | {"storage": {"size": "20Gi"}} for ring in rings]
    change(cluster, receive={"rings": rings})
    operate(cluster, 10)
    sizes = {name: request_of(claim) for name, claim in cluster.claims.items()}
    assert {name[:17]: size for name, size in sizes.items()} == {
        "data-x-ingestor-a": "10Gi", "data-x-ingestor-b": "20Gi",
    }  # fmt: skip
    assert "StorageClass slow does not let" in condition(cluster.stack.status, "Stalled")["message"]


REFUSED = {f"PersistentVolumeClaim/{CLAIMS[1]}": "403: exceeded quota: storage"}


def test_what_the_api_server_refuses_is_passed_on_and_tried_again():
    cluster = growing()
    planned = plan_of(cluster, failures=REFUSED)
    assert CLAIMS[1] in grown(planned)
    message = condition(planned.status, "Stalled")["message"]
    assert f"{CLAIMS[1]} (StorageClass standard) is refused to grow: 403: exceeded quota" in message
    assert "mend what that says, and it is tried again" in message
    cluster.carry_out(plan_of(cluster))
    cluster.claims[CLAIMS[1]]["spec"]["resources"]["requests"]["storage"] = "10Gi"
    later = plan_of(cluster, failures=REFUSED)
    assert grown(later) == [CLAIMS[1]]
    assert not replaced(later)
    assert later.recheck_s == 60, "each minute, not every few seconds"


@pytest.mark.parametrize("failure", ["409: it was written to", "500: busy", "timeout"])
def test_what_passes_is_no_refusal(failure):
    planned = plan_of(growing(), failures={f"PersistentVolumeClaim/{CLAIMS[1]}": failure})
    assert condition(planned.status, "Stalled")["status"] == "False"
    assert planned.recheck_s < 60


def test_claims_that_may_not_be_read_are_told():
    planned = plan_of(growing(), claims=None)
    assert not writes(planned)
    assert "may not list PersistentVolumeClaims" in condition(planned.status, "Stalled")["message"]


def test_without_the_right_to_read_them_a_stack_at_rest_is_ready():
    cluster = cluster_at_rest(**sized("10Gi"))
    planned = plan_of(cluster, claims=None)
    assert condition(planned.status, "VolumesGrown")["status"] == "True"


# What the driver does.


def behind(*conditions, **status):
    """Return a cluster whose claims ask for 20Gi and have 10Gi."""
    cluster = growing()
    operate_until_ready(cluster)
    for claim in cluster.claims.values():
        claim["status"] |= {
            "capacity": {"storage": "10Gi"},
            "conditions": list(conditions),
        } | status
    return cluster


PENDING = {
    "type": "FileSystemResizePending",
    "status": "True",
    "message": "Waiting for user to (re-)start a pod",
}


def told_of(cluster, seconds):
    """Return condition and events once a plan looked, and once more so much later."""
    claims = copy.deepcopy(cluster.claims)
    cluster.carry_out(plan_of(cluster))
    cluster.now += seconds
    cluster.claims = claims
    planned = plan_of(cluster)
    cluster.carry_out(planned)
    return condition(planned.status, "VolumesGrown"), planned, plan_of(cluster)


def test_a_file_system_that_waits_for_a_pod_is_told_with_the_pod():
    told, planned, again = told_of(behind(PENDING), FOLLOW_S)
    assert (told["status"], told["reason"]) == ("False", "FileSystemResizePending")
    assert f"{', '.join(CLAIMS)} ask for 20Gi and have 10Gi" in told["message"]
    assert "Waiting for user to (re-)start a pod" in told["message"]
    assert f"`kubectl delete pod {SET}-0`" in told["message"]
    assert [(e.type, e.reason) for e in planned.events] == [("Warning", "FileSystemResizePending")]
    assert not again.events, "it is told once"
    assert not writes(planned)
    assert condition(planned.status, "Ready")["status"] == "True"


def test_a_driver_gets_its_time():
    told, planned, _ = told_of(behind(PENDING), FOLLOW_S - 1)
    assert told["reason"] == "Growing"
    assert not planned.events


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"conditions": [{"type": "NodeResizeError", "status": "True", "message": "no room"}]},
         "(NodeResizeError: no room)"),
        ({"allocatedResourceStatuses": {"storage": "ControllerResizeInfeasible"}},
         "(ControllerResizeInfeasible)"),
        ({}, "and have 10Gi: the driver of StorageClass standard has yet to do it"),
    ],
)  # fmt: skip
def test_a_driver_that_does_not_do_it_is_told_in_its_words(status, words):
    told, planned, _ = told_of(behind(**status), FOLLOW_S)
    assert told["reason"] == "NotGrown"
    assert words in told["message"]
    assert f"`kubectl describe pvc {CLAIMS[0]}`" in told["message"]
    assert [event.reason for event in planned.events] == ["NotGrown"]


# What a preview says.


def lines_of(cluster):
    return preview(cluster.stack, cluster.observe(), operator_version=VERSION)


def test_a_preview_shows_each_step():
    lines = lines_of(growing())
    assert f"  ~ PersistentVolumeClaim {CLAIMS[0]}" in lines
    assert '      spec.resources.requests.storage: "10Gi" -> "20Gi"' in lines
    steps = [line.split(". ", 1)[1] for line in lines[lines.index("Steps that follow:") + 1 :]]
    assert steps == [
        *(f"grow PersistentVolumeClaim {claim} to 20Gi" for claim in CLAIMS),
        f"delete StatefulSet {SET}, its pods run on",
        f"apply StatefulSet {SET}, 3 replicas",
    ]


def test_a_preview_of_what_cannot_be_ends_and_says_so():
    last = lines_of(refusing())[-1]
    assert last.startswith("  … and is not as it should be: ring default: volumes of 10Gi")
