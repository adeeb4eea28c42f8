"""A real Prometheus opens what we wrote, and we read what it left behind after kill -9."""

import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from thanostack.lib.chunkenc.xor import encode_chunk
from thanostack.lib.model.label_runs import LabelRuns
from thanostack.lib.tsdb.chunks_head import ChunksHeadWriter
from thanostack.lib.wal.checkpoint import delete_checkpoints, log_readers, write_checkpoint
from thanostack.lib.wal.records import (
    SampleColumns,
    TombstoneColumns,
    decode_samples,
    decode_series,
    encode_samples_record,
    encode_series_record,
    encode_tombstones_record,
)
from thanostack.lib.wal.segments import PAGE_BYTES
from thanostack.lib.wal.writer import WALOptions, WALWriter
from thanostack.testing.ports import free_port
from thanostack.testing.processes import peer_program
from thanostack.testing.reference.head_chunk_file import encode_chunk as head_chunk
from thanostack.testing.reference.wal_frames import frame

pytestmark = pytest.mark.interop
SERIES = 300
CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
- job_name: self
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@pytest.fixture(scope="module")
def promtool():
    return peer_program("promtool")


class Prometheus:
    """One running server."""

    def __init__(self, folder, *flags):
        self.port = free_port()
        config = folder.parent / f"{folder.name}.yml"
        config.write_text(CONFIG.format(port=self.port))
        self.log = folder.parent / f"{folder.name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    peer_program("prometheus"),
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    *flags,
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while not self.is_ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def query(self, text):
        address = f"http://127.0.0.1:{self.port}/api/v1/query?query={text}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def wait_for_scrapes(self):
        deadline = time.monotonic() + 60
        while True:
            found = self.query("sum_over_time(up[1m])")
            if found and int(found[0]["value"][1]) >= 5:
                return
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.5)

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(60)


def dump(promtool, folder):
    """Return {(labels, t, value)} of the float samples that promtool sees; values as text."""
    command = [promtool, "tsdb", "dump", folder]
    text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    samples = set()
    for line in text.splitlines():
        found = re.fullmatch(r"\{(.*)\} (\S+) (-?\d+)", line)
        if found:
            pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[1])
            samples.add((frozenset(pairs), int(found[3]), repr(float(found[2]))))
    return samples


def decoded(wal):
    """Return the same of a log as we read it."""
    runs, samples = {}, set()
    for reader in log_readers(wal):
        for batch in reader:
            series = decode_series(batch)
            labels = [frozenset(series.runs.mapping(i).items()) for i in range(len(series))]
            runs.update(zip(series.refs.tolist(), labels, strict=True))
            columns = decode_samples(batch)
            lists = (columns.refs.tolist(), columns.timestamps.tolist(), columns.values.tolist())
            samples |= {(runs[r], t, repr(v)) for r, t, v in zip(*lists, strict=True)}
    return samples


def write_log(wal, compression):
    """Write 20 scrapes of 300 series over some segments; return the last time."""
    now = int(time.time() * 1000) // 1000 * 1000
    writer = WALWriter(wal, WALOptions(4 * PAGE_BYTES, compression))
    refs = np.arange(1, SERIES + 1, dtype=np.uint64)
    runs = LabelRuns.of_mappings(
        {"__name__": "ours_total", "pod": f"pod-{i}", "zone": "z" * (i % 140)}
        for i in range(SERIES)
    )
    writer.log([encode_series_record(refs, runs)])
    rng = np.random.default_rng(4)
    for k in range(20):
        values = np.where(rng.random(SERIES) < 0.5, np.floor(rng.random(SERIES) * 99), k / 3)
        times = np.full(SERIES, now - 60_000 + 3000 * k, np.int64)
        writer.log([encode_samples_record(SampleColumns(refs, times, values))])
    writer.close()
    return now - 60_000 + 3000 * 19


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_promtool_sees_our_samples(tmp_path, promtool, compression):
    """Every sample of our log is in the dump, and nothing else."""
    write_log(tmp_path / "wal", compression)
    ours = decoded(tmp_path / "wal")
    assert len(ours) == SERIES * 20
    assert ours == dump(promtool, tmp_path)


