"""Who is in a ring after one plan: what other operators got wrong, situation by situation.

The table is that of thanos-operator's static policy and of the receive controller's issues 69, 70,
75, 89, 91, 92; each name tells what must happen here.
"""

import pytest

from thanostack_operator.manifests.hashrings import Member, config_hash, read_members, render
from thanostack_operator.manifests.names import HASHRINGS_ANNOTATION
from thanostack_operator.plan.observed import Ingestor, Observed, Ref, Router
from thanostack_operator.plan.published import Published, annotation_of, read_published
from thanostack_operator.plan.ring import SETTLE_S, ring_step
from thanostack_operator.plan.times import Timers, timestamp
from thanostack_operator.testing.stacks import stack_of

NOW = 1_700_000_000.0


def ring_of(replicas, factor=3, zones="Auto"):
    rings = [{"name": "r", "replicas": replicas, "zones": zones}]
    return stack_of(receive={"replicationFactor": factor, "rings": rings})


def seen(ready, unready=(), zone="", routers=()):
    ingestors = [Ingestor(n, True, zone=zone) for n in ready]
    ingestors += [Ingestor(n, False, zone=zone) for n in unready]
    return Observed(NOW, ingestors={"r": tuple(ingestors)}, routers=tuple(routers))


def published(stack, *ordinals):
    members = {"r": tuple(Member(n) for n in ordinals)} if ordinals else {}
    return Published(render(stack, members) if ordinals else None, members)


def step_of(stack, before, observed):
    return ring_step(stack, observed, published(stack, *before), Timers([], NOW))


def ordinals(step):
    return [member.ordinal for member in step.members.get("r", ())]


@pytest.mark.parametrize(
    ("replicas", "factor", "before", "ready", "unready", "after"),
    [
        pytest.param(3, 3, [], [0, 1, 2], [], [0, 1, 2], id="first: all are ready"),
        pytest.param(3, 3, [], [0, 1], [2], [], id="first: one is not ready"),
        pytest.param(5, 3, [], [0, 1, 2], [], [], id="first: enough for RF, fewer than desired"),
        pytest.param(1, 1, [], [0], [], [0], id="first: one alone"),
        pytest.param(3, 3, [], [0, 1, 2, 3], [], [0, 1, 2], id="first: surplus stays out"),
        pytest.param(12, 3, [], range(12), [], range(12), id="numeric order"),
        pytest.param(5, 3, [0, 1, 2], [0, 1, 2, 3, 4], [], [0, 1, 2, 3], id="one joins a step"),
        pytest.param(5, 3, [0, 1, 2], [0, 1, 2, 4], [3], [0, 1, 2, 4], id="the ready one joins"),
        pytest.param(5, 3, [0, 1, 2], [0, 1, 2], [3, 4], [0, 1, 2], id="unready ones wait"),
        pytest.param(5, 3, [0, 1, 3], [0, 1, 2, 3], [], [0, 1, 2, 3], id="a gap is filled"),
        pytest.param(3, 3, [0, 1, 2], [0, 2], [1], [0, 1, 2], id="a crash does not shrink"),
        pytest.param(5, 3, range(5), [0], [1, 2, 3], range(5), id="nor do many"),
        pytest.param(3, 3, [0, 1, 2], [], [], [0, 1, 2], id="nor does a node's silence"),
        pytest.param(3, 3, range(5), range(5), [], range(4), id="the highest leaves first"),
        pytest.param(3, 3, range(5), [0, 1, 2, 3], [4], range(4), id="though it is unready"),
        pytest.param(3, 3, range(5), [0, 2, 3, 4], [1], range(5), id="not if another is unready"),
        pytest.param(9, 3, range(12), range(12), [], range(11), id="eleven is higher than nine"),
        pytest.param(3, 3, [0, 1, 4], [0, 1, 4], [2], [0, 1, 4], id="never below RF"),
        pytest.param(3, 3, [0, 1, 4], [0, 1, 2, 4], [], [0, 1, 2, 4], id="so another joins first"),
        pytest.param(1, 1, [0, 1], [0, 1], [], [0], id="RF 1"),
        pytest.param(3, 3, [0, 1, 2], [0, 1, 2], [], [0, 1, 2], id="at rest"),
    ],
)
def test_one_step(replicas, factor, before, ready, unready, after):
    step = step_of(ring_of(replicas, factor), before, seen(ready, unready))
    assert list(after) == ordinals(step)
    assert (list(after) != list(before)) == step.publishes
    assert (step.text is None) == (not after)


