"""What a real API server says to the definition, to stacks, and to their objects."""

import json
from pathlib import Path

import pytest
import yaml
from cluster.fixtures import new_namespace
from cluster.kubectl import KubectlError
from cluster.programs import monitoring_definitions

from thanostack_operator.api.crd import FILE
from thanostack_operator.api.reading import read_stack
from thanostack_operator.api.stack import ThanosStackSpec
from thanostack_operator.testing.stacks import objects_at_rest

ROOT = Path(__file__).parents[2]
CASES = yaml.safe_load((ROOT / "tests/data/stacks/bad_stacks.yaml").read_text(encoding="utf-8"))
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yaml"))


def stack(name, spec):
    return json.dumps(
        {
            "apiVersion": "thanostack.io/v1alpha1",
            "kind": "ThanosStack",
            "metadata": {"name": name},
            "spec": spec,
        }
    )


def cases(*by):
    return [pytest.param(case, id=case["case"]) for case in CASES if case["by"] in by]


@pytest.fixture(scope="module")
def kubectl(api_server):
    """The administrator's, on a server that knows stacks and what prometheus-operator reads."""
    found = api_server.kubectl()
    for path in (ROOT / FILE, *monitoring_definitions()):
        found.apply(path.read_text(encoding="utf-8"))
    found.await_crds()
    return found


@pytest.fixture(scope="module")
def nowhere(kubectl):
    """A namespace in which nothing is ever made."""
    return f"--namespace={new_namespace(kubectl)}"


@pytest.fixture
def here(kubectl):
    """A namespace of the test's own."""
    return f"--namespace={new_namespace(kubectl)}"


def test_the_definition_is_taken_as_it_is(kubectl):
    """Nothing is pruned, and nothing is wrong with the schema."""
    found = kubectl.json("get", "crd", "thanosstacks.thanostack.io")
    written = yaml.safe_load((ROOT / FILE).read_text(encoding="utf-8"))
    assert found["spec"]["versions"] == written["spec"]["versions"]
    conditions = {it["type"]: it["status"] for it in found["status"]["conditions"]}
    assert conditions.get("NonStructuralSchema", "False") == "False"


def test_an_empty_stack_gets_the_defaults_of_the_models(kubectl, here):
    """What the API server fills in is what the operator would have taken anyway."""
    kubectl.apply(stack("x", {}), here)
    found = kubectl.json("get", "tstk", "x", here)
    assert read_stack(found).spec == ThanosStackSpec()
    assert "x" in kubectl("get", "thanostack", here)


@pytest.mark.parametrize("case", cases("schema", "rule"))
def test_wrong_stacks_are_refused_and_told_why(kubectl, nowhere, here_if_changed, case):
    where = here_if_changed or nowhere
    with pytest.raises(KubectlError) as refusal:
        kubectl.apply(stack(case.get("name", "bad"), case["spec"]), where)
    assert case["says"].removeprefix("spec") in str(refusal.value)


@pytest.fixture
def here_if_changed(kubectl, request, case):
    """A namespace with the stack that a case is a change of, if it is one."""
    if "old" not in case:
        return None
    where = request.getfixturevalue("here")
    kubectl.apply(stack("bad", case["old"]), where)
    return where


@pytest.mark.parametrize("case", cases("operator"))
def test_what_only_the_operator_sees_is_taken(kubectl, nowhere, case):
    """If the API server could refuse it, the rule would belong there."""
    kubectl.apply(stack("bad", case["spec"]), nowhere, "--dry-run=server")


def test_a_volume_may_grow(kubectl, here):
    for size in ("10Gi", "10240Mi", "11Gi"):
        ring = {"name": "a", "storage": {"size": size, "className": "c"}}
        kubectl.apply(stack("x", {"receive": {"rings": [ring]}}), here)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_objects_of_examples_are_taken(kubectl, here, path):
    """Strictly: no field is unknown to the API server."""
    resource = yaml.safe_load(path.read_text(encoding="utf-8"))
    namespace = here.partition("=")[2]
    resource["metadata"]["namespace"] = namespace
    kubectl.apply(json.dumps(resource), here)
    name = resource["metadata"]["name"]
    found = read_stack(kubectl.json("get", "tstk", name, here))
    for it in objects_at_rest(found):
        kubectl.apply(json.dumps(it), here, "--validate=strict")
