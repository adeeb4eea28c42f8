"""What endpoints serve beside the StoreAPI: rules, alerts, targets, metadata, exemplars.

A querier does not pass these on yet. Where no endpoint has one, there is nothing to pass on and
the answer is what Thanos says then; it is what Grafana asks for as soon as it has a data source.
Where one has it, "nothing" would be wrong, and the answer is an error.

An endpoint that never answered counts as one that has none, as it does in Thanos.

Source: Thanos `pkg/api/query/v1.go`, `pkg/info/infopb/rpc.proto`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from thanostack.lib.storeapi.info import EndpointInfo


@dataclass(frozen=True, slots=True)
class EndpointAPI:
    """One of these APIs.

    Args:
        marker: how endpoints announce it, as in `EndpointInfo.apis`.
        nothing: the answer's data where there is none.
        methods: it is asked by.
    """

    marker: str
    nothing: object
    methods: tuple[str, ...] = ("GET",)

    def count(self, endpoints: Iterable[EndpointInfo]) -> int:
        """Return how many endpoints have it."""
        return sum(self.marker in info.apis for info in endpoints)


# Upstream: without an alert `alerts` is null there, and [] in Prometheus, which clients expect.
ENDPOINT_APIS: Final[Mapping[str, EndpointAPI]] = {
    "rules": EndpointAPI("rules", {"groups": []}),
    "alerts": EndpointAPI("rules", {"alerts": []}),
    "targets": EndpointAPI("targets", {"activeTargets": [], "droppedTargets": []}),
    "metadata": EndpointAPI("metric_metadata", {}),
    "query_exemplars": EndpointAPI("exemplars", [], ("GET", "POST")),
}
