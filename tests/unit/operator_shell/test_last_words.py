"""Why a container that crashes did: its own last words, and how it ended."""

import pytest

from thanostack_operator.observe import pod_problem
from thanostack_operator.testing.stacks import container_of, objects_at_rest, stack_of

BACK_OFF = {"reason": "CrashLoopBackOff", "message": "back-off 10s"}


def crashing(**terminated):
    status = {"state": {"waiting": BACK_OFF}, "lastState": {"terminated": terminated}}
    return {"status": {"containerStatuses": [status]}}


@pytest.mark.parametrize(
    ("terminated", "words"),
    [
        ({"reason": "OOMKilled", "exitCode": 137}, "OOMKilled"),
        ({"reason": "Error", "exitCode": 1}, "it ended with 1"),
        (
            {"reason": "Error", "exitCode": 2, "message": "level=error --tsdb.path: is full\n"},
            "it ended with 2: level=error --tsdb.path: is full",
        ),
    ],
)
def test_a_crash_is_explained(terminated, words):
    assert pod_problem(crashing(**terminated)) == f"CrashLoopBackOff: back-off 10s: {words}"


@pytest.mark.parametrize(
    ("kind", "name"),
    [("StatefulSet", "x-ingestor-default"), ("Deployment", "x-receive"), ("Deployment", "x-query")],
)
def test_the_kubelet_keeps_the_end_of_the_log(kind, name):
    container = container_of(objects_at_rest(stack_of()), kind, name)
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
