"""A real Thanos, with default flags, on both sides of our one gRPC port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import cramjam
import pytest
import structlog

from thanostack.lib.foundation.errors import ConflictingSample
from thanostack.lib.pb import info_pb2, prometheus_remote_pb2, store_pb2
from thanostack.runtime.grpc_call import (
    CallContext,
    FinishedCall,
    Observer,
    ServerStream,
    Unary,
)
from thanostack.runtime.grpc_server import GrpcServer
from thanostack.testing.ports import free_port
from thanostack.testing.processes import peer_program

pytestmark = pytest.mark.interop
START_TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def thanos() -> Path:
    return peer_program("thanos")


class Recorder(Observer):
    """Our ingestor, as far as a router and a querier can tell."""

    def __init__(self) -> None:
        self.writes: list[store_pb2.WriteRequest] = []
        self.calls: list[FinishedCall] = []
        self.conflicts = False

    def ended(self, call: FinishedCall) -> None:
        self.calls.append(call)

    def remote_write(self, request: bytes, _: CallContext) -> bytes:
        self.writes.append(store_pb2.WriteRequest.FromString(request))
        if self.conflicts:
            raise ConflictingSample("add 1 samples: duplicate sample for timestamp")
        return b""

    def info(self, request: bytes, _: CallContext) -> bytes:
        assert info_pb2.InfoRequest.FromString(request) == info_pb2.InfoRequest()
        answer = info_pb2.InfoResponse(ComponentType="receive")
        label = answer.label_sets.add().labels.add()
        label.name, label.value = "cluster", "one"
        answer.store.min_time, answer.store.max_time = 0, 2**62
        answer.store.supports_without_replica_labels = True
        return answer.SerializeToString()

    def series(self, _: bytes, __: CallContext) -> Iterator[bytes]:
        for name in ("a", "b"):
            answer = store_pb2.SeriesResponse()
            for pair in (("__name__", name), ("cluster", "one")):
                label = answer.series.labels.add()
                label.name, label.value = pair
            yield answer.SerializeToString()


@pytest.fixture
async def ours() -> AsyncIterator[tuple[Recorder, GrpcServer]]:
    recorder = Recorder()
    server = GrpcServer(
        "127.0.0.1:0",
        {
            "/thanos.WriteableStore/RemoteWrite": Unary(recorder.remote_write, is_queued=True),
            "/thanos.info.Info/Info": Unary(recorder.info),
            "/thanos.Store/Series": ServerStream(recorder.series),
        },
        log=structlog.get_logger(),
        observer=recorder,
    )
    await server.start()
    server.set_serving(True)
    yield recorder, server
    await server.stop(1)


@contextlib.asynccontextmanager
async def running(command: list[str | Path], folder: Path, http: int) -> AsyncIterator[Path]:
    """Run a peer until the block ends; the peer is ready inside of it."""
    log = folder / "peer.log"
    process = launch(command, log)
    try:
        await until(lambda: fetch(f"http://127.0.0.1:{http}/-/ready")[0] == 200, log)
        yield log
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)


def launch(command: list[str | Path], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)


async def until(claim: Any, log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
    while not await asyncio.to_thread(claim):
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail((await asyncio.to_thread(log.read_text))[-4000:])
        await asyncio.sleep(0.1)


def fetch(url: str, body: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, body, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def write_body(n_series: int) -> bytes:
    request = prometheus_remote_pb2.WriteRequest()
    for index in range(n_series):
        series = request.timeseries.add()
        for name, value in (("__name__", "up"), ("instance", f"host-{index:06}")):
            label = series.labels.add()
            label.name, label.value = name, value
        series.samples.add().timestamp = 1_700_000_000_000
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def router(
    thanos: Path, folder: Path, target: int, http: int, write: int, *flags: str
) -> list[str | Path]:
    return [
        thanos, "receive", '--label=router="one"', f"--tsdb.path={folder / 'data'}",
        f"--http-address=127.0.0.1:{http}", f"--remote-write.address=127.0.0.1:{write}",
        f"--grpc-address=127.0.0.1:{free_port()}",
        f"--receive.capnproto-address=127.0.0.1:{free_port()}",
        "--receive.hashrings=" + json.dumps([{"endpoints": [f"127.0.0.1:{target}"]}]), *flags,
    ]  # fmt: skip


@pytest.mark.parametrize("flags", [(), ("--receive.grpc-compression=none",)])
async def test_a_router_writes_to_us(
    thanos: Path, ours: tuple[Recorder, GrpcServer], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Forwards arrive whole, small and large, with snappy and without; our codes become its."""
    recorder, server = ours
    http, write = free_port(), free_port()
    url = f"http://127.0.0.1:{write}/api/v1/receive"
    command = router(thanos, tmp_path, server.port, http, write, *flags)
    async with running(command, tmp_path, http):
        for n_series in (1, 20_000):
            status, text = await asyncio.to_thread(fetch, url, write_body(n_series))
            assert status == 200, text
        assert server.n_connections["ours"] == 1
        assert [len(request.timeseries) for request in recorder.writes] == [1, 20_000]
        assert recorder.writes[0].tenant == "default-tenant"
        label = recorder.writes[1].timeseries[19_999].labels[1]
        assert (label.name, label.value) == ("instance", "host-019999")
        recorder.conflicts = True
        status, _ = await asyncio.to_thread(fetch, url, write_body(1))
        assert status == 409


