"""hashrings.json: what routers read of it, and what the operator reads back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thanostack.lib.hashring import config_hash as hash_of_routers
from thanostack.lib.hashring.config import parse_config
from thanostack_operator.manifests.hashrings import Member, config_hash, read_members, render
from thanostack_operator.testing.stacks import stack_of

TWO = stack_of(
    receive={
        "rings": [
            {"name": "z-first", "tenants": ["team-*", "a"], "tenantMatcherType": "glob"},
            {"name": "a-last"},
        ]
    }
)


def parsed(rings):
    return parse_config(render(TWO, rings), "hashmod")


def test_routers_read_what_was_meant():
    """Rings in the order of the spec, not of their names; always ketama; nothing to warn about."""
    (first, last), warnings = parsed({"a-last": [Member(0)], "z-first": [Member(1, "eu-1")]})
    assert warnings == ()
    assert (first.name, last.name) == ("z-first", "a-last")
    assert first.algorithm == last.algorithm == "ketama"
    assert first.tenants is not None
    assert first.tenants.has("team-x")
    assert last.tenants is None
    (endpoint,) = first.endpoints
    assert endpoint.address == "x-ingestor-z-first-1.x-ingestor-z-first.ns.svc:10901"
    assert endpoint.az == "eu-1"


def test_members_stand_in_numeric_order():
    """By name, 10 would stand before 2."""
    (ring,), _ = parsed({"a-last": [Member(10), Member(2), Member(0)]})
    numbers = [endpoint.address.partition(".")[0].rpartition("-")[2] for endpoint in ring.endpoints]
    assert numbers == ["0", "2", "10"]


def test_rings_without_members_are_left_out():
    (ring,), _ = parsed({"z-first": [], "a-last": [Member(0)], "gone": [Member(0)]})
    assert ring.name == "a-last"


def test_a_member_without_a_zone_has_none():
    """An empty one would be a zone of its own."""
    (entry,) = json.loads(render(TWO, {"a-last": [Member(0)]}))
    assert entry["endpoints"] == [{"address": "x-ingestor-a-last-0.x-ingestor-a-last.ns.svc:10901"}]


@pytest.mark.parametrize("text", ["", "[]\n", render(TWO, {"a-last": [Member(0), Member(1, "z")]})])
def test_the_hash_is_the_one_that_routers_report(text):
    assert hash_of_routers(text.encode()) == config_hash(text)


MEMBERS = st.lists(
    st.builds(Member, st.integers(0, 150), st.sampled_from(["", "a", "b"])),
    min_size=1,
    max_size=20,
    unique_by=lambda member: member.ordinal,
)


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from(["z-first", "a-last"]), MEMBERS))
def test_what_is_written_is_read_back(rings):
    """And equal members have equal texts, whatever their order."""
    text = render(TWO, rings)
    expected = {name: tuple(sorted(members)) for name, members in rings.items()}
    assert expected == read_members(text)
    assert text == render(TWO, {name: members[::-1] for name, members in rings.items()})


@pytest.mark.parametrize(
    "text",
    ["", "{", "3", '["a"]', '[{"hashring": "a"}]', '[{"hashring": "a", "endpoints": ["a:1"]}]',
     '[{"hashring": "a", "endpoints": [{"address": "elsewhere:10901"}]}]'],
)  # fmt: skip
def test_what_somebody_else_wrote_is_an_error(text):
    with pytest.raises(ValueError, match=r"."):
        read_members(text)
