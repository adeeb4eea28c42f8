"""An API server without a node: real validation, CEL, server-side apply, watches and RBAC.

    tests ──TLS, client certificates──> kube-apiserver ──> etcd
                                          ↑ ↑ on request: kube-controller-manager, kube-scheduler

With controllers, stateful sets make pods and Services make EndpointSlices, but no kubelet runs
anything: a pod stays as a test leaves its status, and a deleted one until it is deleted by force.
"""

from __future__ import annotations

import contextlib
import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.control_plane import ControlPlane
from cluster.credentials import Credentials
from cluster.kubectl import Kubectl
from cluster.processes import ProcessGroup
from cluster.programs import API_SERVER, build_all
from thanostack.testing.ports import free_port
from thanostack.testing.processes import until

_START_S = 90


@dataclass(frozen=True)
class ApiServer:
    """A running API server.

    Args:
        control_plane: what runs.
        admin: kubeconfig of a user who may do anything.
    """

    control_plane: ControlPlane
    admin: Path

    @property
    def url(self) -> str:
        """Return its base URL."""
        return self.control_plane.url

    def kubeconfig(self, user: str, group: str | None = None) -> Path:
        """Return a kubeconfig of a user, who may do what RBAC lets user or group do."""
        return self.control_plane.kubeconfig(user, group)

    def kubectl(self, user: str | None = None, group: str | None = None) -> Kubectl:
        """Return the kubectl of a user, by default of the administrator."""
        kubeconfig = self.kubeconfig(user, group) if user else self.admin
        return Kubectl(self.control_plane.programs["kubectl"], kubeconfig)


@contextlib.contextmanager
def running_api_server(
    folder: Path, *, controllers: bool = False, scheduler: bool = False
) -> Iterator[ApiServer]:
    """Run an API server for the time of the block.

    Args:
        folder: for data, certificates and logs.
        controllers: run kube-controller-manager.
        scheduler: run kube-scheduler.

    Raises:
        RuntimeError: if a program ends, with the ends of the logs.
        TimeoutError: if it is not ready in time.
    """
    plane = ControlPlane(
        programs=build_all(API_SERVER),
        folder=folder,
        credentials=Credentials(folder / "credentials"),
        address="127.0.0.1",
        port=free_port(),
        etcd_port=free_port(),
        etcd_peer_port=free_port(),
        service_network="10.0.0.0/24",
    )
    with ProcessGroup(folder / "logs") as group:
        group.start("etcd", plane.etcd())
        flags = ["--bind-address=127.0.0.1", "--endpoint-reconciler-type=none"]
        if not controllers:  # which make the accounts that it wants every pod to have
            flags.append("--disable-admission-plugins=ServiceAccount")
        group.start("kube-apiserver", plane.api_server(*flags))
        await_ready(plane, group)
        if controllers:
            group.start("kube-controller-manager", plane.controller_manager())
        if scheduler:
            group.start("kube-scheduler", plane.scheduler())
        yield ApiServer(plane, plane.admin())


def await_ready(plane: ControlPlane, group: ProcessGroup) -> None:
    """Return when the API server is ready, its own RBAC rules included."""
    trusted = ssl.create_default_context(cafile=str(plane.credentials.ca))

    def is_ready() -> bool:
        group.check()
        with urllib.request.urlopen(f"{plane.url}/readyz", timeout=5, context=trusted) as answer:
            return bool(answer.status == 200)

    until("the API server", is_ready, _START_S)