async def test_a_default_querier_uses_the_same_port(
    thanos: Path, ours: tuple[Recorder, GrpcServer], tmp_path: Path
) -> None:
    """Info and Series are served to a querier that does not compress."""
    _, server = ours
    http = free_port()
    command: list[str | Path] = [
        thanos, "query", f"--http-address=127.0.0.1:{http}",
        f"--grpc-address=127.0.0.1:{free_port()}", f"--endpoint=127.0.0.1:{server.port}",
    ]  # fmt: skip
    async with running(command, tmp_path, http) as log:
        stores = f"http://127.0.0.1:{http}/api/v1/stores"
        await until(lambda: b'"cluster":"one"' in fetch(stores)[1], log)
        url = f"http://127.0.0.1:{http}/api/v1/series?match[]=%7Bcluster%3D%22one%22%7D"
        status, body = await asyncio.to_thread(fetch, url)
        assert server.n_connections["ours"] == 0
    assert status == 200
    assert [series["__name__"] for series in json.loads(body)["data"]] == ["a", "b"]
    assert json.loads(body).get("warnings") is None


async def test_a_querier_that_compresses_is_served(
    thanos: Path, ours: tuple[Recorder, GrpcServer], tmp_path: Path
) -> None:
    """With compression set, a querier's Info and streams come over our own HTTP/2 side."""
    recorder, server = ours
    http = free_port()
    command: list[str | Path] = [
        thanos, "query", f"--http-address=127.0.0.1:{http}",
        f"--grpc-address=127.0.0.1:{free_port()}", f"--endpoint=127.0.0.1:{server.port}",
        "--grpc-compression=snappy",
    ]  # fmt: skip
    async with running(command, tmp_path, http) as log:
        stores = f"http://127.0.0.1:{http}/api/v1/stores"
        await until(lambda: b'"cluster":"one"' in fetch(stores)[1], log)
        url = f"http://127.0.0.1:{http}/api/v1/series?match[]=%7Bcluster%3D%22one%22%7D"
        status, body = await asyncio.to_thread(fetch, url)
        assert server.n_connections["grpcio"] == 0
    assert status == 200
    assert [series["__name__"] for series in json.loads(body)["data"]] == ["a", "b"]
    assert {call.method for call in recorder.calls} == {
        "/thanos.info.Info/Info",
        "/thanos.Store/Series",
    }
