"""Every upstream flag has a state here, and the table in the docs is current."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from thanostack.runtime.cli import COMMANDS, settings_of
from thanostack.runtime.flag_table import document
from thanostack.runtime.settings import State

ROOT = Path(__file__).parents[2]
UPSTREAM = {
    path.stem.removeprefix("thanos-"): set(path.read_text(encoding="utf-8").split())
    for path in (ROOT / "tests" / "data" / "flags").glob("thanos-*.txt")
}
THERE = [name for name in COMMANDS if importlib.util.find_spec(f"thanostack.{name}.settings")]


def flags_of(name):
    return list(settings_of(name).flags().values())


@pytest.mark.parametrize("name", sorted(UPSTREAM))
def test_every_upstream_flag_is_declared(name):
    """None is missing, none is invented, and ours bear names that upstream does not use."""
    declared = {flag.name for flag in flags_of(name) if flag.upstream}
    assert sorted(UPSTREAM[name] - declared) == []
    assert sorted(declared - UPSTREAM[name]) == []
    assert UPSTREAM[name].isdisjoint(flag.name for flag in flags_of(name) if not flag.upstream)


@pytest.mark.parametrize("name", THERE)
def test_every_state_says_why(name):
    """A flag without effect has a reason, a refused one a hint, a supported one neither."""
    for flag in flags_of(name):
        assert bool(flag.note) == (flag.state is not State.SUPPORTED), flag.name
        assert flag.help.endswith("."), flag.name
        assert not flag.note.endswith("."), flag.name


@pytest.mark.parametrize("name", THERE)
def test_every_supported_flag_is_in_a_test(name):
    """One that no test sets could be wired to nothing."""
    folders = ("unit", "integration", "interop")
    tests = [path for folder in folders for path in (ROOT / "tests" / folder).rglob("test_*.py")]
    kit = (ROOT / "services" / "thanostack" / "testing").glob("*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in (*tests, *kit))
    set_in_tests = {flag.removeprefix("no-") for flag in re.findall(r"--([a-z][\w.-]*)", text)}
    supported = {flag.name for flag in flags_of(name) if flag.state is State.SUPPORTED}
    assert sorted(supported - set_in_tests) == []


@pytest.mark.parametrize("name", THERE)
def test_variables_are_unique(name):
    """No two flags are mirrored by one environment variable."""
    variables = [flag.variable for flag in flags_of(name)]
    assert len(variables) == len(set(variables))


def test_the_table_in_the_docs_is_current():
    """docs/flags.md is what the settings classes say now."""
    assert (ROOT / "docs" / "flags.md").read_text(encoding="utf-8") == document(), (
        "run: python -P -m thanostack.runtime.flag_table > docs/flags.md"
    )
