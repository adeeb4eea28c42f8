"""Process 1 of a node: runs inside the node's namespaces and keeps its programs running.

    python -P -m cluster.node node.json LIFE    (in new pid, mount, network, uts, ipc namespaces)

LIFE is the number of an open file, whose other end whoever the node must not outlive holds.

When it ends, the kernel ends everything in the pid namespace, programs and containers alike;
mounts, rules and network devices go with their namespaces. So nothing has to be undone here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from cluster import cgroups

_RESTART_S = 1.0
_STARTING_S = 0.05


@dataclass(frozen=True)
class Daemon:
    """A program of the node, started anew whenever it ends.

    Args:
        name: of its log.
        command: with arguments.
        after: what has to answer before it is started for the first time: `unix:<path>` accepts a
            connection, or an HTTP(S) address answers 200; nothing if empty.
    """

    name: str
    command: tuple[str, ...]
    after: str = ""


@dataclass(frozen=True)
class NodePlan:
    """All that process 1 has to know.

    Args:
        name: of the node.
        cgroup: that it runs in.
        address: of the node, with the length of its network's prefix.
        gateway: to this machine.
        mounts: folders of the state that are shown at fixed places, by place.
        settings: of the machine that the kubelet wants and may not change, below /proc/sys.
        daemons: in the order in which they are started.
        ca: file that HTTPS answers are checked with.
        logs: folder for their output.
    """

    name: str
    cgroup: str
    address: str
    gateway: str
    mounts: dict[str, str]
    settings: dict[str, str]
    daemons: tuple[Daemon, ...]
    ca: str
    logs: str

    def write(self, path: Path) -> None:
        """Leave it in a file."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> NodePlan:
        """Return what `write` left."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        daemons = tuple(
            Daemon(each["name"], tuple(each["command"]), each["after"])
            for each in fields.pop("daemons")
        )
        return cls(daemons=daemons, **fields)


def show_folders(plan: NodePlan) -> None:
    """Mount what the node's programs expect at fixed places; nothing of it is seen outside."""
    _run("mount", "--make-rprivate", "/")
    # A fresh sysfs shows this network namespace's devices; the cgroups below it are kept.
    with tempfile.TemporaryDirectory() as kept:
        _run("mount", "--rbind", "/sys/fs/cgroup", kept)
        _run("mount", "-t", "sysfs", "sysfs", "/sys")
        _run("mount", "--rbind", kept, "/sys/fs/cgroup")
        _run("umount", "--lazy", kept)
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for folder in ("lock", "containerd", "netns"):
        Path("/run", folder).mkdir()
    for place, folder in plan.mounts.items():
        for path in (place, folder):
            Path(path).mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", folder, place)
    for i, (name, value) in enumerate(plan.settings.items()):
        shown = Path("/proc/sys", name)
        if shown.exists():
            stand_in = Path(f"/run/setting-{i}")
            stand_in.write_text(value, encoding="ascii")
            _run("mount", "--bind", str(stand_in), str(shown))
    # Pods that ask for mount propagation need this.
    _run("mount", "--make-rshared", "/")


def connect(plan: NodePlan) -> None:
    """Bring up the node's network once its end of the wire is there."""
    _run("ip", "link", "set", "lo", "up")
    while not Path("/sys/class/net/eth0").exists():
        time.sleep(0.02)
    _run("ip", "address", "add", plan.address, "dev", "eth0")
    _run("ip", "link", "set", "eth0", "up")
    _run("ip", "route", "add", "default", "via", plan.gateway)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
    filtering = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if filtering.exists():
        filtering.write_text("1", encoding="ascii")


@dataclass
class Supervisor:
    """Keeps the daemons running.

    Args:
        plan: of the node.
        life: file that reads as ended when the node has to end.
    """

    plan: NodePlan
    life: int
    _pids: dict[int, Daemon] = field(default_factory=dict)
    _due_s: dict[str, float] = field(default_factory=dict)
    _waiting: list[Daemon] = field(default_factory=list)

    def run(self) -> None:
        """Start and restart until the node has to end."""
        self._waiting = list(self.plan.daemons)
        woken, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            self._start_what_is_due()
            wait_s = _STARTING_S if self._waiting else None
            ready, _, _ = select.select([woken, self.life], [], [], wait_s)
            if self.life in ready:
                return
            if woken in ready:
                os.read(woken, 4096)
                self._collect()

    def _start_what_is_due(self) -> None:
        answers: dict[str, bool] = {}
        for daemon in list(self._waiting):
            if self._due_s.get(daemon.name, 0) > time.monotonic():
                continue
            if daemon.after not in answers:
                answers[daemon.after] = self._answers(daemon.after)
            if answers[daemon.after]:
                self._waiting.remove(daemon)
                self._start(daemon)

    def _start(self, daemon: Daemon) -> None:
        self._note(f"{daemon.name} starts")
        with Path(self.plan.logs, f"{daemon.name}.log").open("ab") as log:
            process = subprocess.Popen(
                daemon.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pids[process.pid] = daemon
        # Collected by process id below, with the orphans of containers.
        process.returncode = 0

    def _collect(self) -> None:
        """Take the exit codes of daemons, and of orphans, who are process 1's too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            daemon = self._pids.pop(pid, None)
            if daemon:
                self._note(f"{daemon.name} ended, {os.waitstatus_to_exitcode(status)}")
                self._due_s[daemon.name] = time.monotonic() + _RESTART_S
                self._waiting.append(daemon)

    def _answers(self, address: str) -> bool:
        try:
            if address.startswith("unix:"):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(address.removeprefix("unix:"))
            elif address:
                trusted = ssl.create_default_context(cafile=self.plan.ca)
                urllib.request.urlopen(address, timeout=1, context=trusted).close()
        except OSError:
            return False
        return True

    def _note(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def main(path: str, life: str) -> None:
    """Make this process the node."""
    plan = NodePlan.read(Path(path))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    cgroups.enter(plan.cgroup)
    show_folders(plan)
    socket.sethostname(plan.name)
    connect(plan)
    Supervisor(plan, int(life)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
