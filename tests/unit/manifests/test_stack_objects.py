"""What objects a stack is made of, and what of its spec each follows."""

from dataclasses import replace

import pytest

from thanostack_operator.manifests.checks import problems
from thanostack_operator.manifests.hashrings import Member
from thanostack_operator.manifests.names import STACK_LABEL, owner_reference
from thanostack_operator.manifests.services import missing_copies
from thanostack_operator.manifests.stack_objects import desired_objects
from thanostack_operator.testing.stacks import (
    VERSION,
    complete_rings,
    container_of,
    named,
    objects_at_rest,
    stack_of,
)


def kinds(objects):
    return [(o["kind"], o["metadata"]["name"]) for o in objects]


def spec_of(objects, kind, name):
    return named(objects, kind, name)["spec"]["template"]["spec"]


def test_objects_come_in_the_order_of_a_rollout():
    """Rings as in the spec, then routers, then queriers."""
    stack = stack_of(receive={"rings": [{"name": "b", "tenants": ["x"]}, {"name": "a"}]})
    workloads = [it for it in kinds(objects_at_rest(stack)) if it[0] != "Service"]
    assert workloads == [
        ("PodDisruptionBudget", "x-ingestor-b"),
        ("StatefulSet", "x-ingestor-b"),
        ("PodDisruptionBudget", "x-ingestor-a"),
        ("StatefulSet", "x-ingestor-a"),
        ("ConfigMap", "x-hashrings"),
        ("PodDisruptionBudget", "x-receive"),
        ("Deployment", "x-receive"),
        ("PodDisruptionBudget", "x-query"),
        ("Deployment", "x-query"),
    ]


@pytest.mark.parametrize("rings", [None, {}, {"default": []}])
def test_there_are_no_routers_before_a_ring(rings):
    """They would be up and refuse every write; their Service is there."""
    found = kinds(desired_objects(stack_of(), VERSION, rings, {}))
    assert ("Deployment", "x-receive") not in found
    assert ("ConfigMap", "x-hashrings") not in found
    assert {("Service", "x-receive"), ("Deployment", "x-query")} <= set(found)


def test_replicas_of_a_ring_are_those_of_the_plan():
    """An ingestor that leaves is there until it has left."""
    stack = stack_of(receive={"rings": [{"name": "a", "tenants": ["x"]}, {"name": "b"}]})
    found = desired_objects(stack, VERSION, None, {"a": 5})
    assert named(found, "StatefulSet", "x-ingestor-a")["spec"]["replicas"] == 5
    assert named(found, "StatefulSet", "x-ingestor-b")["spec"]["replicas"] == 3


EVERYTHING = stack_of(
    receive={
        "routers": {"limits": {"write": {}}, "relabelConfigs": [{"action": "drop"}]},
        "rings": [{"name": "default", "overrides": {"default": {}}}],
    },
    monitoring={"serviceMonitor": {"enabled": True}},
)


@pytest.mark.parametrize("it", objects_at_rest(EVERYTHING), ids=lambda it: it["kind"])
def test_every_object_is_labelled_and_owned(it):
    metadata = it["metadata"]
    assert metadata["namespace"] == "ns"
    assert metadata["labels"][STACK_LABEL] == "x"
    assert metadata["ownerReferences"] == [owner_reference(EVERYTHING)]


