"""What the operator's command line says where it cannot begin."""

from __future__ import annotations

import os
import sys

import pytest

from thanostack_operator import __main__ as command_line

STACK = "{apiVersion: thanostack.io/v1alpha1, kind: ThanosStack, metadata: {name: x}}"
CLUSTER = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
"""


@pytest.fixture
def plan(tmp_path, monkeypatch, caplog):
    """Return a function that plans for a file outside of any cluster, and gives what is said."""

    def run(file, kubeconfig):
        monkeypatch.setenv("KUBECONFIG", kubeconfig)
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setattr(sys, "argv", ["thanostack-operator", "plan", "-f", str(file)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        assert ended.value.code == 1
        (said,) = caplog.messages
        return said

    (tmp_path / "cr.yaml").write_text(STACK)
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    return run


def test_without_a_cluster_it_says_where_it_looked(plan, tmp_path):
    """It was "Service host/port is not set.", with a warning of the client's."""
    said = plan(tmp_path / "cr.yaml", str(tmp_path / "none"))
    assert said.startswith("no cluster to talk to: this is no pod (")
    assert said.endswith(f"and there is no file {tmp_path / 'none'}; set KUBECONFIG")


def test_a_file_is_read_before_a_cluster_is_looked_for(plan, tmp_path):
    """What is wrong with the file needs no cluster."""
    assert "No such file" in plan(tmp_path / "none.yaml", str(tmp_path / "none"))


def test_a_kubeconfig_that_is_no_yaml_is_named(plan, tmp_path):
    """It was a traceback."""
    (tmp_path / "bad.yaml").write_text("a: [")
    said = plan(tmp_path / "cr.yaml", str(tmp_path / "bad.yaml"))
    assert said.startswith(f"{tmp_path / 'bad.yaml'} is not YAML: ")


def test_kubeconfig_may_name_several_files(plan, tmp_path):
    """One of them is enough; the client took the whole for one name, and for a pod's life."""
    several = os.pathsep.join((str(tmp_path / "none"), str(tmp_path / "cluster.yaml")))
    assert "127.0.0.1:1" in plan(tmp_path / "cr.yaml", several)


def test_kubeconfig_may_be_a_pipe(plan, tmp_path):
    """As of a command that has it from a vault; it was no file."""
    reads, writes = os.pipe()
    os.write(writes, CLUSTER.encode())
    os.close(writes)
    try:
        assert "127.0.0.1:1" in plan(tmp_path / "cr.yaml", f"/dev/fd/{reads}")
    finally:
        os.close(reads)
