"""The chart, rendered by the real helm: what its values do, and what they refuse.

That what it renders works is shown on a node, in `test_operator_life.py`; what its roles for users
grant, by an API server.
"""

import functools
import json
import re
import subprocess
from dataclasses import dataclass

import pytest
import yaml
from cluster.fixtures import new_namespace
from cluster.kubectl import KubectlError
from cluster.programs import HELM
from cluster.project import CHART, ROOT

from thanostack.testing.go_programs import build
from thanostack.testing.processes import peer_program, until

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
    assert "ClusterRoleBinding" not in kinds
    assert sorted(ns for kind, ns, _ in objects if kind == "Role") == ["", "a", "b"]
    args = container(objects)["args"]
    assert [a for a in args if a.startswith("--namespace=")] == ["--namespace=a", "--namespace=b"]
    hook = one(objects, "Job")["spec"]["template"]["spec"]["containers"][0]
    assert {"--namespace=a", "--namespace=b"} <= set(hook["args"])


def test_the_crd_may_be_somebody_elses():
    """Its roles for users are too: without rights in the whole cluster neither can be made."""
    assert "CustomResourceDefinition" not in [kind for kind, *_ in render(crd={"create": False})]
    objects = render(crd={"create": False}, watchNamespaces=["a"])
    assert not [kind for kind, *_ in objects if kind.startswith(("Cluster", "CustomResource"))]


def test_roles_of_users_can_be_left_out():
    roles = [kind for kind, *_ in render(watchNamespaces=["a"], rbac={"aggregate": False})]
    assert "ClusterRole" not in roles


def test_its_image_can_be_pinned():
    """Of the operator and of the hook; stacks without a version still get the tag as theirs."""
    digest = f"sha256:{64 * 'a'}"
    objects = render(image={"digest": digest})
    hook = one(objects, "Job")["spec"]["template"]["spec"]["containers"][0]
    tagged = container(render())["image"]
    for pinned in (container(objects), hook):
        assert pinned["image"] == f"{tagged}@{digest}"
    assert f"--default-version={tagged.partition(':')[2]}" in container(objects)["args"]


@pytest.mark.parametrize(
    ("image", "services"),
    [
        ({}, "thanostack/thanostack"),
        ({"repository": "registry:5000/a/thanostack-operator"}, "registry:5000/a/thanostack"),
        ({"repository": "a/b-operator", "services": "c/d"}, "c/d"),
    ],
    ids=["default", "registry", "named"],
)
def test_stacks_get_an_image_beside_the_operators(image, services):
    flags = container(render(image=image))["args"]
    assert f"--default-repository={services}" in flags


def test_it_can_be_kept_from_secrets():
    def resources(objects):
        role = objects["ClusterRole", "", f"{NAMESPACE}-it-thanostack-operator"]
        return {r for rule in role["rules"] for r in rule["resources"]}

    assert resources(render()) - resources(render(rbac={"secrets": False})) == {"secrets"}


@pytest.fixture(scope="module")
def users(api_server_with_controllers):
    """A namespace with a stack `x`, and the kubectl of a user with each of Kubernetes's roles."""
    admin = api_server_with_controllers.kubectl()
    wanted = render()
    for (kind, _, name), each in wanted.items():
        if kind == "CustomResourceDefinition" or name.endswith(("-view", "-edit")):
            admin.apply(json.dumps(each))
    admin.await_crds()
    here = f"--namespace={new_namespace(admin)}"
    stack = {
        "apiVersion": "thanostack.io/v1alpha1",
        "kind": "ThanosStack",
        "metadata": {"name": "x"},
        "spec": {"paused": True},
    }
    admin.apply(json.dumps(stack), here)
    for role in ("view", "edit", "admin"):
        admin(
            "create", "rolebinding", role, f"--clusterrole={role}", f"--user=who-may-{role}", here
        )

    def may(role, *arguments):
        return api_server_with_controllers.kubectl(f"who-may-{role}")(*arguments, here)

    def can(role, verb):
        return api_server_with_controllers.kubectl(f"who-may-{role}").can(verb, "tstk", here)

    # A controller adds them; `edit` goes into `admin` a moment after it has its own.
    for role, verb in (("view", "get"), ("edit", "delete"), ("admin", "delete")):
        until(f"stacks in the role {role}", functools.partial(can, role, verb), 30)
    return may


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_who_may_look_at_a_namespace_may_look_at_its_stacks(users, role):
    assert '"paused":true' in users(role, "get", "tstk", "x", "--output=jsonpath={.spec}")
    users(role, "get", "tstk", "x", "--subresource=status")


PATCH = ("patch", "tstk", "x", "--type=merge")


