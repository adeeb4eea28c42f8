"""A cluster of one real node on this machine.

    this machine                      │ namespaces of the node (pid, mount, network, uts, ipc)
    tests, kubectl, helm ──veth───────┼──> kube-apiserver ──> etcd
                                      │    controllers, scheduler, kubelet, kube-proxy, volumes
          host.internal <─────────────┼──  containerd ── pods on a bridge

Tests reach the API server, pods, cluster addresses and node ports directly.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import TracebackType
from typing import IO, Self

from cluster import debian, images
from cluster.addresses import Addresses
from cluster.kubectl import Kubectl, KubectlError
from cluster.launch import ClusterError, Launch, Leash, claimed, index_of, stop
from cluster.node_files import CNI_PROGRAMS, COREDNS_IMAGE, PAUSE_IMAGE
from cluster.processes import ProcessIdentity
from cluster.programs import API_SERVER, NODE, build_all
from thanostack.testing.processes import until

_START_S = 180


@dataclass
class Cluster:
    """A running cluster.

    Args:
        folder: all its state: certificates, etcd, images, volumes, logs.
        addresses: that it has.
        programs: that it is made of, by name.
        kubeconfig: of a user who may do anything.
        node: process 1 of it.
        leash: what the node hangs on; None if it was found running.
    """

    folder: Path
    addresses: Addresses
    programs: dict[str, Path]
    kubeconfig: Path
    node: ProcessIdentity
    leash: Leash | None = None

    @classmethod
    def start(
        cls,
        folder: Path,
        index: int | None = None,
        *,
        zone: str = "zone-a",
        is_left_running: bool = False,
    ) -> Self:
        """Start a cluster, or start it again with the state that a folder has.

        Args:
            folder: for its state; not below /run, /proc or /sys.
            index: 0 to 49; by default the state's, or the first free one.
            zone: of the node, as its label `topology.kubernetes.io/zone`.
            is_left_running: it goes on when this process ends.

        Raises:
            ClusterError: if we are not root, or the index is in use.
            TimeoutError: if it does not come up; it is stopped then.
        """
        if os.geteuid() != 0:
            raise ClusterError("a cluster needs root: namespaces, mounts, cgroups")
        debian.require("ip", "iptables", "nft", "nsenter", "runc", str(CNI_PROGRAMS / "bridge"))
        programs = build_all((*API_SERVER, *NODE))
        folder.mkdir(parents=True, exist_ok=True)
        kept = index_of(folder)
        with claimed(index if kept is None else kept) as (free_index, claim):
            launch = Launch(folder.resolve(), Addresses(free_index), programs, zone)
            node, leash = launch.start(claim, is_left_running=is_left_running)
            admin = launch.control_plane.admin()
        cluster = cls(launch.folder, launch.addresses, programs, admin, node, leash)
        try:
            cluster.await_ready()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @classmethod
    def found(cls, folder: Path) -> Self | None:
        """Return the cluster that runs with a folder's state, None if none does."""
        node = ProcessIdentity.read(folder / "node.pid")
        if node is None or not node.is_running():
            return None
        addresses = Addresses(int((folder / "index").read_text(encoding="ascii")))
        programs = build_all((*API_SERVER, *NODE))
        return cls(folder, addresses, programs, folder / "credentials/admin.kubeconfig", node)

    @property
    def node_address(self) -> str:
        """Return the address at which node ports are reached."""
        return self.addresses.node

    @property
    def kubectl(self) -> Kubectl:
        """Return the administrator's kubectl."""
        return Kubectl(self.programs["kubectl"], self.kubeconfig)

    def node_exec(self, *command: str, stdin: IO[bytes] | None = None) -> str:
        """Run a command in the node's namespaces and return what it prints.

        Raises:
            ClusterError: if it fails, with what it says.
        """
        enter = ["nsenter", f"--target={self.node.pid}", *["-m", "-n", "-u", "-i", "-p", "--"]]
        done = subprocess.run([*enter, *command], stdin=stdin, capture_output=True, check=False)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode()

    def load_image(self, archive: Path) -> None:
        """Put an image where pods find it; they must not have the pull policy `Always`.

        Args:
            archive: as `docker save` or `buildah push` to an archive leave it.
        """
        with archive.open("rb") as content:
            self._images("import", "-", stdin=content)

    def add_project_image(self, name: str, root: Path, dockerfile: str) -> None:
        """Build an image from one of the project's Dockerfiles and put it where pods find it.

        Args:
            name: with the tag.
            root: of the checkout.
            dockerfile: below the root.
        """
        self.load_image(images.project_image(name, root, dockerfile))

    def tag_image(self, name: str, other: str) -> None:
        """Give an image that pods find another name too."""
        self._images("tag", "--force", name, other)

    def kill_container(self, container_id: str) -> None:
        """End the process of a pod's container as the kernel would, without a signal it sees.

        Args:
            container_id: as the pod's status has it.
        """
        name = container_id.removeprefix("containerd://")
        ctr = (str(self.programs["ctr"]), "--namespace=k8s.io", "tasks", "kill")
        self.node_exec(*ctr, "--signal=SIGKILL", name)

    def service_address(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """Return where this machine reaches a Service: at its own address."""
        service = self.kubectl.json("get", "service", name, f"--namespace={namespace}")
        return service["spec"]["clusterIP"], port

    def images(self) -> list[str]:
        """Return the names of the images that pods find."""
        return self._images("list", "--quiet").split()

    def _images(self, *arguments: str, stdin: IO[bytes] | None = None) -> str:
        ctr = (str(self.programs["ctr"]), "--namespace=k8s.io", "images")
        return self.node_exec(*ctr, *arguments, stdin=stdin)

    def await_ready(self) -> None:
        """Return when the node is ready and pods can look up names.

        Raises:
            ClusterError: if the node ended.
            TimeoutError: if it takes too long.
        """
        since = dt.datetime.now(dt.UTC)
        self._until("the API server", lambda: self.kubectl("get", "--raw", "/readyz"))
        self._until("containerd", lambda: self.images() or True)
        self._load_own_images()
        names = {"dns_address": self.addresses.dns, "host_address": self.addresses.host}
        addons = Template((Path(__file__).parent / "addons.yaml").read_text(encoding="utf-8"))
        manifest = addons.substitute(names, coredns_image=COREDNS_IMAGE)
        self._until("the addons", lambda: self.kubectl.apply(manifest))
        self._until("the node", lambda: self._is_node_ready(since))
        self._until("DNS", self._is_dns_answering)
        accounts = ("-n", "default", "get", "serviceaccount", "default")
        self._until("the default service account", lambda: self.kubectl(*accounts))

    def stop(self, *, wipe: bool = False) -> None:
        """Stop it.

        Args:
            wipe: delete its state too; otherwise it can be started again.
        """
        stop(self.folder, wipe=wipe)
        if self.leash:
            self.leash.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(wipe=True)

    def _until(self, what: str, claim: Callable[[], object]) -> None:
        def is_true() -> object:
            if not self.node.is_running():
                raise ClusterError(f"the node ended; see {self.folder}/logs")
            try:
                return claim()
            except (KubectlError, ClusterError):
                return False

        until(f"{what}; see {self.folder}/logs", is_true, _START_S)

    def _load_own_images(self) -> None:
        have = self.images()
        for name, program in ((PAUSE_IMAGE, "pause"), (COREDNS_IMAGE, "coredns")):
            if name not in have:
                self.load_image(images.program_image(name, self.programs[program]))

    def _is_node_ready(self, since: dt.datetime) -> bool:
        """Return whether it is ready now: at first the API has the state of before a restart."""
        name = self.addresses.node_name
        lease = self.kubectl.json("-n", "kube-node-lease", "get", "lease", name)
        if dt.datetime.fromisoformat(lease["spec"]["renewTime"]) < since:
            return False
        node = self.kubectl.json("get", "node", name)
        states = {each["type"]: each["status"] for each in node["status"]["conditions"]}
        return states.get("Ready") == "True"

    def _is_dns_answering(self) -> bool:
        """Ask once at DNS's cluster address: kube-proxy, the network and CoreDNS work then."""
        labels = b"kubernetes.default.svc.cluster.local".split(b".")
        name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
        header, question = b"\1\2\1\0\0\1\0\0\0\0\0\0", name + b"\0\1\0\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.sendto(header + question, (self.addresses.dns, 53))
            answer = client.recv(512)
        return answer[:2] == header[:2] and answer[7] > 0
