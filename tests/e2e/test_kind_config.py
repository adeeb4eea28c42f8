"""`kind-config.yaml` is what kind itself accepts, with three zones and the ports that tests use."""

import json
import subprocess

import pytest
import yaml
from cluster.programs import KIND_CONFIG
from cluster.project import ROOT

from thanostack.testing.go_programs import build

FILE = ROOT / "kind-config.yaml"


def as_kind_reads(text):
    command = [str(build(KIND_CONFIG))]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def nodes():
    done = as_kind_reads(FILE.read_text())
    assert done.stderr == ""
    return json.loads(done.stdout)["Nodes"]


def test_three_workers_are_in_three_zones(nodes):
    workers = [node["Labels"] for node in nodes if node["Role"] == "worker"]
    assert [{"topology.kubernetes.io/zone": f"zone-{letter}"} for letter in "abc"] == workers


def test_node_ports_are_on_the_loopback_address_under_their_own_numbers(nodes):
    (node,) = [node for node in nodes if node["Role"] == "control-plane"]
    mapped = [
        (each["ListenAddress"], each["HostPort"], each["ContainerPort"])
        for each in node["ExtraPortMappings"]
    ]
    assert [("127.0.0.1", port, port) for port in (30291, 30902, 30901)] == mapped


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nodes": [{"role": "nurse"}]}, "nurse"),
        ({"nodes": [{"role": "worker"}]}, "must have at least one control-plane"),
        ({"knots": []}, "knots"),
    ],
)
def test_kind_refuses_what_it_does_not_know(change, said):
    """The check is a check."""
    text = yaml.safe_dump(yaml.safe_load(FILE.read_text()) | change)
    done = as_kind_reads(text)
    assert done.returncode == 1
    assert said in done.stderr
