"""A whole ingestor: written to over HTTP and gRPC, read over gRPC, stopped, started again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cramjam
import grpc
import httpx
import pytest

import thanostack
from thanostack.lib.pb import info_pb2, store_pb2
from thanostack.testing.write_storage import write_request


class Ingestor:
    """`thanostack receive` in a process of its own."""

    def __init__(self, folder, *flags):
        root = str(Path(thanostack.__file__).parent.parent)
        names = ("http-address", "grpc-address", "remote-write.address")
        addresses = [f"--{name}=127.0.0.1:0" for name in names]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "thanostack", "receive"),
                *("--label", 'replica="0"', f"--tsdb.path={folder}", *addresses, *flags),
            ],
            env={**os.environ, "PYTHONPATH": root},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = ""
        for line in self.process.stderr:
            self.log += line
            if "msg=serving" in line:
                break
        found = re.search(r"http=(\d+) grpc=(\d+) remote_write=(\d+)", self.log)
        if not found:
            self.end()
        assert found, self.log
        self.http, self.grpc, self.remote_write = found.groups()
        while httpx.get(f"http://127.0.0.1:{self.http}/-/ready").status_code != 200:
            time.sleep(0.05)

    def write(self, body, **headers):
        url = f"http://127.0.0.1:{self.remote_write}/api/v1/receive"
        block = bytes(cramjam.snappy.compress_raw(body))
        return httpx.post(url, content=block, headers=headers)

    def call(self, method, request, answer):
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc}") as channel:
            serialize = type(request).SerializeToString
            if method.endswith("Series"):
                stream = channel.unary_stream(method, serialize, answer.FromString)
                return list(stream(request, timeout=20))
            return channel.unary_unary(method, serialize, answer.FromString)(request, timeout=20)

    def series(self):
        request = store_pb2.SeriesRequest(min_time=0, max_time=1 << 60)
        request.matchers.add(type=0, name="__name__", value="up")
        frames = self.call("/thanos.Store/Series", request, store_pb2.SeriesResponse)
        found = [s for frame in frames for s in (frame.series, *frame.batch.series) if s.labels]
        return [{label.name: label.value for label in series.labels} for series in found]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.log += self.process.stderr.read()
        return self.process.wait(30)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


@pytest.fixture
def start():
    running = []

    def start(folder, *flags):
        running.append(Ingestor(folder, *flags))
        return running[-1]

    yield start
    for ingestor in running:
        ingestor.end()


def test_what_was_written_survives_a_stop(start, tmp_path):
    """Both ways in, one way out; a signal ends it with code 0; the next one has the data."""
    first = start(tmp_path)
    now = int(time.time() * 1000)
    assert first.write(write_request(({"__name__": "up"}, [(now, 1.0)]))).status_code == 200
    forwarded = store_pb2.WriteRequest()
    series = forwarded.timeseriesTenantData.add(tenant="b").timeseries.add()
    series.labels.add(name="__name__", value="up")
    series.samples.add(timestamp=now, value=2.0)
    first.call("/thanos.WriteableStore/RemoteWrite", forwarded, store_pb2.WriteResponse)
    expected = [
        {"__name__": "up", "replica": "0", "tenant_id": tenant}
        for tenant in ("b", "default-tenant")
    ]
    assert first.series() == expected
    metrics = httpx.get(f"http://127.0.0.1:{first.http}/metrics").text
    assert 'prometheus_tsdb_head_series{tenant="b"} 1.0' in metrics
    assert first.stop() == 0
    assert "msg=stopped code=0" in first.log
    second = start(tmp_path)
    assert second.series() == expected
    info = second.call("/thanos.info.Info/Info", info_pb2.InfoRequest(), info_pb2.InfoResponse)
    assert info.ComponentType == "receive"
    assert len(info.label_sets) == 2


def test_a_second_process_on_a_folder_ends(start, tmp_path):
    """It names the lock and who holds it, and the first goes on; when that has ended one starts."""
    first = start(tmp_path)
    holder = f"default-tenant/lock is locked by process {first.process.pid}: another process"
    with pytest.raises(AssertionError, match=holder):
        start(tmp_path)
    now = int(time.time() * 1000)
    assert first.write(write_request(({"__name__": "up"}, [(now, 1.0)]))).status_code == 200
    first.end()
    assert start(tmp_path).series()


def test_flags_of_the_write_port_and_the_store_have_their_effect(start, tmp_path):
    """Split label, tenant label, headers, sizes and limits, of a process with all of them set."""
    ingestor = start(
        tmp_path,
        "--receive.split-tenant-label-name=team",
        "--receive.tenant-label-name=owner",
        "--receive.tenant-header=X-Tenant",
        "--receive.default-tenant-id=nobody",
        "--receive.replica-header=X-Replica",
        "--receive.request-bytes-max=1KB",
        "--receive.inflight-bytes-max=3MB",
        "--store.limits.request-series=2",
        "--debug.name=one",
    )
    now = int(time.time() * 1000)
    sample = [(now, 1.0)]
    up = {"__name__": "up"}
    body = write_request((up | {"team": "a"}, sample), (up, sample))
    assert ingestor.write(body, **{"X-Tenant": "b", "THANOS-REPLICA": "x"}).status_code == 200
    owners = ("a", "b")
    assert ingestor.series() == [{**up, "owner": owner, "replica": "0"} for owner in owners]
    assert ingestor.write(body, **{"X-Replica": "x"}).status_code == 400
    assert ingestor.write(write_request((up | {"long": "l" * 1024}, sample))).status_code == 413
    assert ingestor.write(write_request((up, sample))).status_code == 200
    assert (tmp_path / "nobody" / "wal").is_dir()
    with pytest.raises(grpc.RpcError) as error:
        ingestor.series()
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    metrics = httpx.get(f"http://127.0.0.1:{ingestor.http}/metrics").text
    assert "thanostack_receive_inflight_bytes_max 3.145728e+06" in metrics
    assert " name=one " in ingestor.log
