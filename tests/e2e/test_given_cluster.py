"""On the cluster of KUBECONFIG images come by docker and kind: what they are told."""

import pytest
from cluster.given import GivenCluster


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Programs that write down what they are told; a function that reads it."""
    for name in ("docker", "kind"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/told\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def told(context):
        kubectl = tmp_path / "kubectl"
        kubectl.write_text(f"#!/bin/sh\necho {context}\n")
        kubectl.chmod(0o755)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        cluster = GivenCluster.from_environment()
        cluster.add_project_image("localhost/it:1", tmp_path, "services/Dockerfile")
        lines = (tmp_path / "told").read_text().splitlines()
        return [line.replace(str(tmp_path), "ROOT") for line in lines]

    return told


def test_an_image_is_built_and_loaded_into_kinds_cluster(told):
    assert told("kind-thanostack") == [
        "docker build --file=ROOT/services/Dockerfile --tag=localhost/it:1 ROOT",
        "kind load docker-image localhost/it:1 --name=thanostack",
    ]


def test_another_cluster_gets_its_images_in_its_own_way(told):
    assert told("production") == [
        "docker build --file=ROOT/services/Dockerfile --tag=localhost/it:1 ROOT"
    ]


def test_without_kubeconfig_there_is_none(monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert GivenCluster.from_environment() is None
