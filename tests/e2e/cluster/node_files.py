"""The configuration files of a node's programs."""

from __future__ import annotations

import json
import resource
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from cluster.addresses import Addresses
from cluster.credentials import Credentials

CNI_PROGRAMS = Path("/usr/lib/cni")
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
PAUSE_IMAGE = "localhost/pause:1"
COREDNS_IMAGE = "localhost/coredns:1"
PLUGIN_FOLDER = "/var/lib/kubelet/volume-plugins"

_CONTAINERD = Template("""\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
address = "$socket"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "$pause"
[plugins."io.containerd.cri.v1.runtime"]
disable_hugetlb_controller = true
# Where root may not lower a process's score, a sandbox would never start.
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["$cni"]
conf_dir = "$folder/cni"
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
""")


@dataclass(frozen=True)
class NodeFiles:
    """The files of one node.

    Args:
        folder: that they are in.
    """

    folder: Path

    @property
    def containerd(self) -> Path:
        """Return containerd's configuration."""
        return self.folder / "containerd.toml"

    @property
    def kubelet(self) -> Path:
        """Return the kubelet's configuration."""
        return self.folder / "kubelet.json"

    @property
    def kube_proxy(self) -> Path:
        """Return kube-proxy's configuration."""
        return self.folder / "kube-proxy.json"

    def write(self, addresses: Addresses, credentials: Credentials, proxy_as: Path) -> None:
        """Write them all.

        Args:
            addresses: of the cluster.
            credentials: of its servers.
            proxy_as: kubeconfig of kube-proxy.
        """
        (self.folder / "cni").mkdir(parents=True, exist_ok=True)
        names = {"socket": CONTAINERD_SOCKET, "pause": PAUSE_IMAGE, "cni": str(CNI_PROGRAMS)}
        text = _CONTAINERD.substitute(names, folder=self.folder)
        self.containerd.write_text(text, encoding="utf-8")
        # There is nothing outside to ask for names.
        (self.folder / "resolv.conf").write_text("", encoding="utf-8")
        _write(self.folder / "cni" / "pods.conflist", _network(addresses))
        _write(self.kubelet, self._kubelet(addresses, credentials))
        _write(self.kube_proxy, _kube_proxy(addresses, proxy_as))

    def _kubelet(self, addresses: Addresses, credentials: Credentials) -> dict[str, Any]:
        serving = credentials.node(addresses.node_name, addresses.node)
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{addresses.cgroup}",
            # From 1.35 on a kubelet refuses cgroups of version 1 unless told otherwise.
            "failCgroupV1": False,
            "failSwapOn": False,
            "volumePluginDir": PLUGIN_FOLDER,
            "maxOpenFiles": _open_files_max(),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(credentials.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(serving.cert),
            "tlsPrivateKeyFile": str(serving.key),
            "clusterDNS": [addresses.dns],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self.folder / "resolv.conf"),
            # Images were put here by hand and cannot be pulled again: none is ever collected.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "500Mi",
                "imagefs.available": "500Mi",
            },
        }


def _network(addresses: Addresses) -> dict[str, Any]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/cni-addresses",
            "ranges": [[{"subnet": addresses.pods, "gateway": addresses.pod_gateway}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}


def _kube_proxy(addresses: Addresses, proxy_as: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(proxy_as)},
        "clusterCIDR": addresses.pods,
        "hostnameOverride": addresses.node_name,
        # These settings are the whole machine's: leave them as they are.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }


def _open_files_max() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1_000_000 if hard == resource.RLIM_INFINITY else hard


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
