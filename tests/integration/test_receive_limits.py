"""`thanostack receive` as a process: limits, overrides and relabeling, changed while it runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cramjam
import httpx
import pytest

from thanostack.testing.write_storage import write_request

pytestmark = pytest.mark.enable_socket
SERVICES = str(Path(__file__).parents[2] / "services")
WAIT_S = 60.0


class Receive:
    """One process with files that its limits and rules are in."""

    def __init__(self, folder, *flags):
        self.folder = folder
        names = ("http-address", "grpc-address", "remote-write.address")
        self.process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-P",
                    "-m",
                    "thanostack",
                    "receive",
                    f"--tsdb.path={folder}/data",
                ),
                *("--label", 'replica="0"', *(f"--{name}=127.0.0.1:0" for name in names), *flags),
            ],
            env={**os.environ, "PYTHONPATH": SERVICES},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = ""
        for line in self.process.stderr:
            self.log += line
            if "msg=serving" in line:
                break
        found = re.search(r"http=(\d+) .*remote_write=(\d+)", self.log)
        assert found, self.log
        self.http, self.port = found.groups()

    def send(self, *label_sets, t=None, tenant=""):
        t = t or int(time.time() * 1000)
        body = write_request(*((labels, [(t, 1.0)]) for labels in label_sets))
        headers = {"THANOS-TENANT": tenant} if tenant else {}
        block = bytes(cramjam.snappy.compress_raw(body))
        url = f"http://127.0.0.1:{self.port}/api/v1/receive"
        return httpx.post(url, content=block, headers=headers, timeout=30)

    def status(self, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/status/tsdb"
        return httpx.get(url, params=parameters, timeout=30).json()["data"]

    def metric(self, line):
        text = httpx.get(f"http://127.0.0.1:{self.http}/metrics", timeout=30).text
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    def wait(self, line, value):
        ends = time.monotonic() + WAIT_S
        while self.metric(line) != value:
            assert time.monotonic() < ends, f"{line} is {self.metric(line)}, not {value}"
            time.sleep(0.1)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        rest = self.process.stderr.read()
        code = self.process.wait(30)
        self.process.stderr.close()
        return code, self.log + rest


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*flags):
        started.append(Receive(tmp_path, *flags))
        return started[-1]

    yield start
    for receive in started:
        if receive.process.poll() is None:
            receive.process.kill()
            receive.process.wait()
            receive.process.stderr.close()


def put(file, text):
    """Replace a file at once: a process that reads it finds the old text or the new one."""
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(text)
    unfinished.replace(file)


def series(first, stop):
    return [{"__name__": "m", "i": str(i)} for i in range(first, stop)]


def test_limits_hold_change_and_survive_nonsense(start, tmp_path):
    """413 and 429 as the file says; a new file holds within seconds, a bad one changes nothing."""
    limits = tmp_path / "limits.yaml"
    put(limits, "write: {default: {request: {series_limit: 3}, head_series_limit: 4}}")
    flags = (f"--receive.limits-config-file={limits}", "--receive.limits-config-reload-timer=200ms")
    receive = start(*flags)
    assert receive.send(*series(0, 3)).status_code == 200
    refused = receive.send(*series(0, 5))
    assert (refused.status_code, "retry-after" in refused.headers) == (413, False)
    assert refused.text == "too many timeseries: 5 exceeds the limit of 3\n"
    above = receive.send(*series(2, 5))
    assert (above.status_code, above.headers["retry-after"]) == (429, "5")
    assert above.text.startswith("tenant is above active series limit: ")
    assert "refused: series_limit: 1; 2 of 3 samples are stored" in above.text
    assert receive.status()[0]["headStats"]["numSeries"] == 4
    limited = 'thanos_receive_head_series_limited_requests_total{tenant="default-tenant"}'
    assert receive.metric(limited) == 1

    put(limits, "write: {default: {request: {series_limit: three}}}")
    receive.wait("thanos_receive_limits_config_reload_err_total", 1)
    assert receive.send(*series(0, 5)).status_code == 413
    put(limits, "write: {tenants: {default-tenant: {request: {size_bytes_limit: 200}}}}")
    receive.wait('thanos_receive_write_limits{limit="body_size",tenant="default-tenant"}', 200)
    assert receive.send(*series(3, 6)).status_code == 200
    assert receive.send(*series(3, 60)).text.startswith("write request too large: ")
    assert receive.send(*series(3, 60), tenant="other").status_code == 200
    code, log = receive.stop()
    assert code == 0
    assert "cannot unmarshal !!str `three` into int64" in log
    assert "Traceback" not in log


def test_overrides_and_relabeling(start, tmp_path):
    """Each tenant has what the overrides give it; every write goes through the rules."""
    overrides = tmp_path / "overrides.yaml"
    put(overrides, "tenants: {small: {head_series_limit: 1, label_names_limit: 3}}")
    rules = (
        "[{source_labels: [i], regex: '[5-9]', action: drop}, {regex: secret, action: labeldrop}]"
    )
    receive = start(
        f"--receive.overrides-file={overrides}",
        "--receive.limits-config-reload-timer=200ms",
        f"--receive.relabel-config={rules}",
    )
    assert receive.send(*series(5, 9)).status_code == 200
    assert (
        receive.send(*series(3, 7), {"__name__": "m", "i": "1", "secret": "s"}).status_code == 200
    )
    (found,) = receive.status(all_tenants="true")
    assert found["headStats"]["numSeries"] == 3
    assert "secret" not in str(found)
    wide = {"__name__": "m", "a": "1", "b": "1", "c": "1"}
    refused = receive.send(wide, tenant="small")
    assert (refused.status_code, "label_limit: 1" in refused.text) == (409, True)
    assert receive.send(wide).status_code == 200
    assert receive.send(*series(0, 2), tenant="small").status_code == 429
    put(overrides, "tenants: {small: {out_of_order_time_window: 1h}}")
    receive.wait("thanostack_receive_overrides_reload_err_total", 1)
    assert receive.send(*series(0, 2), tenant="small").status_code == 429
    put(overrides, "tenants: {small: {head_series_limit: 2}}")
    receive.wait('thanos_receive_head_series_limit{tenant="small"}', 2)
    assert receive.send(*series(0, 2), tenant="small").status_code == 200
    assert [entry["tenant"] for entry in receive.status(all_tenants="true")] == [
        "default-tenant",
        "small",
    ]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--receive.relabel-config=- {action: x}"], "unknown relabel action"),
        (["--receive.relabel-config-file=/no/such"], "loading file /no/such: No such file"),
        (["--receive.limits-config=write: {x: 1}"], "field x not found"),
        (["--receive.limits-config=a", "--receive.limits-config-file=b"], "flags set"),
    ],
)
def test_what_cannot_be_used_stops_the_start(tmp_path, flags, text):
    """With code 1 and what is wrong."""
    command = [sys.executable, "-P", "-m", "thanostack", "receive", f"--tsdb.path={tmp_path}/data"]
    names = ("http-address", "grpc-address", "remote-write.address")
    addresses = [f"--{name}=127.0.0.1:0" for name in names]
    done = subprocess.run(
        [*command, "--label", 'replica="0"', *addresses, *flags],
        env={**os.environ, "PYTHONPATH": SERVICES},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert text in done.stderr
