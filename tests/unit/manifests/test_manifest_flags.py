"""Flags: how fields and extra ones are merged, and that the containers take every one of them."""

from pathlib import Path

import pytest

from thanostack.runtime.check_config import Verdict, judge
from thanostack.runtime.cli import settings_of
from thanostack.runtime.thanos_commands import CommandLine
from thanostack_operator.manifests import args
from thanostack_operator.manifests.names import INGESTOR, QUERY, ROUTER
from thanostack_operator.testing.stacks import objects_at_rest, stack_of, stack_of_file

EXAMPLES = sorted((Path(__file__).parents[3] / "docs" / "examples").glob("*.yaml"))


@pytest.mark.parametrize(
    ("own", "extra", "expected"),
    [
        (["--a=1", "--b=2"], [], ["--a=1", "--b=2"]),
        (["--a=1", "--b=2"], ["--a=3"], ["--b=2", "--a=3"]),
        (["--a=1"], ["--c"], ["--a=1", "--c"]),
        (["--switch"], ["--no-switch"], ["--no-switch"]),
        (["--no-switch"], ["--switch"], ["--switch"]),
        (["--endpoint=a"], ["--endpoint=b"], ["--endpoint=a", "--endpoint=b"]),
        (["--query.replica-label=a"], ["--query.replica-label=b"], None),
        (["--a=1"], ["--a=x=y"], ["--a=x=y"]),
    ],
)
def test_extra_flags_replace_or_add(own, extra, expected):
    assert (expected or own + extra) == args.merged(own, extra)


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("plain", '--label=a="plain"'),
        ('quo"te', '--label=a="quo\\"te"'),
        ("back\\slash", '--label=a="back\\\\slash"'),
        ("$(POD_NAME)", '--label=a="$$(POD_NAME)"'),
        ("ü", '--label=a="ü"'),
    ],
)
def test_label_values_arrive_as_written(text, flag):
    """Go's quotes inside, Kubernetes's dollars outside."""
    assert flag == args.label_flag("a", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", "0s"), ("5m", "300s"), ("1h30m", "5400s"), ("1d", "86400s"), ("1m5ms", "60005ms")],
)
def test_durations_of_go_have_no_days(text, expected):
    assert expected == args.go_duration(text)


EVERYTHING = stack_of(
    clusterName='a "quoted" $(name)',
    externalLabels={"a": "b"},
    podDefaults={"logLevel": "debug", "logFormat": "json"},
    receive={
        "tenancy": {
            "certificateField": "commonName",
            "splitLabelName": "tenant",
            "header": "X-Tenant",
        },
        "routers": {
            "sloppyQuorum": True,
            "grpcCompression": "none",
            "limits": {"write": {}},
            "relabelConfigs": [{"action": "labeldrop", "regex": "a"}],
            "extraArgs": [
                "--remote-write.server-tls-cert=/a/cert",
                "--remote-write.server-tls-key=/a/key",
                "--remote-write.server-tls-client-ca=/a/ca",
            ],
        },
        "rings": [
            {"name": "a", "retention": "0d", "overrides": {"default": {}}, "tenants": ["x"]},
            {"name": "b", "retention": "0"},
        ],
    },
    query={
        "enforceTenancy": False,
        "partialResponse": False,
        "lookbackDelta": "1w",
        "timeout": "1h30m",
        "replicaLabels": ["replica", "b"],
        "endpoints": [{"address": "dns+a.b:10901"}],
    },
)


def workloads(stack):
    found = objects_at_rest(stack)
    return [o for o in found if o["kind"] in {"StatefulSet", "Deployment"}]


STACKS = [EVERYTHING, *map(stack_of_file, EXAMPLES)]


@pytest.mark.parametrize(
    "workload",
    [workload for stack in STACKS for workload in workloads(stack)],
    ids=lambda workload: workload["metadata"]["name"],
)
def test_containers_take_every_flag(workload):
    """None is unknown, refused, without effect, of a wrong value or given twice."""
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    report = judge(CommandLine(container["name"], tuple(container["args"])))
    assert report.error == ""
    assert [f for f in report.findings if f.verdict is not Verdict.SAME] == []


@pytest.mark.parametrize("component", [ROUTER, INGESTOR, QUERY])
def test_owned_flags_exist(component):
    """A flag that is refused in extraArgs is one that the container has."""
    settings = settings_of("query" if component == QUERY else "receive")
    known = {flag.name for flag in settings.flags().values()}
    assert sorted(args.OWNED[component].keys() - known) == []


def test_repeatable_flags_are_repeatable():
    """Those that the operator adds to are those that the containers collect."""
    collected = {
        flag.name
        for command in ("receive", "query")
        for field, flag in settings_of(command).flags().items()
        if settings_of(command).is_repeatable(field)
    }
    emitted = {
        args.name_of(word)
        for stack in STACKS
        for workload in workloads(stack)
        for word in workload["spec"]["template"]["spec"]["containers"][0]["args"]
    }
    assert collected & emitted == args.REPEATABLE
