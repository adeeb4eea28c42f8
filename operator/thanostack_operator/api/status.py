"""`status`: conditions, health of components, rings, and the little that must be remembered.

Everything here but `transitions`, `rings[].epoch`, `hashrings.changedAt` and `inventory` is
recomputed from the cluster each time.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .fields import Model, map_keys

Text = Annotated[str, Field(max_length=4096)]
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]


class Condition(Model):
    """One condition as Kubernetes's conventions have it.

    True is good, but for `Reconciling` and `Stalled`, which `kubectl wait`, Argo CD, Flux read by
    kstatus's rules, and for `Paused`.
    """

    type: Annotated[str, Field(max_length=64)]
    """What is said something about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: Annotated[str, Field(max_length=128)]
    """Why, in one word."""
    message: Text
    """Why, for people, and what to do."""
    last_transition_time: Time
    """When `status` changed."""
    observed_generation: int
    """Generation of the spec that this is about."""


class ComponentStatus(Model):
    """One workload: pods it should have, has ready, has on the new template; and what ails it."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the Deployment or StatefulSet."""
    desired: int
    """Pods that it should have."""
    ready: int
    """Pods that are ready."""
    updated: int
    """Pods made of the newest template."""
    version: Text = ""
    """Tag of its image."""
    message: Text = ""
    """What ails it; empty if nothing does."""


class RingStatus(Model):
    """One hashring as last published."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the ring."""
    epoch: int
    """Rises by one with each change of this ring."""
    members: list[Text]
    """Names of its pods, in numeric order."""
    waiting: Text = ""
    """The next step and what it waits for; empty at rest."""


class HashringsStatus(Model):
    """`hashrings.json` as last published."""

    hash: float
    """What `thanos_receive_config_hash` of each router must be."""
    changed_at: Time
    """When the operator published it."""
    acknowledged: list[Text] = []
    """Router pods that have it."""
    missing: list[Text] = []
    """Router pods that do not, or do not answer."""


class Transition(Model):
    """A step of several loops that was begun, and when: what the cluster itself cannot tell."""

    name: Annotated[str, Field(max_length=128)]
    """Which step."""
    since: Time
    """When it was begun."""


class InventoryItem(Model):
    """An object that was applied, so that it can be pruned by what it is."""

    api_version: Annotated[str, Field(max_length=128)]
    """Its API group and version."""
    kind: Annotated[str, Field(max_length=64)]
    """Its kind."""
    name: Annotated[str, Field(max_length=253)]
    """Its name."""
    uid: Annotated[str, Field(max_length=64)]
    """Its UID, so that a namesake is not taken for it."""


class ThanosStackStatus(Model):
    """The status of a stack."""

    observed_generation: int = 0
    """Generation of the spec that was last acted upon."""
    version: Text = ""
    """Tag of the image that every component runs."""
    ingestors: Text = ""
    """Ready and desired ingestors of all rings, such as 3/3; shown by `kubectl get`."""
    conditions: Annotated[list[Condition], Field(json_schema_extra=map_keys("type"))] = []
    """Ready and others; `kubectl wait --for=condition=Ready` waits for the first."""
    components: Annotated[list[ComponentStatus], Field(json_schema_extra=map_keys("name"))] = []
    """Health of each workload."""
    rings: Annotated[list[RingStatus], Field(json_schema_extra=map_keys("name"))] = []
    """Each hashring as last published."""
    hashrings: HashringsStatus | None = None
    """What the routers must have loaded, and which of them have."""
    transitions: Annotated[list[Transition], Field(json_schema_extra=map_keys("name"))] = []
    """Steps that were begun."""
    inventory: list[InventoryItem] = []
    """Objects that were applied."""
