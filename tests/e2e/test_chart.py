"""The chart, rendered by the real helm: what its values do, and what they refuse.

That what it renders works is shown on a node, in `test_operator_life.py`.
"""

import json
import re
import subprocess

import pytest
import yaml
from cluster.programs import HELM
from cluster.project import CHART, ROOT

from thanostack.testing.go_programs import build
from thanostack.testing.processes import peer_program

NAMESPACE = "monitoring"


def helm(*arguments):
    """Return what helm does with the chart."""
    command = [str(build(HELM)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def render(**values):
    """Return the chart's objects by (kind, namespace, name)."""
    given = [f"--set-json={name.replace('__', '.')}={json.dumps(v)}" for name, v in values.items()]
    done = helm("template", "it", str(CHART), f"--namespace={NAMESPACE}", *given)
    assert done.returncode == 0, done.stderr
    found = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each
        for each in found
    }


def one(objects, kind):
    """Return the only object of a kind."""
    (found,) = [each for (of, *_), each in objects.items() if of == kind]
    return found


def container(objects):
    return one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def test_it_passes_helms_own_checks():
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


def test_by_default_the_whole_cluster_is_watched():
    objects = render()
    kinds = {kind for kind, *_ in objects}
    assert {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"} <= kinds
    assert not {"PrometheusRule", "ServiceMonitor"} & kinds
    assert not [flag for flag in container(objects)["args"] if flag.startswith("--namespace=")]


def test_with_namespaces_it_has_rights_in_these_alone():
    objects = render(watchNamespaces=["a", "b"])
    kinds = [kind for kind, *_ in objects]
    assert "ClusterRole" not in kinds
    assert sorted(ns for kind, ns, _ in objects if kind == "Role") == ["", "a", "b"]
    assert container(objects)["args"][5:7] == ["--namespace=a", "--namespace=b"]
    hook = one(objects, "Job")["spec"]["template"]["spec"]["containers"][0]
    assert {"--namespace=a", "--namespace=b"} <= set(hook["args"])


def test_the_crd_may_be_somebody_elses():
    assert "CustomResourceDefinition" not in [kind for kind, *_ in render(crd={"create": False})]


def test_it_can_be_kept_from_secrets():
    def resources(objects):
        return {r for rule in one(objects, "ClusterRole")["rules"] for r in rule["resources"]}

    assert resources(render()) - resources(render(rbac={"secrets": False})) == {"secrets"}


def test_pods_run_as_nobody_on_a_root_that_cannot_be_written():
    objects = render()
    for kind in ("Deployment", "Job"):
        pod = one(objects, kind)["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (only,) = pod["containers"]
        assert only["securityContext"]["readOnlyRootFilesystem"]
        assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"logLevel": "loud"}, "/logLevel"),
        ({"replicas": -1}, "/replicas"),
        ({"image": {"tg": "1"}}, "tg"),
        ({"watchNamespaces": ["A"]}, "/watchNamespaces/0"),
        ({"serviceMonitor": {"interval": "soon"}}, "/serviceMonitor/interval"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name must name"),
    ],
)
def test_wrong_values_are_refused(values, message):
    given = [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
    done = helm("template", "it", str(CHART), *given)
    assert done.returncode != 0
    assert message in done.stderr


def rules(**values):
    return one(render(prometheusRule={"enabled": True, **values}), "PrometheusRule")["spec"]


def test_alerts_are_good_rules(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rules()))
    done = subprocess.run(
        [str(peer_program("promtool")), "check", "rules", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_match_the_jobs_that_are_asked_for():
    text = yaml.safe_dump(rules(jobPrefix="a/", jobSuffix="-b"), width=10_000)
    assert 'job=~"a/thanos-receive-b"' in text
    assert 'job=~"a/thanos-query-b"' in text
    assert "@" not in text


def test_alerts_ask_for_metrics_that_there_are():
    """Each name stands in the source, whole or as the prefix that a gate or a reader adds to."""
    expressions = " ".join(rule["expr"] for group in rules()["groups"] for rule in group["rules"])
    names = set(re.findall(r"\b([a-z][a-z_]+)(?=[{\[])", expressions)) - {"up"}
    source = " ".join(
        path.read_text(encoding="utf-8")
        for folder in ("services/thanostack", "operator/thanostack_operator")
        for path in (ROOT / folder).rglob("*.py")
    )
    written = set(re.findall(r"[a-z]+(?:_[a-z]+)+_?", source))
    prefixes = tuple(name for name in written if name.endswith("_"))
    bare = {re.sub(r"_(bucket|count|total)$", "", name) for name in names} | names
    known = {n for n in bare if n in written or n.startswith(prefixes)}
    missing = {n for n in names if n not in known and re.sub(r"_[a-z]+$", "", n) not in known}
    assert len(names) > 20
    assert missing == set()
