"""Our hashrings answer the recorded cases as Thanos v0.42.4 does, bit for bit."""

import json
from pathlib import Path

import pytest

from thanostack.testing import hashring_vectors

FOLDER = Path(__file__).parents[2] / "data" / "hashring"
REFUSED = hashring_vectors.REFUSED


@pytest.fixture(scope="module")
def cases():
    return json.loads((FOLDER / "cases.json").read_text())


@pytest.fixture(scope="module")
def golden():
    return json.loads((FOLDER / "vectors.json").read_text())


@pytest.fixture(scope="module")
def ours(cases):
    return hashring_vectors.answers(cases)


def test_vectors_say_who_wrote_them(golden):
    assert "github.com/thanos-io/thanos v0.42.4" in golden["written_by"]


@pytest.mark.parametrize("what", ["seeds", "draws", "config_hashes"])
def test_equal(what, golden, ours):
    """Seeds of shards, Go's random numbers from many seeds, hashes of configurations."""
    assert golden[what]
    assert golden[what] == ours[what]


def test_placement_equals(golden, ours):
    """Every node of every replica, for each tenant that upstream places at all."""
    placed = 0
    for theirs, mine in zip(golden["placements"], ours["placements"], strict=True):
        for tenant, expected in theirs.get("tenants", {}).items():
            if "error" not in expected:
                placed += 1
                assert expected == mine["tenants"][tenant], (theirs["name"], tenant)
    assert placed > 500


def test_refused_exactly_where_upstream_fails(golden, ours):
    """Upstream fails a file or, later, each write of a tenant; of the latter we know at once."""
    failing = 0
    for theirs, mine in zip(golden["placements"], ours["placements"], strict=True):
        fails = "error" in theirs or any("error" in t for t in theirs["tenants"].values())
        refused = "error" in mine or any("error" in t for t in mine["tenants"].values())
        assert fails == refused, theirs["name"]
        failing += fails
    assert failing > 15


def test_patterns_match_what_go_matches(cases, golden, ours):
    """A malformed pattern, which Go notices for some names only, is refused for all."""
    assert set(cases["globs"]["patterns"]) == set(golden["globs"])
    for pattern, expected in golden["globs"].items():
        assert (REFUSED if "!" in expected else expected) == ours["globs"][pattern], pattern
