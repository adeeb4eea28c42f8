"""Starting and stopping a node: process 1 in its namespaces, its wire to this machine, its cgroup.

folder/index, node.pid   which cluster it is and its process 1, for whoever stops it
folder/node.json         what process 1 was told
folder/logs              of each program
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from cluster import cgroups, debian
from cluster.addresses import N_CLUSTERS, Addresses
from cluster.control_plane import ControlPlane
from cluster.credentials import Credentials
from cluster.node import NodePlan
from cluster.node_daemons import node_daemons
from cluster.processes import ProcessIdentity

_MOUNTS = {
    "/var/lib/kubelet": "kubelet",
    "/var/lib/containerd": "containerd",
    "/var/log/pods": "pod-logs",
    "/var/log/containers": "container-logs",
}
# The kubelet insists on these values, and sets them itself where it finds others.
_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc")
_APPEARING_S = 10
_ENDING_S = 60
_RELEASING_S = 5


class ClusterError(RuntimeError):
    """Raised when a cluster cannot be started here, or has died."""


@dataclass(frozen=True)
class Leash:
    """What a node hangs on.

    Args:
        life: the node ends when the last process has closed it.
        starter: ends when the node has ended.
    """

    life: IO[bytes]
    starter: subprocess.Popen[bytes]

    def close(self) -> None:
        """End the node and return when nothing of it is left; its index is free then."""
        self.life.close()
        self.starter.wait(_ENDING_S)


@contextlib.contextmanager
def claimed(index: int | None) -> Iterator[tuple[int, int]]:
    """Claim an index for this process and for the node that it hands the claim to.

    Args:
        index: 0 to 49, or the first free one.

    Yields:
        The index, and an open file: the index is free when the last process has closed it.

    Raises:
        ClusterError: if it is not free, or none is.
    """
    # A certain index may be that of a cluster that is just ending.
    patience_s = 0.0 if index is None else _RELEASING_S
    for each in range(N_CLUSTERS) if index is None else (index,):
        with Path(tempfile.gettempdir(), f"thanostack-cluster-{each}.lock").open("ab") as file:
            if _is_locked(file, patience_s):
                yield each, file.fileno()
                return
    wanted = "every index" if index is None else f"index {index}"
    raise ClusterError(f"{wanted} is in use by another cluster on this machine")


def _is_locked(file: IO[bytes], patience_s: float) -> bool:
    """Lock a file and return True, or False if another process has it that long."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True


@dataclass(frozen=True)
class Launch:
    """A cluster that is about to run.

    Args:
        folder: for its state.
        addresses: that it will have.
        programs: that it is made of, by name.
        zone: of the node.
    """

    folder: Path
    addresses: Addresses
    programs: dict[str, Path]
    zone: str

    @cached_property
    def control_plane(self) -> ControlPlane:
        """Return the control plane that it will have."""
        return ControlPlane(
            programs=self.programs,
            folder=self.folder,
            credentials=Credentials(self.folder / "credentials"),
            address=self.addresses.node,
            port=6443,
            etcd_port=2379,
            etcd_peer_port=2380,
            service_network=self.addresses.services,
        )

    def start(self, claim: int, *, is_left_running: bool) -> tuple[ProcessIdentity, Leash]:
        """Start process 1 and connect it to this machine.

        Args:
            claim: open file of the index's claim.
            is_left_running: it goes on when this process ends.

        Returns:
            Process 1, and what it hangs on.

        Raises:
            ClusterError: if it does not start.
        """
        stop(self.folder)
        _remove_traces(self.addresses)
        (self.folder / "logs").mkdir(exist_ok=True)
        plan_file = self.folder / "node.json"
        self._plan().write(plan_file)
        cgroups.make(self.addresses.cgroup)
        theirs, ours = os.pipe()
        kept_open = (theirs, claim, ours) if is_left_running else (theirs, claim)
        leash = Leash(os.fdopen(ours, "wb"), self._unshare(plan_file, theirs, kept_open))
        os.close(theirs)
        node = self._process_1(leash.starter)
        node.write(self.folder / "node.pid")
        (self.folder / "index").write_text(str(self.addresses.index), encoding="ascii")
        self._connect(node)
        return node, leash

    def _plan(self) -> NodePlan:
        plane = self.control_plane
        return NodePlan(
            name=self.addresses.node_name,
            cgroup=self.addresses.cgroup,
            address=f"{self.addresses.node}/24",
            gateway=self.addresses.host,
            mounts={place: str(self.folder / name) for place, name in _MOUNTS.items()},
            settings=_SETTINGS,
            daemons=node_daemons(self.folder, self.addresses, plane, self.zone),
            ca=str(plane.credentials.ca),
            logs=str(self.folder / "logs"),
        )

    def _unshare(
        self, plan: Path, life: int, kept_open: tuple[int, ...]
    ) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-P", "-m", "cluster.node", str(plan), str(life)]
        with (self.folder / "logs" / "node.log").open("ab") as log:
            return subprocess.Popen(
                ["unshare", *_NAMESPACES, "--kill-child", *program],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=kept_open,
                env={**os.environ, "PATH": debian.search_path()},
            )

    def _process_1(self, starter: subprocess.Popen[bytes]) -> ProcessIdentity:
        children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children")
        deadline = time.monotonic() + _APPEARING_S
        while starter.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if pids := children.read_text(encoding="ascii").split():
                    return ProcessIdentity.of(int(pids[0]))
            time.sleep(0.01)
        raise ClusterError(f"the node does not start; see {self.folder}/logs/node.log")

    def _connect(self, node: ProcessIdentity) -> None:
        name, here = self.addresses.interface, self.addresses
        wire = ["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(node.pid)]
        for command in (
            wire,
            ["address", "add", f"{here.host}/24", "dev", name],
            ["link", "set", name, "up"],
            ["route", "replace", here.services, "via", here.node],
            ["route", "replace", here.pods, "via", here.node],
        ):
            subprocess.run(["ip", *command], check=True)


def index_of(folder: Path) -> int | None:
    """Return the index of the cluster whose state a folder has, None if it has none."""
    try:
        return int((folder / "index").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


def stop(folder: Path, *, wipe: bool = False) -> None:
    """Stop the cluster whose state a folder has, if one runs; also one that another process left.

    Args:
        folder: as it was started with.
        wipe: delete the folder too.

    Raises:
        TimeoutError: if it does not end.
    """
    node, index = ProcessIdentity.read(folder / "node.pid"), index_of(folder)
    if node and index is not None:
        node.end()
        _remove_traces(Addresses(index))
        (folder / "node.pid").unlink()
    if wipe:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_traces(addresses: Addresses) -> None:
    """Remove what a cluster leaves on this machine once its processes have ended."""
    cgroups.remove(addresses.cgroup)
    # It goes with the network namespace, but a little later.
    subprocess.run(["ip", "link", "delete", addresses.interface], capture_output=True, check=False)
