"""The committed custom resource definition is what the models say now."""

from pathlib import Path

import pytest
import yaml

from thanostack_operator.api.crd import FILE, TEMPLATE, documents

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", [FILE, TEMPLATE])
def test_files_are_current(name):
    assert (ROOT / name).read_text(encoding="utf-8") == documents()[name], (
        "run: python -P -m thanostack_operator.api.crd"
    )


def test_the_chart_has_nothing_else_that_helm_would_evaluate():
    """The template is plain YAML, as the other file, between the lines of one condition."""
    first, *plain, last = documents()[TEMPLATE].splitlines()
    assert (first, last) == ("{{- if .Values.crd.create }}", "{{- end }}")
    assert not any("{{" in line for line in plain)


def test_every_field_is_described():
    """`kubectl explain` is the documentation."""
    bare = []

    def walk(node, path):
        for name, field in node.get("properties", {}).items():
            if path and "description" not in field:
                bare.append(f"{path}.{name}")
            walk(field, f"{path}.{name}" if path else name)
        walk_inner = node.get("items") or node.get("additionalProperties")
        if walk_inner:
            walk(walk_inner, path + "[]")

    (version,) = yaml.safe_load(documents()[FILE])["spec"]["versions"]
    walk(version["schema"]["openAPIV3Schema"], "")
    assert bare == []


def test_every_list_map_and_text_of_the_spec_is_bounded():
    """What a rule may cost, and what a resource may weigh, is known beforehand."""
    free = []

    def walk(node, path):
        kinds = {"array": "maxItems", "string": "maxLength"}
        bounds = [kinds[node["type"]]] if node.get("type") in kinds else []
        bounds += ["maxProperties"] if "additionalProperties" in node else []
        if "enum" not in node and not node.keys() >= set(bounds):
            free.append(path)
        for name, field in node.get("properties", {}).items():
            walk(field, f"{path}.{name}")
        for inner in (node.get("items"), node.get("additionalProperties")):
            if inner:
                walk(inner, f"{path}[]")

    (version,) = yaml.safe_load(documents()[FILE])["spec"]["versions"]
    walk(version["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec")
    assert free == []


def test_it_stays_small_enough_for_client_side_apply():
    """A whole copy of it has to fit into an annotation of 256 KiB."""
    assert len(documents()[FILE]) < 150_000
