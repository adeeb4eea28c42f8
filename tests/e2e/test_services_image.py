"""The services' image runs as its pods do: as nobody, on a root that cannot be written.

this test ──HTTP──> Service (node port) ──> pod of thanostack standalone, volume of the cluster
"""

import json
import urllib.parse
import urllib.request

import pytest
from cluster.fixtures import new_namespace

from thanostack.testing.processes import until

HTTP_PORT, WRITE_PORT = 30902, 30291
SECURITY = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container(image, *arguments, **more):
    return {"name": "it", "image": image, "args": arguments, "securityContext": SECURITY, **more}


def manifests(image, user):
    """A pod of standalone with a claim, and a Service in front of it.

    Args:
        image: its name.
        user: id, None for the image's own.
    """
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    probe = {"httpGet": {"path": "/-/ready", "port": 10902}, "periodSeconds": 1}
    runs = container(
        image,
        "standalone",
        "--tsdb.path=/data",
        readinessProbe=probe,
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
        resources={"limits": {"memory": "512Mi"}},
    )
    pod = {
        "securityContext": {"fsGroup": 65532} | ({"runAsUser": user} if user else {}),
        "containers": [runs],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    ports = [
        {"name": "http", "port": 10902, "nodePort": HTTP_PORT},
        {"name": "write", "port": 19291, "nodePort": WRITE_PORT},
    ]
    meta = {"name": "it", "labels": {"app": "it"}}
    service = {"type": "NodePort", "selector": {"app": "it"}, "ports": ports}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}}
        | {"spec": claim},
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
    ]


def query(cluster, expression):
    text = urllib.parse.urlencode({"query": expression})
    url = f"http://{cluster.node_address}:{HTTP_PORT}/api/v1/query?{text}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]["result"]


@pytest.fixture
def namespace(cluster):
    name = new_namespace(cluster.kubectl)
    yield f"--namespace={name}"
    cluster.kubectl("delete", "namespace", name)


@pytest.mark.parametrize("command", [None, ["/bin/thanos"]])
def test_it_says_its_version_and_ends(cluster, services_image, namespace, command):
    """By its entry point, and by the program that Thanos's manifests may name."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "it"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [container(services_image, "receive", "--version", command=command)],
        },
    }
    cluster.kubectl.apply(json.dumps(pod), namespace)
    ended = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("wait", "pod/it", ended, "--timeout=60s", namespace)
    assert cluster.kubectl("logs", "it", namespace).startswith("thanostack, version ")


@pytest.mark.parametrize("user", [None, 12345])
def test_it_stores_and_answers(cluster, services_image, namespace, user):
    """Standalone scrapes itself: `up` is 1 some seconds after it is ready.

    No user but root owns anything in the image, so that any user will do.
    """
    items = manifests(services_image, user)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    cluster.kubectl.apply(text, namespace)
    cluster.kubectl("wait", "pod/it", "--for=condition=Ready", "--timeout=90s", namespace)
    (found,) = until("the first sample of up", lambda: query(cluster, "up"))
    assert found["value"][1] == "1"
    ran_as = cluster.kubectl("exec", "it", namespace, "--", "id", "-u").strip()
    assert ran_as == str(user or 65534)
