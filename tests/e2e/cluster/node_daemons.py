"""The programs that a node runs, their command lines and their order."""

from __future__ import annotations

from pathlib import Path

from cluster.addresses import Addresses
from cluster.control_plane import ControlPlane
from cluster.node import Daemon
from cluster.node_files import PLUGIN_FOLDER, NodeFiles


def node_daemons(
    folder: Path, addresses: Addresses, plane: ControlPlane, zone: str
) -> tuple[Daemon, ...]:
    """Write the node's files and return its programs.

    Args:
        folder: for the cluster's state.
        addresses: that it has.
        plane: its control plane.
        zone: of the node.
    """
    files = NodeFiles(folder / "files")
    files.write(addresses, plane.credentials, plane.kubeconfig("system:kube-proxy"))
    etcd, ready = f"{plane.etcd_url}/health", f"{plane.url}/readyz"
    programs = plane.programs
    containerd = [str(programs["containerd"]), f"--config={files.containerd}"]
    proxy = [str(programs["kube-proxy"]), f"--config={files.kube_proxy}"]
    commands = (
        ("etcd", plane.etcd(), ""),
        ("containerd", containerd, ""),
        ("kube-apiserver", plane.api_server(*_api_server_flags(plane)), etcd),
        ("kube-controller-manager", plane.controller_manager(*_controller_flags(addresses)), ready),
        ("kube-scheduler", plane.scheduler(), ready),
        ("kubelet", _kubelet(files, addresses, plane, zone), ready),
        ("kube-proxy", proxy, ready),
        ("local-provisioner", _provisioner(folder, addresses, plane), ready),
    )
    return tuple(Daemon(name, tuple(command), after) for name, command, after in commands)


def _api_server_flags(plane: ControlPlane) -> list[str]:
    """Return the flags for what the API server asks the kubelet for: logs, exec, port-forward."""
    client = plane.credentials.user("kube-apiserver-kubelet-client", "system:masters")
    return [
        f"--kubelet-certificate-authority={plane.credentials.ca}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={client.cert}",
        f"--kubelet-client-key={client.key}",
    ]


def _controller_flags(addresses: Addresses) -> list[str]:
    return [
        "--allocate-node-cidrs=true",
        f"--cluster-cidr={addresses.pods}",
        "--node-cidr-mask-size=24",
        f"--service-cluster-ip-range={addresses.services}",
        f"--flex-volume-plugin-dir={PLUGIN_FOLDER}",
    ]


def _kubelet(files: NodeFiles, addresses: Addresses, plane: ControlPlane, zone: str) -> list[str]:
    identity = plane.credentials.node(addresses.node_name, addresses.node)
    return [
        str(plane.programs["kubelet"]),
        f"--config={files.kubelet}",
        f"--kubeconfig={plane.credentials.kubeconfig(identity, plane.url)}",
        f"--hostname-override={addresses.node_name}",
        f"--node-ip={addresses.node}",
        f"--node-labels=topology.kubernetes.io/zone={zone}",
    ]


def _provisioner(folder: Path, addresses: Addresses, plane: ControlPlane) -> list[str]:
    volumes = folder / "volumes"
    volumes.mkdir(exist_ok=True)
    return [
        str(plane.programs["local-provisioner"]),
        f"--kubeconfig={plane.kubeconfig('local-provisioner', 'system:masters')}",
        f"--root={volumes}",
        f"--node={addresses.node_name}",
    ]