@pytest.mark.parametrize(
    ("router", "reason"),
    [
        (Router("p", True, 7.0), "router p has former hashrings"),
        (Router("p", True, None, error="refused"), "router p does not tell its hashrings"),
        (Router("p", False, 7.0), "router p has former hashrings"),
    ],
)
def test_nothing_moves_before_every_router_has_the_ring(router, reason):
    stack = ring_of(5)
    step = step_of(stack, [0, 1, 2], seen(range(5), routers=[router]))
    assert ordinals(step) == [0, 1, 2]
    assert not step.publishes
    assert not step.acknowledged
    assert reason in step.waiting["r"]


def test_it_moves_once_they_have():
    stack = ring_of(5)
    router = Router("p", True, config_hash(published(stack, 0, 1, 2).text))
    assert ordinals(step_of(stack, [0, 1, 2], seen(range(5), routers=[router]))) == [0, 1, 2, 3]


def test_a_ring_is_settled_a_while_after_it_was_acknowledged():
    stack, observed = ring_of(3), seen(range(3))
    before = published(stack, 0, 1, 2)
    name = f"acknowledged/{int(config_hash(before.text))}"
    for ago, settled in ((0, False), (SETTLE_S - 1, False), (SETTLE_S, True)):
        timers = Timers([{"name": name, "since": timestamp(NOW - ago)}], NOW)
        step = ring_step(stack, observed, before, timers)
        assert (step.acknowledged, step.settled) == (True, settled)


@pytest.mark.parametrize(("zones", "expected"), [("Auto", "z"), ("Off", "")])
def test_a_member_has_the_zone_of_its_node(zones, expected):
    step = step_of(ring_of(3, zones=zones), [], seen(range(3), zone="z"))
    assert {expected} == {member.zone for member in step.members["r"]}


def test_zones_change_in_one_step_and_never_to_unknown():
    stack = ring_of(3)
    step = step_of(stack, [0, 1, 2], seen(range(3), zone="z"))
    assert {"z"} == {member.zone for member in step.members["r"]}
    again = ring_step(
        stack, seen(range(3)), Published(step.text, step.members), Timers([], NOW)
    )  # fmt: skip
    assert not again.publishes


def two_rings(*names):
    rings = [{"name": name, "replicas": 3, "tenants": [name]} for name in names]
    return stack_of(receive={"rings": rings})


def of_two(ready_a=range(3), ready_b=range(3)):
    rings = {"a": ready_a, "b": ready_b}
    ingestors = {r: tuple(Ingestor(n, True) for n in ready) for r, ready in rings.items()}
    return Observed(NOW, ingestors=ingestors)


MEMBERS = tuple(Member(n) for n in range(3))


def test_rings_stand_in_the_spec_s_order():
    step = ring_step(two_rings("b", "a"), of_two(), Published(), Timers([], NOW))
    assert list(read_members(step.text)) == ["b", "a"]


def test_a_ring_that_is_broken_does_not_hold_up_another():
    step = ring_step(two_rings("a", "b"), of_two(ready_a=()), Published(), Timers([], NOW))
    assert list(step.members) == ["b"]
    assert step.waiting["a"] == "publish the ring: ingestors 0, 1, 2 are not ready"