def test_selectors_select_their_pods_and_no_others():
    """Two rings, and two stacks in one namespace, stand side by side."""
    stack = stack_of(receive={"rings": [{"name": "a", "tenants": ["x"]}, {"name": "a-b"}]})
    workloads = [o for o in objects_at_rest(stack) if "template" in o.get("spec", {})]
    assert len(workloads) == 4
    for one in workloads:
        selector = one["spec"]["selector"]["matchLabels"].items()
        selected = [
            other["metadata"]["name"]
            for other in workloads
            if selector <= other["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert selected == [one["metadata"]["name"]]


def test_the_longest_names_fit():
    """Pods of a StatefulSet bear its name and eleven characters in a label of at most 63."""
    name, ring = "a" * 30, "b" * 12
    stack = replace(stack_of(receive={"rings": [{"name": ring, "replicas": 100}]}), name=name)
    for it in objects_at_rest(stack):
        assert len(it["metadata"]["name"]) <= 52
        assert all(len(value) <= 63 for value in it["metadata"]["labels"].values())


@pytest.mark.parametrize("copies", [1, 2, 3, 4, 5])
def test_a_budget_leaves_every_write_its_quorum(copies):
    """With one copy there is none: it would only keep nodes from being drained."""
    stack = stack_of(
        receive={
            "replicationFactor": copies,
            "rings": [{"name": "default", "replicas": 6}],
            "routers": {"replicas": 1},
        }
    )
    budgets = {
        o["metadata"]["name"]: o["spec"]["maxUnavailable"]
        for o in objects_at_rest(stack)
        if o["kind"] == "PodDisruptionBudget"
    }
    expected = missing_copies(copies)
    assert budgets == ({"x-ingestor-default": expected} if expected else {}) | {"x-query": 1}


def test_a_changed_limit_restarts_nothing_and_a_changed_rule_does():
    """Programs follow the files of limits and overrides; relabel rules are read at the start."""

    def templates(**routers):
        overrides = {"default": {"head_series_limit": routers.pop("series", 1)}}
        rings = [{"name": "default", "overrides": overrides}]
        found = objects_at_rest(stack_of(receive={"routers": routers, "rings": rings}))
        return [o["spec"]["template"] for o in found if "template" in o.get("spec", {})]

    def limits(n):
        return {"write": {"global": {"max_concurrency": n}}}

    rule, other = [{"action": "drop", "regex": "a"}], [{"action": "drop", "regex": "b"}]
    assert templates(limits=limits(1)) == templates(limits=limits(2), series=2)
    assert templates(relabelConfigs=rule) != templates(relabelConfigs=other)


def test_service_monitors_need_both_the_wish_and_the_kind():
    def monitors(stack, **known):
        found = desired_objects(stack, VERSION, complete_rings(stack), {}, **known)
        return [o["metadata"]["name"] for o in found if o["kind"] == "ServiceMonitor"]

    assert monitors(EVERYTHING) == ["x-ingestor-default", "x-receive", "x-query"]
    assert monitors(EVERYTHING, knows_service_monitors=False) == []
    assert monitors(stack_of()) == []


@pytest.mark.parametrize("name", ["x-ingestor-default", "x-receive", "x-query"])
def test_jobs_are_named_as_the_stock_alerts_want(name):
    """They select `.*thanos-receive.*` and `.*thanos-query.*`."""
    service = named(objects_at_rest(EVERYTHING), "Service", name)
    job = service["metadata"]["labels"]["app.kubernetes.io/name"]
    assert ("thanos-query" if name == "x-query" else "thanos-receive") in job
    assert "http" in [port["name"] for port in service["spec"]["ports"]]


def test_queriers_find_rings_by_a_port_that_services_have():
    service = named(objects_at_rest(EVERYTHING), "Service", "x-ingestor-default")
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["clusterIP"] == "None"
    assert "grpc" in [port["name"] for port in service["spec"]["ports"]]
    container = container_of(objects_at_rest(EVERYTHING), "Deployment", "x-query")
    assert "--endpoint=dnssrv+_grpc._tcp.x-ingestor-default.ns.svc" in container["args"]


def test_volumes_outlive_everything():
    found = named(objects_at_rest(stack_of()), "StatefulSet", "x-ingestor-default")["spec"]
    policy = found["persistentVolumeClaimRetentionPolicy"]
    assert policy == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_settings_of_pods_arrive():
    settings = {
        "labels": {"team": "a"},
        "annotations": {"a/b": "c"},
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [],
        "securityContext": {"runAsUser": None, "fsGroup": 1},
        "serviceAccountName": "sa",
        "terminationGracePeriodSeconds": 5,
        "env": [{"name": "A", "value": "1"}],
        "secrets": [{"name": "s", "mountPath": "/s"}],
        "configMaps": [{"name": "c", "mountPath": "/c"}],
        "extraVolumes": [{"name": "v", "csi": {"driver": "d", "volumeAttributes": {"a_b": "1"}}}],
        "extraVolumeMounts": [
            {"name": "v", "mountPath": "/v", "readOnly": True, "subPath": "w"},
            {"name": "v", "mountPath": "/w"},
        ],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["10.0.0.10"], "options": [{"name": "edns0"}]},
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["h"]}],
    }
    template = named(objects_at_rest(stack_of(query=settings)), "Deployment", "x-query")["spec"][
        "template"
    ]
    spec = template["spec"]
    assert template["metadata"]["labels"]["team"] == "a"
    assert template["metadata"]["annotations"] == {"a/b": "c"}
    assert spec["affinity"] == {"nodeAffinity": {}}
    assert "topologySpreadConstraints" not in spec
    assert "runAsUser" not in spec["securityContext"]
    assert spec["securityContext"]["fsGroup"] == 1
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["serviceAccountName"] == "sa"
    assert spec["terminationGracePeriodSeconds"] == 5
    (container,) = spec["containers"]
    assert {"name": "A", "value": "1"} in container["env"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[mounted["/s"]]["secret"] == {"secretName": "s"}
    assert volumes[mounted["/c"]]["configMap"] == {"name": "c"}
    assert [volumes["v"]] == settings["extraVolumes"]
    assert container["volumeMounts"][-2:] == settings["extraVolumeMounts"]
    assert spec["dnsPolicy"] == "None"
    assert spec["dnsConfig"] == settings["dnsConfig"]
    assert spec["hostAliases"] == settings["hostAliases"]


def test_no_volume_of_the_operators_may_be_called_so_by_a_stack():
    files = {
        "secrets": [{"name": "s", "mountPath": "/s"}],
        "configMaps": [{"name": "c", "mountPath": "/c"}],
    }
    rings = [{"name": "default", "overrides": {"default": {}}}]
    routers = {"limits": {"write": {}}, "relabelConfigs": [{"action": "drop"}]}
    stack = stack_of(podDefaults=files, receive={"routers": routers, "rings": rings})
    workloads = [o["spec"] for o in objects_at_rest(stack) if "template" in o.get("spec", {})]
    names = {v["name"] for spec in workloads for v in spec["template"]["spec"]["volumes"]}
    names |= {c["metadata"]["name"] for s in workloads for c in s.get("volumeClaimTemplates", ())}
    assert len(names) == 8
    for name in names:
        (problem,) = problems(stack_of(query={"extraVolumes": [{"name": name, "emptyDir": {}}]}))
        assert f"{name} is a volume of the operator's" in problem


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("StatefulSet", "x-ingestor-default"),
        ("Deployment", "x-receive"),
        ("Deployment", "x-query"),
    ],
)
def test_containers_can_do_nothing_they_need_not(kind, name):
    """Every mounted volume exists, and only the data and /tmp can be written."""
    found = objects_at_rest(EVERYTHING)
    spec, container = spec_of(found, kind, name), container_of(found, kind, name)
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    writable = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
    volumes = {volume["name"] for volume in spec["volumes"]}
    if kind == "StatefulSet":
        assert writable == ["/tmp", "/var/thanostack"]
        volumes.add("data")
    else:
        assert writable == ["/tmp"]
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_the_image_follows_the_operator_unless_a_version_is_asked_for():
    def image(**spec):
        return container_of(objects_at_rest(stack_of(**spec)), "Deployment", "x-query")["image"]

    assert image() == f"thanostack/thanostack:{VERSION}"
    assert image(version="9", image={"repository": "a/b"}) == "a/b:9"
    digest = f"sha256:{64 * 'a'}"
    assert image(version="9", image={"digest": digest}) == f"thanostack/thanostack:9@{digest}"


def test_zones_of_members_are_those_of_the_plan():
    found = desired_objects(stack_of(), VERSION, {"default": [Member(0, "here")]}, {})
    assert '"az": "here"' in named(found, "ConfigMap", "x-hashrings")["data"]["hashrings.json"]
