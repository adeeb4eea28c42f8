"""A ring's budget counts on the copies that routers write, not on those that the spec asks for."""

import pytest

from thanostack_operator.manifests.services import missing_copies
from thanostack_operator.testing.clusters import change, cluster_at_rest, live_of, operate


def spec(factor):
    rings = [{"name": "default", "replicas": 5}]
    return {"receive": {"replicationFactor": factor, "rings": rings}}


def may_be_missing(cluster):
    live = cluster.observe().find("PodDisruptionBudget", "x-ingestor-default")
    return live["spec"]["maxUnavailable"] if live else 5


def survived(cluster):
    """Return how many missing ingestors the routers can stand, the worst of them."""
    name = "--receive.replication-factor="
    templates = [pod.template for pod in cluster.routers().values() if pod.ends_at is None]
    factors = [int(template.partition(name)[2][0]) for template in templates]
    return min(map(missing_copies, factors))


@pytest.mark.parametrize(("before", "after"), [(3, 5), (5, 3), (4, 5), (3, 1), (1, 3)])
def test_no_more_ingestors_may_go_than_every_router_can_stand(before, after):
    cluster = cluster_at_rest(**spec(before))
    change(cluster, **spec(after))
    for _ in range(40):
        operate(cluster)
        # Of one copy none can be spared, and there is no budget.
        assert not survived(cluster) or may_be_missing(cluster) <= survived(cluster)
    assert may_be_missing(cluster) == (missing_copies(after) or 5)


def test_a_budget_that_was_edited_is_set_back_when_routers_rest():
    cluster = cluster_at_rest(**spec(3))
    live_of(cluster, "PodDisruptionBudget", "x-ingestor-default")["spec"]["maxUnavailable"] = "90%"
    operate(cluster)
    assert may_be_missing(cluster) == 1
