"""The command lines of the control plane: etcd, API server, controllers, scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.credentials import ADMIN, Credentials


@dataclass(frozen=True)
class ControlPlane:
    """One control plane.

    Args:
        programs: path of each program, by name.
        folder: for the data of etcd.
        credentials: of servers and users.
        address: that the API server listens at and is known by.
        port: that it listens at.
        etcd_port: that etcd listens at, on the loopback address; the next one is for its peers.
        service_network: that cluster addresses are taken from.
        etcd_peer_port: where etcd would talk to its peers, had it any.
    """

    programs: dict[str, Path]
    folder: Path
    credentials: Credentials
    address: str
    port: int
    etcd_port: int
    etcd_peer_port: int
    service_network: str

    @property
    def url(self) -> str:
        """Return the API server's base URL."""
        return f"https://{self.address}:{self.port}"

    @property
    def etcd_url(self) -> str:
        """Return the address of etcd."""
        return f"http://127.0.0.1:{self.etcd_port}"

    def kubeconfig(self, name: str, group: str | None = None) -> Path:
        """Write and return a user's kubeconfig."""
        return self.credentials.kubeconfig(self.credentials.user(name, group), self.url)

    def admin(self) -> Path:
        """Write and return the kubeconfig of a user who may do anything."""
        return self.kubeconfig(*ADMIN)

    def etcd(self) -> list[str]:
        """Return the command line of etcd, safe against killed processes and not power loss."""
        peers = f"http://127.0.0.1:{self.etcd_peer_port}"
        return [
            str(self.programs["etcd"]),
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls={self.etcd_url}",
            f"--advertise-client-urls={self.etcd_url}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        ]

    def api_server(self, *flags: str) -> list[str]:
        """Return the command line of kube-apiserver.

        Args:
            flags: of this kind of cluster.
        """
        first_service = self.service_network.rpartition(".")[0] + ".1"
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        serving = self.credentials.server(
            "kube-apiserver",
            *names,
            f"{names[-1]}.cluster.local",
            "localhost",
            "127.0.0.1",
            self.address,
            first_service,
        )
        accounts = self.credentials.service_accounts
        return [
            str(self.programs["kube-apiserver"]),
            f"--etcd-servers={self.etcd_url}",
            f"--secure-port={self.port}",
            f"--advertise-address={self.address}",
            f"--tls-cert-file={serving.cert}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={self.credentials.ca}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--profiling=false",
            f"--service-cluster-ip-range={self.service_network}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={accounts.cert}",
            f"--service-account-signing-key-file={accounts.key}",
            *flags,
        ]

    def controller_manager(self, *flags: str) -> list[str]:
        """Return the command line of kube-controller-manager."""
        return [
            *self._controller("kube-controller-manager"),
            "--use-service-account-credentials=true",
            # By default a busy test waits for the client's own limit of 20 requests a second.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            f"--root-ca-file={self.credentials.ca}",
            f"--service-account-private-key-file={self.credentials.service_accounts.key}",
            *flags,
        ]

    def scheduler(self) -> list[str]:
        """Return the command line of kube-scheduler."""
        return self._controller("kube-scheduler")

    def _controller(self, name: str) -> list[str]:
        kubeconfig = self.kubeconfig(f"system:{name}")
        return [
            str(self.programs[name]),
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--profiling=false",
            "--secure-port=0",
        ]
