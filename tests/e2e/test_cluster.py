"""Our own clusters do what tests rely on, and leave nothing behind.

That two run side by side, and that one starts again with its state: `test_operator_life.py`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from cluster.cluster import Cluster
from cluster.fixtures import new_namespace
from cluster.given import GivenCluster
from cluster.launch import ClusterError
from cluster.processes import ProcessIdentity

from thanostack.testing.processes import until

pytestmark = pytest.mark.skipif(
    GivenCluster.from_environment() is not None, reason="KUBECONFIG chooses another cluster"
)
SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)"
APPEND = "open('/data/starts', 'a').write('.')"


def python_pod(name, code, image, **more):
    """A pod that runs Python: the services' image has it."""
    container = {
        "name": "it",
        "image": image,
        "command": ["/opt/thanostack/bin/python", "-c", code],
        "workingDir": "/data",
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": [claim]}
    meta = {"name": name, "labels": {"app": name}}
    volume = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": volume}
    ports = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    return [
        claim,
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec | more},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": ports},
    ]


def apply(cluster, objects, namespace):
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.kubectl.apply(text, namespace)


def fetch(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def served(cluster, services_image):
    """A pod that serves its volume; the namespace it is in."""
    here = f"--namespace={new_namespace(cluster.kubectl)}"
    apply(cluster, python_pod("web", f"{APPEND}; {SERVE}", services_image), here)
    cluster.kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=90s", here)
    yield here
    cluster.kubectl("delete", "namespace", here.partition("=")[2])


def test_the_node_says_its_zone(cluster):
    (node,) = cluster.kubectl.json("get", "nodes")["items"]
    assert node["metadata"]["labels"]["topology.kubernetes.io/zone"] == "zone-a"


def test_services_are_reached_from_here_and_by_name_from_pods(cluster, served):
    service = cluster.kubectl.json("get", "service/web", served)["spec"]["clusterIP"]
    text = until("the service", lambda: fetch(f"http://{service}/starts"))
    name = f"web.{served.partition('=')[2]}.svc"
    asks = f"import urllib.request as u; print(u.urlopen('http://{name}/starts', timeout=9).read())"
    exec_python = ("exec", "web", served, "--", "/opt/thanostack/bin/python", "-c")
    assert text == "."
    assert cluster.kubectl(*exec_python, asks) == "b'.'\n"


def test_pods_reach_this_machine_by_name(cluster, served):
    """So tests can serve what pods ask for."""
    with socket.create_server((cluster.addresses.host, 0)) as server:
        port = server.getsockname()[1]
        asks = f"import socket; socket.create_connection(('host.internal', {port}), 9)"
        exec_python = ("exec", "web", served, "--", "/opt/thanostack/bin/python", "-c", asks)
        cluster.kubectl(*exec_python)
        server.settimeout(9)
        server.accept()[0].close()


CHART = """\
apiVersion: v2
name: it
version: 0.1.0
kubeVersion: ">= 1.28.0"
"""
TEMPLATE = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: it}
data: {cluster: "{{ .Capabilities.KubeVersion }}", value: "{{ .Values.value }}"}
"""


def test_helm_installs_upgrades_and_uninstalls(cluster, helm, tmp_path):
    """Chart and cluster agree on the version: every program says its own."""
    here = f"--namespace={new_namespace(cluster.kubectl)}"
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text(CHART)
    (tmp_path / "templates" / "it.yaml").write_text(TEMPLATE)
    for verb, value in (("install", "1"), ("upgrade", "2")):
        helm(verb, "it", str(tmp_path), f"--set-string=value={value}", "--wait", here)
        data = cluster.kubectl.json("get", "configmap/it", here)["data"]
        assert data == {"cluster": "v1.36.3", "value": value}
    helm("uninstall", "it", "--wait", here)
    assert cluster.kubectl("get", "configmap/it", "--ignore-not-found", here) == ""


def test_memory_limits_kill(cluster, services_image, served):
    code = "import time; x = bytearray(200 << 20); time.sleep(99)"
    objects = python_pod("fat", code, services_image, restartPolicy="Never")
    objects[1]["spec"]["containers"][0]["resources"] = {"limits": {"memory": "64Mi"}}
    apply(cluster, objects, served)
    reason = "{.status.containerStatuses[0].state.terminated.reason}"
    killed = (f"--for=jsonpath={reason}=OOMKilled", "--timeout=90s")
    cluster.kubectl("wait", "pod/fat", *killed, "-v0", served)


def test_an_index_in_use_is_refused(cluster, tmp_path):
    with pytest.raises(ClusterError, match="in use by another cluster"):
        Cluster.start(tmp_path, cluster.addresses.index)


STARTS_AND_WAITS = """
import sys, time
from pathlib import Path
from cluster.cluster import Cluster
cluster = Cluster.start(Path(sys.argv[1]))
print(cluster.addresses.index, flush=True)
time.sleep(600)
"""


def test_a_cluster_ends_with_a_process_that_is_killed(tmp_path):
    """Nothing gets a chance to clean up, and the index is free again."""
    command = [sys.executable, "-P", "-c", STARTS_AND_WAITS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        index = int(process.stdout.readline())
        node = ProcessIdentity.read(tmp_path / "node.pid")
        assert node.is_running()
        os.kill(process.pid, signal.SIGKILL)
    until("the node's end", lambda: not node.is_running(), 20)
    with Cluster.start(tmp_path, index) as again:
        assert again.addresses.index == index
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        assert not (hierarchy / f"thanostack-cluster-{index}").exists()
