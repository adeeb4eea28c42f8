"""The addresses and names of one cluster on this machine: index N has 10.(200+N).0.0/16.

this machine  .0.1 ──veth── .0.2 node ──bridge── .128.1 │ pods .128.2 and up
                                      services .64.0/20, first the API server, tenth DNS
"""

from __future__ import annotations

from dataclasses import dataclass

N_CLUSTERS = 50


@dataclass(frozen=True)
class Addresses:
    """What a cluster is known by.

    Args:
        index: 0 to 49; clusters of different index do not meet.
    """

    index: int

    @property
    def _prefix(self) -> str:
        return f"10.{200 + self.index}"

    @property
    def host(self) -> str:
        """Return this machine's address on the way to the node."""
        return f"{self._prefix}.0.1"

    @property
    def node(self) -> str:
        """Return the node's address."""
        return f"{self._prefix}.0.2"

    @property
    def services(self) -> str:
        """Return the network of cluster addresses."""
        return f"{self._prefix}.64.0/20"

    @property
    def dns(self) -> str:
        """Return the cluster address of DNS."""
        return f"{self._prefix}.64.10"

    @property
    def pods(self) -> str:
        """Return the network of pods."""
        return f"{self._prefix}.128.0/24"

    @property
    def pod_gateway(self) -> str:
        """Return the address of the bridge that pods are connected to."""
        return f"{self._prefix}.128.1"

    @property
    def node_name(self) -> str:
        """Return the node's name."""
        return f"node-{self.index}"

    @property
    def interface(self) -> str:
        """Return the name of this machine's end of the wire to the node."""
        return f"tstk{self.index}"

    @property
    def cgroup(self) -> str:
        """Return the cgroup that node and pods are in, of every hierarchy."""
        return f"thanostack-cluster-{self.index}"