def test_who_may_only_look_changes_nothing(users):
    for does in ((*PATCH, '--patch={"spec":{"paused":false}}'), ("delete", "tstk", "x")):
        with pytest.raises(KubectlError, match='User "who-may-view" cannot'):
            users("view", *does)


@pytest.mark.parametrize("role", ["edit", "admin"])
def test_who_may_edit_a_namespace_may_edit_its_stacks_but_not_their_status(users, role):
    users(role, *PATCH, f'--patch={{"spec":{{"clusterName":"{role}"}}}}')
    with pytest.raises(KubectlError, match=f'User "who-may-{role}" cannot patch resource'):
        users(role, *PATCH, "--subresource=status", '--patch={"status":{"version":"1"}}')


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
        ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
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


@dataclass
class Case:
    """What is scraped for two hours, and which alerts of the operator's then fire.

    Args:
        series: values of series, once a minute.
        fires: names of alerts with the labels that tell which stack or tenant.
    """

    series: dict[str, str]
    fires: list[tuple[str, dict[str, str]]]


UP = {'up{job="thanostack-operator"}': "1x120", "thanostack_operator_ready": "1x120"}
OF_X = '{namespace="shop",stack="x",condition="%s"}'
READY, STALLED = (f"thanostack_operator_stack_condition{OF_X % of}" for of in ("Ready", "Stalled"))
X = {"namespace": "shop", "stack": "x"}
CASES = {
    "all is well": Case(UP | {READY: "1x120", STALLED: "0x120"}, []),
    "no operator": Case({}, [("ThanostackOperatorIsDown", {})]),
    "it waits": Case(
        {'up{job="thanostack-operator"}': "1x120",
         'thanostack_operator_ready{job="j",pod="a"}': "0x120",
         'thanostack_operator_ready{job="j",pod="b"}': "0x120"},
        [("ThanostackOperatorNotReady", {"job": "j"})],
    ),
    "one of two waits": Case(
        {'up{job="thanostack-operator"}': "1x120",
         'thanostack_operator_ready{job="j",pod="a"}': "0x120",
         'thanostack_operator_ready{job="j",pod="b"}': "1x120"},
        [],
    ),
    "stalled": Case(
        UP | {READY: "0x120", STALLED: "1x120"},
        [("ThanostackStackNotReady", X), ("ThanostackStackStalled", X)],
    ),
    "not ready": Case(
        UP | {READY: "0x120", STALLED: "0x120"}, [("ThanostackStackNotReady", X)]
    ),
    "ready in between": Case(UP | {READY: "0x100 1x5 0x15", STALLED: "0x120"}, []),
    "a step waits": Case(
        UP | {'thanostack_operator_waiting_steps{namespace="shop",stack="x"}': "1x120"},
        [("ThanostackOperatorStepWaits", X)],
    ),
    "a tenant is locked": Case(
        UP | {'thanostack_receive_quarantined_tenants{job="thanos-receive",instance="i"}': "1x120"},
        [("ThanosReceiveTenantsQuarantined", {"job": "thanos-receive", "instance": "i"})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_alerts_fire_when_they_should(case, tmp_path):
    found = rules()
    own = [rule for group in found["groups"] for rule in group["rules"]
           if rule["alert"].startswith(("Thanostack", "ThanosReceiveTenantsQ"))]  # fmt: skip
    names = sorted(rule["alert"] for rule in own)
    severities = {rule["alert"]: rule["labels"] for rule in own}
    fires = dict(case.fires)
    test = {
        "rule_files": ["rules.yaml"],
        "tests": [{
            "interval": "1m",
            "input_series": [{"series": s, "values": v} for s, v in case.series.items()],
            "alert_rule_test": [
                {"eval_time": "119m", "alertname": name,
                 "exp_alerts": [{"exp_labels": severities[name] | fires[name]}]
                 if name in fires else []}
                for name in names
            ],
        }],
    }  # fmt: skip
    assert fires.keys() <= severities.keys()
    for rule in own:  # promtool compares annotations too
        del rule["annotations"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": own}]}))
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [str(peer_program("promtool")), "test", "rules", str(tmp_path / "test.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operators_metrics_keep_the_stacks_namespace():
    """A scrape would put the operator's own in its place, and alerts would name that."""
    monitor = one(render(serviceMonitor={"enabled": True}), "ServiceMonitor")["spec"]
    assert monitor["endpoints"][0]["honorLabels"]
    assert monitor["jobLabel"] == "app.kubernetes.io/name"


def test_alerts_match_the_jobs_that_are_asked_for():
    text = yaml.safe_dump(rules(jobPrefix="a/", jobSuffix="-b"), width=10_000)
    assert 'job=~"a/thanos-receive-b"' in text
    assert 'job=~"a/thanos-query-b"' in text
    assert 'job=~"a/thanostack-operator-b"' in text
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
