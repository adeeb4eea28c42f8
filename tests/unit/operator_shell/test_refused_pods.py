"""Pods that the API server refuses to make: why is in no pod, since there is none."""

from thanostack_operator.kube import KubeClient
from thanostack_operator.observe import observe
from thanostack_operator.testing.api_server import FakeApiServer, Refusal
from thanostack_operator.testing.stacks import stack_of

NAME = "x-ingestor-default"
SETS = "/apis/apps/v1/namespaces/ns/statefulsets"
EVENTS = "/api/v1/namespaces/ns/events"


def event(message, time, **of):
    involved = {"kind": "StatefulSet", "name": NAME} | of
    reason = {"reason": "FailedCreate", "message": message, "lastTimestamp": time}
    return {"involvedObject": involved} | reason


def server_with(n_pods):
    server = FakeApiServer()
    labels = {"thanostack.io/stack": "x", "thanostack.io/ring": "default"}
    metadata = {"name": NAME, "labels": labels}
    live = {"metadata": metadata, "spec": {"replicas": 3}, "status": {"replicas": n_pods}}
    server.put(f"{SETS}/{NAME}", live)
    server.put(f"{EVENTS}/a", event("no such account", "2026-01-01T00:00:01Z"))
    server.put(f"{EVENTS}/b", event("exceeded quota", "2026-01-01T00:00:02Z"))
    server.put(f"{EVENTS}/c", event("another's", "2026-01-01T00:00:03Z", name="y"))
    return server


async def refusals(server):
    client = KubeClient(server.client())
    return (await observe(stack_of(), client, None, now=0.0, failures={})).refusals


async def test_a_set_that_lacks_pods_says_the_last_reason():
    assert await refusals(server_with(2)) == {NAME: "exceeded quota"}


async def test_of_a_whole_set_no_event_is_read():
    server = server_with(3)
    assert await refusals(server) == {}
    assert f"GET {EVENTS}" not in server.requests


async def test_without_the_right_to_list_events_the_reason_stays_unknown():
    server = server_with(2)

    def forbidden():
        raise Refusal(403, "events is forbidden")

    server.faults[f"GET {EVENTS}"] = forbidden
    assert await refusals(server) == {}
