"""Every field of the spec changes something: none is taken and then ignored."""

import copy

import pytest

from thanostack_operator.api.schema import structural
from thanostack_operator.api.stack import ThanosStackSpec
from thanostack_operator.testing.stacks import objects_at_rest, stack_of

# What the plan reads, not the objects.
OF_THE_PLAN = {
    "paused",
    "deletionPolicy",
    "receive.rings[].zones",
    "receive.rings[].scaleDown.drainTimeout",
}


def pod(n):
    """Return settings of pods of which none is a default or another component's."""
    return {
        "resources": {"requests": {"cpu": n}, "limits": {"memory": f"{n}Gi"}},
        "labels": {"n": f"{n}"},
        "annotations": {"n": f"{n}"},
        "nodeSelector": {"n": f"{n}"},
        "tolerations": [{"key": f"{n}"}],
        "affinity": {"podAffinity": {"n": n}},
        "topologySpreadConstraints": [{"maxSkew": n}],
        "priorityClassName": f"n{n}",
        "serviceAccountName": f"n{n}",
        "securityContext": {"fsGroup": n},
        "logLevel": "debug" if n == 1 else "warn",
        "logFormat": "json" if n == 1 else "logfmt",
        "env": [{"name": f"N{n}", "value": f"{n}"}],
        "extraArgs": [f"--debug.name=n{n}"],
        "secrets": [{"name": f"s{n}", "mountPath": f"/s{n}"}],
        "configMaps": [{"name": f"c{n}", "mountPath": f"/c{n}"}],
        "extraVolumes": [{"name": f"n{n}", "emptyDir": {}}],
        "extraVolumeMounts": [
            {"name": f"n{n}", "mountPath": f"/n{n}", "subPath": "n", "readOnly": True}
        ],
        "dnsPolicy": "ClusterFirst" if n == 1 else "None",
        "dnsConfig": {
            "nameservers": [f"10.0.0.{n}"],
            "searches": [f"n{n}"],
            "options": [{"name": "ndots", "value": f"{n}"}],
        },
        "hostAliases": [{"ip": f"10.0.0.{n}", "hostnames": ["n"]}],
        "terminationGracePeriodSeconds": n,
    }


def service(n):
    return {"type": "NodePort", "annotations": {"n": f"{n}"}}


REQUEST = {"size_bytes_limit": 1, "series_limit": 2, "samples_limit": 3}
OVERRIDE = {
    "request": REQUEST,
    "head_series_limit": 1,
    "label_names_limit": 2,
    "label_name_length_limit": 3,
    "label_value_length_limit": 4,
    "retention": "1h",
}
RELABEL = {
    "source_labels": ["a"],
    "separator": "-",
    "target_label": "b",
    "regex": "c",
    "modulus": 2,
    "replacement": "d",
    "action": "hashmod",
}
DIGEST = "sha256:" + 64 * "a"
EVERYTHING = {
    "version": "9",
    "image": {"repository": "a/b", "digest": DIGEST, "pullPolicy": "Always", "pullSecrets": ["s"]},
    "paused": True,
    "clusterName": "c",
    "externalLabels": {"a": "b"},
    "deletionPolicy": "Keep",
    "podDefaults": pod(1),
    "receive": {
        "replicationFactor": 5,
        "tenancy": {
            "header": "X",
            "defaultTenant": "d",
            "labelName": "t",
            "certificateField": "commonName",
            "splitLabelName": "s",
        },
        "routers": {
            **pod(3),
            "replicas": 3,
            "sloppyQuorum": True,
            "grpcCompression": "none",
            "limits": {
                "write": {
                    "global": {
                        "max_concurrency": 1,
                        "meta_monitoring_url": "http://a",
                        "meta_monitoring_limit_query": "q",
                        "meta_monitoring_http_client": {"bearer_token": "b"},
                    },
                    "default": {"request": REQUEST, "head_series_limit": 1},
                    "tenants": {"x": {"request": REQUEST, "head_series_limit": 1}},
                }
            },
            "relabelConfigs": [RELABEL],
            "service": service(3),
        },
        "rings": [
            {
                **pod(5),
                "name": "a",
                "tenants": ["x"],
                "tenantMatcherType": "glob",
                "replicas": 6,
                "zones": "Off",
                "minReadySeconds": 90,
                "storage": {"size": "1Gi", "className": "c"},
                "retention": "1d",
                "externalLabels": {"r": "a"},
                "overrides": {"default": OVERRIDE, "tenants": {"x": OVERRIDE}},
                "scaleDown": {"drainTimeout": "1m"},
            },
            {"name": "b"},
        ],
    },
    "query": {
        **pod(7),
        "replicas": 3,
        "replicaLabels": ["replica", "b"],
        "enforceTenancy": False,
        "timeout": "1m",
        "maxConcurrent": 1,
        "lookbackDelta": "1m",
        "partialResponse": False,
        "endpoints": [{"address": "a:1"}],
        "service": service(7),
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"a": "b"}, "interval": "1m"},
    },
}


def fields(schema, path=()):
    """Yield the path of every optional field that has no fields of its own."""
    for name, inner in schema.get("properties", {}).items():
        of_items = inner.get("items", {})
        of_values = inner.get("additionalProperties", {})
        here = (*path, name)
        if "properties" in inner:
            yield from fields(inner, here)
        elif "properties" in of_items:
            yield from fields(of_items, (*here, 0))
        elif "properties" in of_values:
            yield from fields(of_values, (*here, "x"))
        elif name not in schema.get("required", ()):
            yield here


def shown(path):
    return ".".join("[]" if step == 0 else step for step in path).replace(".[]", "[]")


FIELDS = [path for path in fields(structural(ThanosStackSpec)) if shown(path) not in OF_THE_PLAN]
BEFORE = objects_at_rest(stack_of(**EVERYTHING))


@pytest.mark.parametrize("path", FIELDS, ids=shown)
def test_a_field_that_is_left_out_is_missed(path):
    """All are set above, none to its default, so that leaving one out changes an object."""
    spec = copy.deepcopy(EVERYTHING)
    parent = spec
    for step in path[:-1]:
        parent = parent[step]
    del parent[path[-1]]
    assert objects_at_rest(stack_of(**spec)) != BEFORE


def test_what_the_plan_reads_exists():
    assert {shown(path) for path in fields(structural(ThanosStackSpec))} >= OF_THE_PLAN
