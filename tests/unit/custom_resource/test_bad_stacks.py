"""Wrong stacks get one message that says what is wrong; the documented ones get none.

What the API server says to the same table is in tests/e2e/test_custom_resource.py.
"""

from pathlib import Path

import pytest
import yaml

from thanostack.lib.tenancy.names import RESERVED
from thanostack_operator.api import rules
from thanostack_operator.api.reading import SpecInvalid, read_stack
from thanostack_operator.manifests.checks import problems

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yaml"))
CASES = yaml.safe_load((ROOT / "tests/data/stacks/bad_stacks.yaml").read_text(encoding="utf-8"))
MESSAGES = [rule.message for rule in vars(rules).values() if isinstance(rule, rules.Rule)]


def found(case):
    """Return what the operator says of a wrong stack."""
    try:
        stack = read_stack({"metadata": {"name": case.get("name", "bad")}, "spec": case["spec"]})
    except SpecInvalid as error:
        return error.problems
    return problems(stack)


def cases(*by):
    return [pytest.param(case, id=case["case"]) for case in CASES if case["by"] in by]


def test_there_are_enough():
    assert len(CASES) >= 50
    assert len({case["case"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", cases("schema", "operator"))
def test_a_wrong_stack_gets_one_message(case):
    (message,) = found(case)
    assert case["says"] in message
    assert message.startswith("spec")


@pytest.mark.parametrize("case", cases("rule"))
def test_what_only_rules_refuse_is_said_by_one_rule(case):
    """The operator alone takes these: they never get past the API server."""
    assert found(case) == ()
    assert len([message for message in MESSAGES if case["says"] in message]) == 1


@pytest.mark.parametrize("rule", MESSAGES)
def test_every_rule_has_a_wrong_stack(rule):
    assert any(case["says"] in rule for case in CASES if case["by"] == "rule")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_right(path):
    assert problems(read_stack(yaml.safe_load(path.read_text(encoding="utf-8")))) == ()


def test_the_short_example_is_short():
    """Ten lines are enough, beside what is said about the bucket."""
    text = (ROOT / "docs/examples/thanosstack.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 12
    assert all("bucket" in path.read_text(encoding="utf-8") for path in EXAMPLES)


def test_tenants_have_to_fit_into_a_config_map():
    """Within all bounds of the schema, yet more than the API server stores."""
    rings = [
        {"name": f"r{ring}", "tenants": [f"{ring}-{i}".ljust(150, "x") for i in range(1000)]}
        for ring in range(8)
    ]
    metadata = {"name": "x"}
    (message,) = problems(read_stack({"metadata": metadata, "spec": {"receive": {"rings": rings}}}))
    assert "do not fit into a ConfigMap" in message
    few = {"receive": {"rings": rings[:2]}}
    assert problems(read_stack({"metadata": metadata, "spec": few})) == ()


@pytest.mark.parametrize("tenant", sorted(RESERVED - {""}))
def test_no_tenant_has_a_name_that_receivers_refuse(tenant):
    """The operator has a list of its own, as it does not import the services."""
    (message,) = found({"spec": {"receive": {"rings": [{"name": "a", "tenants": [tenant]}]}}})
    assert f"{tenant!r} cannot be the name of a folder" in message


def test_what_is_wrong_many_times_is_said_a_few_times():
    """A condition's message has a bound, and nobody reads a thousand lines."""
    many = [f"t{i}" for i in range(1000)]
    rings = [{"name": "a", "tenants": many}, {"name": "b", "tenants": many}]
    stack = read_stack({"metadata": {"name": "x"}, "spec": {"receive": {"rings": rings}}})
    found = problems(stack)
    assert len(found) == 11
    assert found[-1] == "and 990 more"
    assert len("; ".join(found)) < 4096


def test_an_empty_resource_is_a_stack():
    stack = read_stack({"metadata": {"name": "x", "namespace": "ns"}})
    assert problems(stack) == ()
    assert [ring.name for ring in stack.spec.receive.rings] == ["default"]


def test_metadata_is_read():
    resource = {
        "metadata": {
            "name": "x",
            "namespace": "ns",
            "uid": "u",
            "generation": 3,
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["a/b"],
        },
        "spec": {"paused": True},
        "status": {"version": "1"},
    }
    stack = read_stack(resource)
    assert (stack.name, stack.namespace, stack.uid, stack.generation) == ("x", "ns", "u", 3)
    assert stack.deleting
    assert stack.finalizers == ("a/b",)
    assert stack.spec.paused
    assert stack.status == {"version": "1"}


def test_a_component_is_laid_over_the_defaults():
    """Field by field; a list that the component has is not added to."""
    spec = {
        "podDefaults": {"logLevel": "debug", "tolerations": [{"key": "a"}], "labels": {"a": "b"}},
        "query": {"tolerations": [], "resources": {"requests": {"cpu": 2}}},
    }
    stack = read_stack({"metadata": {"name": "x"}, "spec": spec})
    settings = stack.spec.query.over(stack.spec.pod_defaults)
    assert settings.log_level == "debug"
    assert settings.labels == {"a": "b"}
    assert settings.tolerations == []
    assert settings.resources is not None
    assert settings.resources.requests == {"cpu": "2"}