def test_promtool_sees_our_checkpoint(tmp_path, promtool):
    """A checkpoint of ours with the segments after it is a whole log to upstream."""
    wal = tmp_path / "wal"
    write_log(wal, "snappy")
    writer = WALWriter(wal)
    gone = TombstoneColumns(np.array([1], np.uint64), np.array([0]), np.array([1 << 60]))
    writer.log([encode_tombstones_record(gone)])
    writer.cut_segment()
    last = writer.first_and_last()[1] - 1
    write_checkpoint(wal, 0, last, keep=lambda refs: refs <= np.uint64(200), mint=0)
    writer.truncate(last + 1)
    delete_checkpoints(wal, last)
    writer.close()
    ours = {sample for sample in decoded(wal) if ("pod", "pod-0") not in sample[0]}
    assert len(ours) == 199 * 20
    assert ours == dump(promtool, tmp_path)


def test_promtool_sees_our_head_chunks(tmp_path, promtool):
    """Samples that are only in head chunk files of ours, over several files, are in the dump."""
    now = int(time.time() * 1000)
    refs = np.arange(1, 41, dtype=np.uint64)
    runs = LabelRuns.of_mappings({"__name__": "ours_total", "pod": str(i)} for i in range(40))
    frames, expected = [], set()
    for i, ref in enumerate(refs.tolist()):
        times = now - 600_000 + 1000 * np.arange(100)
        values = np.floor(np.random.default_rng(ref).random(100) * 50)
        data = encode_chunk(times, values)
        frames.append(head_chunk(ref, int(times[0]), int(times[-1]), 1, data))
        labels = frozenset({("__name__", "ours_total"), ("pod", str(i))})
        lists = (times.tolist(), values.tolist())
        expected |= {(labels, t, repr(v)) for t, v in zip(*lists, strict=True)}
        expected.add((labels, now, "1.0"))
    files = ChunksHeadWriter(tmp_path / "chunks_head", file_bytes=4000)
    lengths = np.array([len(frame) for frame in frames], np.int64)
    files.append(np.frombuffer(b"".join(frames), np.uint8), lengths)
    files.close()
    assert len(list((tmp_path / "chunks_head").iterdir())) > 1
    writer = WALWriter(tmp_path / "wal")
    last = SampleColumns(refs, np.full(40, now, np.int64), np.ones(40))
    writer.log([encode_series_record(refs, runs), encode_samples_record(last)])
    writer.close()
    assert expected == dump(promtool, tmp_path)


def test_prometheus_runs_on_our_log(tmp_path, promtool):
    """A server starts on our log with a torn end, serves it, and we read what it then writes."""
    wal = tmp_path / "wal"
    last = write_log(wal, "snappy")
    newest = max(wal.iterdir())
    ours = decoded(wal)
    with newest.open("r+b") as file:
        file.truncate(len(newest.read_bytes().rstrip(b"\0")))
    with newest.open("ab") as file:
        file.write(frame(b"\x02" * 900, 0, newest.stat().st_size)[:400])
    server = Prometheus(tmp_path)
    found = server.query(f"ours_total&time={last / 1000 + 1}")
    assert len(found) == SERIES
    server.wait_for_scrapes()
    server.stop(signal.SIGKILL)
    theirs = decoded(wal)
    assert ours <= theirs
    assert any(("__name__", "up") in labels for labels, _, _ in theirs)
    assert theirs == dump(promtool, tmp_path)


@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_we_read_what_prometheus_left(tmp_path, promtool, compression):
    """After kill -9 we find the samples that its own tool finds, and can go on in its log."""
    folder = tmp_path / "data"
    server = Prometheus(folder, f"--storage.tsdb.wal-compression-type={compression}")
    server.wait_for_scrapes()
    server.stop(signal.SIGKILL)
    theirs = dump(promtool, folder)
    assert len(theirs) > 1000
    assert theirs == decoded(folder / "wal")
    writer = WALWriter(folder / "wal")
    # Upstream panics from 2^40 on: its head chunk references have five bytes for the series.
    refs = np.array([(1 << 40) - 1], np.uint64)
    runs = LabelRuns.of_mappings([{"__name__": "added"}])
    sample = SampleColumns(refs, np.array([max(t for _, t, _ in theirs)]), np.array([5.0]))
    writer.log([encode_series_record(refs, runs), encode_samples_record(sample)])
    added = (frozenset({("__name__", "added")}), int(sample.timestamps[0]), "5.0")
    assert theirs | {added} == dump(promtool, folder)
