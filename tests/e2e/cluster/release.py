"""The chart as a release in a cluster, and stacks that its operator runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.cluster import Cluster
from cluster.given import GivenCluster
from cluster.kubectl import Helm, Kubectl
from cluster.operators import Stack
from cluster.programs import HELM
from cluster.project import CHART
from cluster.writes import Querier
from thanostack.testing.go_programs import build

RELEASE = "thanostack"
OPERATOR = "thanostack-operator"
"""Name of the operator's Deployment."""


@dataclass(frozen=True)
class Release:
    """The operator, as the chart installs it.

    Args:
        kubectl: the administrator's, of the cluster that it is in.
        namespace: of the operator.
    """

    kubectl: Kubectl
    namespace: str

    @property
    def helm(self) -> Helm:
        """Return the administrator's helm."""
        return Helm(build(HELM), self.kubectl.kubeconfig)

    def install(self, **values: str) -> None:
        """Install the chart, or upgrade to it, and wait until the operator is ready."""
        given = [f"--set={name}={value}" for name, value in values.items()]
        self.helm(
            "upgrade", "--install", RELEASE, str(CHART), f"--namespace={self.namespace}",
            "--create-namespace", "--wait", "--timeout=3m", *given, timeout_s=200,
        )  # fmt: skip

    def uninstall(self) -> None:
        """Uninstall the chart and wait until it is gone."""
        here = f"--namespace={self.namespace}"
        self.helm("uninstall", RELEASE, here, "--wait", "--timeout=3m", timeout_s=200)

    def operator_pods(self) -> list[Any]:
        """Return the operator's pods."""
        selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
        here = f"--namespace={self.namespace}"
        return list(self.kubectl.json("get", "pods", selector, here)["items"])

    def kill_operator(self) -> None:
        """End the operator without giving it a moment, and let the next one lead at once."""
        here = f"--namespace={self.namespace}"
        names = [f"pod/{pod['metadata']['name']}" for pod in self.operator_pods()]
        if names:
            now = ("--grace-period=0", "--force", "--wait=false", "--ignore-not-found")
            self.kubectl("delete", *names, here, *now)
        self.kubectl(
            "patch", "lease", "thanostack-operator", here, "--type=merge",
            "-p", '{"spec":{"holderIdentity":null}}',
        )  # fmt: skip


def router_address(cluster: Cluster | GivenCluster, stack: Stack) -> tuple[str, int]:
    """Return where this machine reaches a stack's router Service."""
    return cluster.service_address(stack.namespace, f"{stack.name}-receive", 19291)


def querier(cluster: Cluster | GivenCluster, stack: Stack) -> Querier:
    """Return a stack's querier Service, as this machine reaches it."""
    return Querier(cluster.service_address(stack.namespace, f"{stack.name}-query", 10902))
