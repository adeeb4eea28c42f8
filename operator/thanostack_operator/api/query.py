"""`spec.query`: queriers over every ring of the stack and over further StoreAPIs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .fields import SET, Duration, LabelName, Model, map_keys, text_like
from .pod import PodSettings
from .receive import ServiceSettings


class Endpoint(Model):
    """A StoreAPI outside the stack."""

    address: Annotated[
        str,
        text_like(
            r"^[A-Za-z0-9+_.:\[\]-]+$",
            "an address is host:port, or a name after dns+ or dnssrv+; StoreAPI has no scheme",
            512,
        ),
    ]
    """Its address as `--endpoint` takes it: `host:port`, `dns+host:port`, `dnssrv+name`."""


class Query(PodSettings):
    """The queriers: stateless, any number."""

    replicas: Annotated[int, Field(ge=1, le=100)] = 2
    """Number of queriers."""
    replica_labels: Annotated[list[LabelName], Field(max_length=16, json_schema_extra=SET)] = [
        "replica"
    ]
    """Labels that tell copies apart; deduplication removes them. Ingestors bear `replica`."""
    enforce_tenancy: bool = True
    """Answer only with series of the tenant that the request's header names."""
    timeout: Duration = "2m"
    """Longest time a query may take."""
    max_concurrent: Annotated[int, Field(ge=1, le=10000)] = 20
    """Queries that each querier evaluates at once."""
    lookback_delta: Duration = "5m"
    """How far a selector looks back for a sample."""
    partial_response: bool = True
    """Answer with a warning, instead of an error, when an endpoint fails."""
    endpoints: Annotated[
        list[Endpoint], Field(max_length=100, json_schema_extra=map_keys("address"))
    ] = []
    """Further StoreAPIs, such as sidecars or another stack's ingestors."""
    service: ServiceSettings = ServiceSettings()
    """The Service that is queried, port 10902, and 10901 for StoreAPI."""
