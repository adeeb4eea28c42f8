"""A component whose pods the API server refuses says so, as long as there is no pod to say more."""

import pytest

from thanostack_operator.testing.clusters import cluster_at_rest, condition, live_of, plan_of

REFUSAL = 'pods "x-query-" is forbidden: no PriorityClass with name no-such was found'


def refused_deployment(cluster):
    live = live_of(cluster, "Deployment", "x-query")
    failure = {"type": "ReplicaFailure", "status": "True", "message": REFUSAL}
    live["status"] |= {"readyReplicas": 0, "updatedReplicas": 0, "conditions": [failure]}
    return plan_of(cluster)


def refused_ingestors(cluster):
    refused = {"x-ingestor-default": REFUSAL}
    return plan_of(cluster, ingestors={}, refusals=refused)


@pytest.mark.parametrize(
    ("name", "plan"),
    [("x-query", refused_deployment), ("x-ingestor-default", refused_ingestors)],
)
def test_the_reason_is_in_conditions_and_component(name, plan):
    status = plan(cluster_at_rest()).status
    assert REFUSAL in condition(status, "ComponentsAvailable")["message"]
    (component,) = (each for each in status["components"] if each["name"] == name)
    assert component["message"] == REFUSAL


def test_a_pod_that_is_there_says_it_better():
    status = plan_of(
        cluster_at_rest(),
        ingestors={},
        refusals={"x-ingestor-default": REFUSAL},
        pod_problems={"x-ingestor-default-1": "Unschedulable: no node"},
    ).status
    message = condition(status, "ComponentsAvailable")["message"]
    assert "Unschedulable" in message
    assert REFUSAL not in message
