"""Dashboards and alerts made for Thanos find what they ask for: the metrics of each role.

ingestor, router, query:  ours, /metrics  ==  the real one's, /metrics  -  LEFT_OUT

Families are compared by name, type and label names. What is left out is listed with its reason, and
in docs/metrics.md: a name that only the real one has, or that is listed and there, fails.
"""

import contextlib
import itertools
import json
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from thanostack.testing.bodies import request_body
from thanostack.testing.processes import (
    our_query,
    our_receive,
    thanos_query,
    thanos_receive,
    until,
)

pytestmark = pytest.mark.interop

# Go's runtime is not here.
RUNTIME = "go_"
# Says how a program was built: with Go, or with Python.
BUILD = {"thanos_build_info"}
# The client library of Python does not measure these.
PROCESS = {
    "process_network_receive_bytes",
    "process_network_transmit_bytes",
    "process_virtual_memory_max_bytes",
}
# A receiver reads its tenants itself; there are no streams that could be empty.
NO_PROXY = {"thanos_proxy_store_empty_stream_responses"}
# Stores are not chosen by relabeling their labels.
NO_STORE_SELECTOR = {"thanos_store_selects_dropped"}
LEFT_OUT = {
    "ingestor": PROCESS
    | NO_PROXY
    | NO_STORE_SELECTOR
    # Exemplars are not stored.
    | {
        "prometheus_tsdb_exemplar_exemplars_appended",
        "prometheus_tsdb_exemplar_exemplars_in_storage",
        "prometheus_tsdb_exemplar_last_exemplars_timestamp_seconds",
        "prometheus_tsdb_exemplar_max_exemplars",
        "prometheus_tsdb_exemplar_out_of_order_exemplars",
        "prometheus_tsdb_exemplar_series_with_exemplars_in_storage",
    }
    # Samples out of order are refused; there is no window, and how late one is is not kept.
    | {
        "prometheus_tsdb_head_out_of_order_samples_appended",
        "prometheus_tsdb_sample_ooo_delta",
        "prometheus_tsdb_too_old_samples",
    }
    # Writes take turns: no transactions, no isolation of one from the other.
    | {
        "prometheus_tsdb_head_active_appenders",
        "prometheus_tsdb_isolation_high_watermark",
        "prometheus_tsdb_isolation_low_watermark",
    }
    # Blocks are cut and never merged, and nothing is deleted from them. Cuts cannot be turned off.
    | {
        "prometheus_tsdb_compactions_skipped",
        "prometheus_tsdb_tombstone_cleanup_seconds",
        "prometheus_tsdb_vertical_compactions",
    }
    # The head is not written to a snapshot.
    | {"prometheus_tsdb_snapshot_replay_error"}
    # Inner matters of upstream's head and log that have no like.
    | {
        "prometheus_tsdb_head_series_not_found",
        "prometheus_tsdb_head_stale_series",
        "prometheus_tsdb_wal_record_bytes_saved",
        "prometheus_tsdb_wal_record_part_writes",
        "prometheus_tsdb_wal_record_parts_bytes_written",
    },
    "router": PROCESS | NO_PROXY,
    "query": PROCESS
    | NO_STORE_SELECTOR
    # There is one engine, and it is in prometheus_engine_*; it logs no queries.
    | {
        "prometheus_engine_query_log_enabled",
        "prometheus_engine_query_log_failures",
        "thanos_engine_queries",
    }
    # All selectors of a query are fetched in one round.
    | {"thanos_query_concurrent_selects_gate_selects_duration_seconds"}
    # An address that is named twice is one endpoint; groups are looked up like endpoints.
    | {
        "thanos_query_duplicated_endpoint_addresses",
        "thanos_query_endpoint_groups_dns_failures",
        "thanos_query_endpoint_groups_dns_lookups",
    },
}


def families(server):
    """Return the metric families of a server by name, the runtime's left out."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        found = text_string_to_metric_families(answer.read().decode())
        return {family.name: family for family in found if not family.name.startswith(RUNTIME)}


def write(server, tenant, start_ms, count):
    """Write a sample, again while the ring is not up, each time a younger one."""
    times = itertools.count(start_ms)

    def sent():
        series = (({"__name__": "named", "n": str(n)}, [(next(times), 1.0)]) for n in range(count))
        with contextlib.suppress(RuntimeError):
            server.send([request_body(series)], tenant=tenant)
            return True
        return False

    until(f"{server.name} takes a write", sent)


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """Return the families of each role, (ours, real), once all were written to and asked."""
    folder = tmp_path_factory.mktemp("names")
    now_ms = int(time.time()) * 1000
    programs = {"ours": (our_receive, our_query), "real": (thanos_receive, thanos_query)}
    found = {role: [] for role in LEFT_OUT}
    with contextlib.ExitStack() as stack:
        for name, (receive, query) in programs.items():
            ingestor = stack.enter_context(receive(folder / f"{name}-ingestor"))
            ingestor.wait_ready()
            ring = json.dumps([{"endpoints": [f"127.0.0.1:{ingestor.grpc_port}"]}])
            flag = f"--receive.hashrings={ring}"
            router = stack.enter_context(receive(folder / f"{name}-router", flag))
            querier = stack.enter_context(query(folder, ingestor.grpc_port))
            for server in (router, querier):
                server.wait_ready()
            write(router, "names", now_ms, 5)
            named = {"query": "named", "time": now_ms // 1000 + 1}
            until("the series is found", lambda q=querier, a=named: q.api("query", **a)["result"])
            for role, server in (("ingestor", ingestor), ("router", router), ("query", querier)):
                found[role].append(families(server))
    return found


@pytest.mark.parametrize("role", LEFT_OUT)
def test_names(exposed, role):
    """Each family of the real one is there, of the same type, or left out for a reason."""
    ours, real = exposed[role]
    assert len(real) > 30
    assert sorted(LEFT_OUT[role]) == sorted(real.keys() - ours.keys())
    shared = real.keys() & ours.keys()
    types = [{name: side[name].type for name in shared} for side in (real, ours)]
    assert types[0] == types[1]


@pytest.mark.parametrize("role", LEFT_OUT)
def test_labels(exposed, role):
    """Families that both show values of have the same label names."""
    ours, real = exposed[role]

    def labels(family):
        found = {frozenset(sample.labels) for sample in family.samples}
        return {names - {"le", "quantile"} for names in found}

    differ = {
        name: (labels(real[name]), labels(ours[name]))
        for name in real.keys() & ours.keys() - BUILD
        if real[name].samples and ours[name].samples and labels(real[name]) != labels(ours[name])
    }
    assert differ == {}