def test_a_removed_ring_leaves_once_the_others_are_published():
    """A ring that is renamed goes when the new name can take its tenants, not before."""
    before = Published(render(two_rings("a"), {"a": MEMBERS}), {"a": MEMBERS})
    waits = ring_step(two_rings("b"), of_two(ready_b=[0]), before, Timers([], NOW))
    assert (waits.text, list(waits.members)) == (before.text, ["a"])
    goes = ring_step(two_rings("b"), of_two(), before, Timers([], NOW))
    assert list(read_members(goes.text)) == ["b"]
    assert goes.changed == {"a", "b"}


def test_tenants_that_change_are_published():
    stack = two_rings("a")
    other = stack_of(receive={"rings": [{"name": "a", "tenants": ["new"]}]})
    before = Published(render(stack, {"a": MEMBERS}), {"a": MEMBERS})
    step = ring_step(other, of_two(), before, Timers([], NOW))
    assert step.publishes
    assert '"new"' in step.text
    assert not step.changed


def deployment(factor, status):
    args = ["receive", f"--receive.replication-factor={factor}"]
    spec = {"replicas": 2, "template": {"spec": {"containers": [{"args": args}]}}}
    live = {"kind": "Deployment", "metadata": {"generation": 2}, "spec": spec, "status": status}
    return {Ref("apps/v1", "Deployment", "x-receive"): live}


@pytest.mark.parametrize(
    ("factor", "status", "reason"),
    [
        (3, {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2}, "need 3 members"),
        (1, {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2}, "rolling out"),
        (1, {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1}, "rolling out"),
        (1, {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2}, "rolling out"),
        (1, {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2}, ""),
    ],
)
def test_a_factor_that_falls_reaches_the_routers_first(factor, status, reason):
    stack, observed = ring_of(1, factor=1), seen(range(3))
    observed.objects.update(deployment(factor, status))
    step = ring_step(stack, observed, published(stack, 0, 1, 2), Timers([], NOW))
    assert bool(reason) == (ordinals(step) == [0, 1, 2])
    assert reason in step.waiting.get("r", "")


def config_map(text, annotation):
    metadata = {"annotations": {HASHRINGS_ANNOTATION: annotation}}
    live = {"metadata": metadata, "data": {"hashrings.json": text}}
    return {Ref("v1", "ConfigMap", "x-hashrings"): live}


def test_what_the_operator_wrote_is_read_back():
    stack = ring_of(3)
    text = published(stack, 0, 1, 2).text
    observed = Observed(NOW, objects=config_map(text, annotation_of(text)))
    assert read_published(stack, observed) == published(stack, 0, 1, 2)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, "[{}]", "no JSON", '[{"hashring":"r"}]', None, 7]
)
def test_an_edited_config_map_is_made_anew_from_the_status(text):
    names = [f"x-ingestor-r-{n}" for n in (0, 1, 2, 10, 10**9, "x")]
    stack = stack_of(receive={"rings": [{"name": "r", "replicas": 11}]})
    object.__setattr__(stack, "status", {"rings": [{"name": "r", "members": names}]})
    before = read_published(stack, Observed(NOW, objects=config_map(text, "1")))
    assert before.text is None
    assert before.damage
    step = ring_step(stack, seen([]), before, Timers([], NOW))
    assert ordinals(step) == [0, 1, 2, 10]
    assert step.publishes


@pytest.mark.parametrize(
    "status", [None, {}, {"rings": None}, {"rings": [7, {"name": "r", "members": "x"}]}]
)
def test_without_a_status_a_plausible_edit_is_all_there_is(status):
    stack = ring_of(3)
    object.__setattr__(stack, "status", status)
    text = published(stack, 0, 1, 2).text
    before = read_published(stack, Observed(NOW, objects=config_map(text, "1")))
    assert before.members == {"r": MEMBERS}
    assert before.damage


def test_a_stack_that_never_published_has_no_damage():
    assert read_published(ring_of(3), Observed(NOW)) == Published()
