"""A cluster that somebody else runs, such as one of kind; chosen by KUBECONFIG.

Images are built by docker and brought in by `kind load`. Where neither is there, the cluster has to
have them: a test that misses one says so by its pod's state.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster.kubectl import Kubectl

_KIND = "kind-"
NODE_PORTS = {19291: 30291, 10902: 30902, 10901: 30901}
"""Of remote write and of queries, as `kind-config.yaml` maps them."""


@dataclass(frozen=True)
class GivenCluster:
    """A cluster that is there.

    Args:
        kubeconfig: with which it is reached.
        node_address: at which its node ports are reached; `kind-config.yaml` maps them here.
    """

    kubeconfig: Path
    node_address: str = "127.0.0.1"

    @classmethod
    def from_environment(cls) -> GivenCluster | None:
        """Return the cluster of KUBECONFIG, None if it is not set."""
        path = os.environ.get("KUBECONFIG")
        address = os.environ.get("THANOSTACK_NODE_ADDRESS", cls.node_address)
        return cls(Path(path), address) if path else None

    @property
    def kubectl(self) -> Kubectl:
        """Return the kubectl of whoever KUBECONFIG belongs to.

        Raises:
            FileNotFoundError: if there is none on the path.
        """
        program = shutil.which("kubectl")
        if program is None:
            raise FileNotFoundError("kubectl is not on the path")
        return Kubectl(Path(program), self.kubeconfig)

    def add_project_image(self, name: str, root: Path, dockerfile: str) -> None:
        """Build an image from one of the project's Dockerfiles and bring it to the nodes.

        Args:
            name: with the tag.
            root: of the checkout.
            dockerfile: below the root.
        """
        if shutil.which("docker"):
            command = ["docker", "build", f"--file={root / dockerfile}", f"--tag={name}", str(root)]
            subprocess.run(command, check=True)
        self._load(name)

    def tag_image(self, name: str, other: str) -> None:
        """Give an image another name too, and bring that to the nodes."""
        if shutil.which("docker"):
            subprocess.run(["docker", "tag", name, other], check=True)
        self._load(other)

    def service_address(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """Return where this machine reaches a Service: at a node port of one that is like it."""
        service = self.kubectl.json("get", "service", name, f"--namespace={namespace}")
        node_port = NODE_PORTS[port]
        like_it = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"{name}-test", "namespace": namespace},
            "spec": {
                "type": "NodePort",
                "selector": service["spec"]["selector"],
                "ports": [{"port": port, "nodePort": node_port}],
            },
        }
        self.kubectl.apply(json.dumps(like_it))
        return self.node_address, node_port

    def _load(self, name: str) -> None:
        context = self.kubectl("config", "current-context").strip()
        if context.startswith(_KIND) and shutil.which("kind"):
            into = f"--name={context.removeprefix(_KIND)}"
            subprocess.run(["kind", "load", "docker-image", name, into], check=True)
