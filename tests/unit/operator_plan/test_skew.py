"""A stack whose image is too old or too new for its operator is told so, before its pods fail."""

import pytest

from thanostack_operator.plan.planner import plan
from thanostack_operator.plan.preview import preview
from thanostack_operator.plan.skew import version_claim
from thanostack_operator.testing.clusters import (
    cluster_at_rest,
    condition,
    operate_until_ready,
    ring_spec,
    writes,
)


@pytest.mark.parametrize(
    ("wanted", "own", "expected"),
    [
        (None, "1.4.0", True),
        ("1.4.0", "1.4.0", True),
        ("main", "main", True),
        ("1.4.9", "1.4.0", True),
        ("1.3.0", "1.4.2", True),
        ("v1.3.0", "1.4.2", True),
        ("1.3.0-rc.1", "v1.4.2", True),
        ("1.9.0", "1.10.0", True),
        ("1.2.9", "1.4.0", False),
        ("1.5.0", "1.4.9", False),
        ("1.10.0", "1.9.0", False),
        ("1.9.0", "2.0.0", False),
        ("2.0.0", "1.9.0", False),
        ("main", "1.4.0", None),
        ("1.4.0", "main", None),
        ("1.4", "1.4.0", None),
        ("1.4.0x", "1.4.0", None),
    ],
)
def test_the_same_minor_version_and_the_one_before_are_supported(wanted, own, expected):
    assert expected is version_claim(wanted, own).holds


@pytest.mark.parametrize(
    ("wanted", "own", "reason", "says"),
    [
        ("1.2.0", "1.4.0", "VersionTooOld", "of 1.3 and 1.4, and 1.2.0 is older"),
        ("1.9.0", "2.0.0", "VersionTooOld", "set it to 2.0.0"),
        ("1.5.0", "1.4.0", "VersionTooNew", "upgrade the operator"),
        ("main", "1.4.0", "NoRelease", "cannot be compared"),
    ],
)
def test_what_to_do_is_said(wanted, own, reason, says):
    claim = version_claim(wanted, own)
    assert reason == claim.reason
    assert says in claim.message


def pinned(version):
    cluster = cluster_at_rest(**ring_spec(3), version=version)
    operate_until_ready(cluster)
    return cluster


def skews(planned):
    return [event for event in planned.events if event.reason == "VersionSkew"]


def test_an_operator_that_becomes_too_new_warns_once_and_goes_on():
    """The stack is as ready as before, and nothing is held back."""
    cluster = pinned("0.1.0")
    assert condition(cluster.stack.status, "VersionSupported")["status"] == "True"
    for own, warnings in (("0.2.0", 0), ("0.3.0", 1), ("0.3.0", 0), ("0.4.0", 1), ("0.1.0", 0)):
        planned = plan(cluster.stack, cluster.observe(), operator_version=own)
        assert len(skews(planned)) == warnings
        assert all(event.type == "Warning" for event in skews(planned))
        assert condition(planned.status, "Ready")["status"] == "True"
        assert not writes(planned)
        cluster.carry_out(planned)


def test_the_first_plan_of_an_operator_that_knows_the_condition_warns():
    """The status was written by one that did not."""
    cluster = pinned("0.1.0")
    status = cluster.stack.status
    status["conditions"] = [c for c in status["conditions"] if c["type"] != "VersionSupported"]
    (event,) = skews(plan(cluster.stack, cluster.observe(), operator_version="0.3.0"))
    assert "0.1.0 is older" in event.message


def test_the_preview_of_a_new_operator_tells():
    cluster = pinned("0.1.0")
    lines = preview(cluster.stack, cluster.observe(), operator_version="0.3.0")
    assert [line for line in lines if "0.1.0 is older" in line]
