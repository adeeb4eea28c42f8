"""Rules of more than one field, in CEL, that the API server itself checks, and what they say.

Rules live on the model whose fields they relate, as `x-kubernetes-validations`; those that need the
resource's name are in `crd.py`'s root. Fields with defaults are there when a resource is checked;
the API server also checks the default `{}` by itself, before it fills it in, hence each `has`.

The API server estimates the cost of a rule by the bounds of its lists and refuses the whole CRD if
it is too high. Tenants that stand in two rings (20 · 1,000 names against as many) are beyond it, so
`manifests/checks.py` finds those, and all that needs more than the resource's fields.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict


@dataclass(frozen=True)
class Rule:
    """An expression that must hold, and what is said where it does not."""

    expression: str
    message: str

    def json(self) -> dict[str, str]:
        """Return the rule as it stands in a schema."""
        return {"rule": self.expression, "message": self.message}


def rules(*of_model: Rule) -> ConfigDict:
    """Return a model's configuration that carries rules into its schema."""
    validations = [rule.json() for rule in of_model]
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": validations})  # type: ignore[dict-item]


RINGS_HOLD_ALL_COPIES = Rule(
    "!has(self.rings) || self.rings.all(r, r.replicas >= self.replicationFactor)",
    "every ring needs at least replicationFactor replicas: raise the ring's replicas, or lower "
    "spec.receive.replicationFactor",
)
CATCH_ALL_IS_LAST = Rule(
    "!has(self.rings) || "
    "self.rings.map(r, size(r.tenants) == 0).indexOf(true) in [-1, size(self.rings) - 1]",
    "a ring without tenants takes every tenant, so rings after it would get none: list its tenants "
    "or make it the last ring",
)
SIZE_ONLY_GROWS = Rule(
    "!has(self.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
    "a volume cannot shrink: leave storage.size, or make a new ring and remove the old one",
)
CLASS_IS_KEPT = Rule(
    "(has(self.className) ? self.className : '') == "
    "(has(oldSelf.className) ? oldSelf.className : '')",
    "the class of existing volumes cannot change: leave storage.className, or make a new ring and "
    "remove the old one",
)
COPIES_ARE_TOLD_APART = Rule(
    "!has(self.receive) || self.receive.replicationFactor == 1 || "
    "'replica' in self.query.replicaLabels",
    "ingestors bear the label `replica`, and queries would count each copy: add it to "
    "spec.query.replicaLabels",
)
DIGEST_HAS_A_VERSION = Rule(
    "!has(self.image) || !has(self.image.digest) || has(self.version)",
    "a digest does not tell what it is: say in spec.version which version the image is of",
)
DIGEST_FOLLOWS_VERSION = Rule(
    "!has(self.version) || !has(oldSelf.version) || self.version == oldSelf.version || "
    "!has(self.image) || !has(self.image.digest) || "
    "!has(oldSelf.image) || !has(oldSelf.image.digest) || "
    "self.image.digest != oldSelf.image.digest",
    "another version with the digest of the former one would change nothing: change "
    "spec.image.digest too, or leave it out",
)
NAME_FITS = Rule(
    "self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$') && size(self.metadata.name) <= 30",
    "the names of Services are made of metadata.name: use at most 30 small letters, digits and "
    "dashes, a letter first",
)
# A pod of a StatefulSet has the label controller-revision-hash, `<name>-<10 characters>`, at most
# 63 characters; a longer name is accepted and its pods are never made.
RING_NAMES_FIT = Rule(
    "self.spec.receive.rings.all(r, size(self.metadata.name) + size(r.name) <= 42)",
    "metadata.name and the name of a ring may have 42 characters together: shorten the ring's name",
)
