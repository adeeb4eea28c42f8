"""Files in ConfigMaps are what the containers read, and say what the fields said."""

import pytest

from thanostack.lib.relabel.config import parse_relabel_configs
from thanostack.receive.limits_file import parse_limits
from thanostack.receive.overrides import parse_overrides
from thanostack_operator.testing.stacks import named, objects_at_rest, stack_of


def text(stack, name):
    (found,) = named(objects_at_rest(stack), "ConfigMap", name)["data"].values()
    return found.encode()


def routers(**settings):
    return stack_of(receive={"routers": settings})


def test_limits():
    write = {
        "global": {"max_concurrency": 30, "meta_monitoring_url": "http://prometheus:9090"},
        "default": {"request": {"size_bytes_limit": 1024, "series_limit": 0}},
        "tenants": {"acme": {"head_series_limit": 7}},
    }
    found = parse_limits(text(routers(limits={"write": write}), "x-receive-limits"))
    assert found.max_concurrency == 30
    assert found.meta_monitoring is not None
    assert found.meta_monitoring.url == "http://prometheus:9090"
    assert found.default == {"size_bytes_limit": 1024, "series_limit": 0}
    assert found.tenants == {"acme": {"head_series_limit": 7}}


def test_overrides():
    """What is not said stays unsaid: the limits file and the flags come after."""
    overrides = {
        "default": {"label_names_limit": 40, "label_value_length_limit": 2000},
        "tenants": {"acme": {"retention": "30d", "request": {"samples_limit": 5}}},
    }
    stack = stack_of(receive={"rings": [{"name": "a", "overrides": overrides}]})
    found = parse_overrides(text(stack, "x-ingestor-a-overrides"))
    assert found.default == {"label_names_limit": 40, "label_value_length_limit": 2000}
    assert found.tenants == {"acme": {"retention": 30 * 86_400_000, "samples_limit": 5}}


def test_relabel_rules():
    rules = [
        {"source_labels": ["a", "b"], "separator": "/", "regex": "(.+)/x", "target_label": "c"},
        {"action": "labeldrop", "regex": "tmp_.*"},
        {"action": "hashmod", "source_labels": ["a"], "modulus": 4, "target_label": "shard"},
    ]
    found = parse_relabel_configs(text(routers(relabelConfigs=rules), "x-receive-relabel"))
    assert [rule.action.value for rule in found] == ["replace", "labeldrop", "hashmod"]
    assert found[0].replacement == "$1"
    assert found[2].modulus == 4


@pytest.mark.parametrize("limits", [{}, {"write": {}}, {"write": {"default": {}, "tenants": {}}}])
def test_empty_files_are_files(limits):
    assert parse_limits(text(routers(limits=limits), "x-receive-limits")).tenants == {}
    ring = {"name": "a", "overrides": limits.get("write", {})}
    stack = stack_of(receive={"rings": [ring]})
    assert parse_overrides(text(stack, "x-ingestor-a-overrides")).tenants == {}
