"""`thanostack-operator plan -f cr.yaml` as a process beside a cluster: what it says, and is true.

file ──> plan ──reads──> API server, routers, ingestors        nothing is written
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.api_server import ApiServer
from cluster.fake_kubelet import FakeKubelet, claims_may_grow, running
from cluster.fixtures import new_namespace
from cluster.operators import VERSION, Stack, operator
from cluster.project import ROOT

from thanostack_operator.api.crd import FILE


@pytest.fixture(scope="module")
def stack(
    api_server_with_controllers: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack that is not applied yet, and an operator that waits for it."""
    server = api_server_with_controllers
    kubectl = server.kubectl()
    kubectl.apply((ROOT / FILE).read_text(encoding="utf-8"))
    kubectl.await_crds()
    folder = tmp_path_factory.mktemp("operator")
    with running(FakeKubelet(server.admin)), operator(server.admin, folder):
        stack = Stack(kubectl, new_namespace(kubectl))
        yield stack
        stack.delete()


def plan(stack: Stack, file: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Return what the program says to a file, or to a text if that is `-`."""
    command = [sys.executable, "-P", "-m", "thanostack_operator", "plan", "-f", file]
    return subprocess.run(
        [*command, f"--default-version={VERSION}"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KUBECONFIG": str(stack.kubectl.kubeconfig)},
    )


def said(stack: Stack, **spec: Any) -> tuple[list[str], list[str]]:
    """Return changes and steps of a plan for a spec, without numbers; nobody wrote anything."""
    before = stack.objects()
    done = plan(stack, "-", json.dumps(stack.manifest(**spec)))
    assert (done.returncode, done.stderr) == (0, "")
    assert stack.objects() == before
    changes, steps = done.stdout.split("\n\n")
    lines = [re.sub(r"^  (\d+\. )?", "", line) for line in steps.splitlines()[1:]]
    return [line.strip() for line in changes.splitlines()[1:]], lines


def rings(replicas: int, size: str = "10Gi") -> dict[str, Any]:
    ring = {"name": "default", "replicas": replicas, "storage": {"size": size}}
    return {"rings": [ring]}


def test_before_it_is_applied_it_says_what_will_be_made(stack: Stack):
    """Everything that it says is made then, and nothing else."""
    changes, steps = said(stack, receive=rings(3))
    assert "+ StatefulSet x-ingestor-default" in changes
    assert "+ Deployment x-receive" not in changes  # waits for the hashrings
    hashrings = steps.index("apply ConfigMap x-hashrings")
    assert hashrings < steps.index("apply Deployment x-receive, 2 replicas")
    stack.apply(receive=rings(3))
    stack.await_ready()
    told = {re.sub(r"^apply ([^,]*).*", r"\1", it) for it in steps if it.startswith("apply")}
    assert told == {name for name in stack.objects() if not name.startswith("Pod ")}


def test_of_what_is_as_it_should_be_it_says_so(stack: Stack):
    assert said(stack, receive=rings(3)) == (
        ["none"],
        ["none: the stack is as it should be"],
    )


def test_of_a_change_it_says_each_field_and_the_steps(stack: Stack):
    changes, steps = said(stack, receive=rings(4), query={"replicas": 1})
    assert "spec.replicas: 3 -> 4" in changes
    assert "spec.replicas: 2 -> 1" in changes
    assert "ring default: ingestor 3 joins" in steps


def test_a_ring_that_shrinks_is_drained_first(stack: Stack):
    stack.patch({"receive": rings(4)})
    stack.await_ready()
    _, steps = said(stack, receive=rings(3))
    drain = steps.index("drain x-ingestor-default-3")
    (smaller,) = [i for i, it in enumerate(steps) if it.endswith("x-ingestor-default, 3 replicas")]
    assert drain < smaller


def test_of_volumes_that_grow_it_says_each_step_or_why_there_is_none(stack: Stack):
    replicas = len(stack.pods("ingestor"))
    _, steps = said(stack, receive=rings(replicas, "20Gi"))
    assert "StorageClass fake does not let data-x-ingestor-default-0" in steps[-1]
    with claims_may_grow(stack.kubectl):
        wanted = functools.partial(said, stack, receive=rings(replicas, "20Gi"))
        # What the test before it did is not settled yet.
        stack.until("no step that goes first", lambda: wanted()[0] != ["none"])
        changes, steps = wanted()
    assert changes[:2] == [
        "~ PersistentVolumeClaim data-x-ingestor-default-0",
        'spec.resources.requests.storage: "10Gi" -> "20Gi"',
    ]
    grow = "grow PersistentVolumeClaim data-x-ingestor-default-{} to 20Gi"
    assert steps[:-2] == [grow.format(number) for number in range(replicas)]
    assert steps[-2] == "delete StatefulSet x-ingestor-default, its pods run on"
    assert steps[-1] == f"apply StatefulSet x-ingestor-default, {replicas} replicas"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"kind": "ThanosStack", "metadata": {"name": "x"}, "spec": {"qery": {}}}', "qery"),
        ('{"kind": "Deployment", "metadata": {"name": "x"}}', "- is no ThanosStack with a name"),
        ("a: 1\n---\nb: 2\n", "- is not one document of YAML"),
    ],
)
def test_what_is_wrong_is_said_and_is_an_error(stack: Stack, text: str, message: str):
    done = plan(stack, "-", text)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_only_the_operator_sees_is_said_too(stack: Stack):
    secret = {"name": "nowhere", "mountPath": "/etc/nowhere"}
    done = plan(stack, "-", json.dumps(stack.manifest(query={"secrets": [secret]})))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("Nothing would be done:\n")
    assert "nowhere" in done.stdout


def test_a_file_that_is_not_there_is_an_error(stack: Stack, tmp_path: Path):
    done = plan(stack, str(tmp_path / "cr.yaml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "cr.yaml" in done.stderr
    assert "Traceback" not in done.stderr
