"""What kopf is asked to watch, and which stack an event of it wakes."""

import asyncio

import kopf
import pytest
from kopf._core.intents.causes import Activity

from thanostack_operator import handlers
from thanostack_operator.kube import KINDS, STACKS, WATCHED
from thanostack_operator.manifests.names import FINALIZER, STACK_LABEL


class Loops:
    """Which stacks were woken, and which had a loop started."""

    def __init__(self):
        self.seen = []

    def wake(self, *key):
        self.seen.append(("wake", *key))

    def ensure(self, *key):
        self.seen.append(("ensure", *key))


def registered(loops):
    """Return the handlers by (API version, plural)."""
    registry = handlers.register(loops, asyncio.Event())
    found = {}
    for handler in registry._watching.get_all_handlers():
        selector = handler.selector
        version = f"{selector.group}/{selector.version}" if selector.group else selector.version
        found[version, selector.any_name] = handler
    return registry, found


def test_every_kind_that_matters_is_watched_and_no_other():
    _, found = registered(Loops())
    wanted = {(version, KINDS[version, kind]) for version, kind in (STACKS, *WATCHED)}
    assert found.keys() == wanted
    assert len(wanted) == 8


def test_nothing_is_registered_that_writes():
    """A stack that is deleted while no operator runs must not be held by a finalizer of kopf's."""
    registry, found = registered(Loops())
    for kind in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert not list(kind.get_all_handlers())
    assert len(found) == len(list(registry._watching.get_all_handlers()))


async def test_a_stack_that_is_seen_gets_its_loop():
    loops = Loops()
    _, found = registered(loops)
    handler = found["thanostack.io/v1alpha1", "thanosstacks"]
    await handler.fn(namespace="ns", name="x", type="ADDED", body={})
    assert loops.seen == [("ensure", "ns", "x")]


@pytest.mark.parametrize("kind", [KINDS[kind] for kind in WATCHED])
async def test_a_child_wakes_the_stack_of_its_label(kind):
    loops = Loops()
    _, found = registered(loops)
    (handler,) = (handler for (_, plural), handler in found.items() if plural == kind)
    assert handler.labels == {STACK_LABEL: kopf.PRESENT}
    await handler.fn(namespace="ns", name="x-query", labels={STACK_LABEL: "x"}, type="DELETED")
    assert loops.seen == [("wake", "ns", "x")]


async def test_the_end_of_kopf_is_the_end_of_the_loops():
    """And of its own wait: it does not set its flag after a signal."""
    ended, stop = [], asyncio.Event()

    class Ending(Loops):
        async def stop(self):
            ended.append(stop.is_set())

    registry = handlers.register(Ending(), stop)
    (cleanup,) = (
        handler
        for handler in registry._activities.get_all_handlers()
        if handler.activity is Activity.CLEANUP
    )
    await cleanup.fn()
    assert (ended, stop.is_set()) == ([False], True)


def test_kopf_keeps_to_itself():
    """No peers, no events, no CRDs to look for, no finalizer that plans set."""
    settings = handlers.settings()
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert settings.persistence.finalizer != FINALIZER


def test_others_pods_are_not_listed():
    settings = handlers.settings()
    for version, kind in WATCHED:
        group, _, number = version.rpartition("/")
        plural = KINDS[version, kind]
        resource = kopf.Resource(group, number, plural, kind=kind, namespaced=True)
        assert list(settings.watching.label_selectors.collect(resource)) == [STACK_LABEL]
    stacks = kopf.Resource("thanostack.io", "v1alpha1", "thanosstacks", namespaced=True)
    assert list(settings.watching.label_selectors.collect(stacks)) == []


def test_watches_end_before_anybody_in_between_ends_them():
    settings = handlers.settings()
    assert settings.watching.server_timeout < settings.watching.client_timeout <= 600
