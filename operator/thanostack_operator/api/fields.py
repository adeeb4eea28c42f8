"""Kinds of fields that several models share: bounded strings and the base of all models.

A bound is part of the contract: the API server refuses rules over unbounded lists, and a name that
fits no label would fail long after it was accepted. Patterns are RE2's as well as Python's, without
look-around, since the API server checks them too.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """A part of the resource: camelCase outside, frozen, unknown fields refused.

    The docstring under a field is what `kubectl explain` says about it.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )


def map_keys(*keys: str) -> dict[str, Any]:
    """Return the schema's words for a list whose items are told apart by these fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


# Of a list whose items stand once each.
SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}

# Pattern → what a text of it looks like.
SAYS: dict[str, str] = {}


def text_like(pattern: str, says: str, max_length: int, min_length: int | None = None) -> Any:
    """Return the kind of texts that match a pattern; one that does not is answered by ``says``.

    A pattern alone would be answered by itself, which is hard to read, so that the schema has a
    rule in its place.
    """
    SAYS[pattern] = says
    return Field(
        pattern=pattern,
        min_length=min_length,
        max_length=max_length,
        json_schema_extra={"x-says": says},
    )


# A ring's name becomes part of `<stack>-ingestor-<ring>-<ordinal>`, a DNS label of at most 63.
RingName = Annotated[
    str,
    text_like(
        r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        "a ring's name has small letters, digits and dashes between them",
        20,
    ),
]
ObjectName = Annotated[
    str,
    text_like(
        r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        "the name of an object has small letters, digits, and dashes and dots between them",
        253,
    ),
]
LabelName = Annotated[
    str,
    text_like(
        r"^[a-zA-Z_][a-zA-Z0-9_]*$",
        "the name of a label has letters, digits and underscores, no digit first",
        128,
    ),
]
HeaderName = Annotated[
    str,
    text_like(
        r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
        "the name of a header has letters, digits and dashes, such as X-Scope-OrgID",
        128,
    ),
]
Tenant = Annotated[
    str,
    text_like(
        r"^[^/]+$", "a tenant is also the name of a folder: at least a letter, and no slash", 150
    ),
]
# Prometheus's durations: one or more of "<number><unit>", largest unit first; "0" is none.
Duration = Annotated[
    str,
    text_like(
        r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
        "a duration is whole numbers with units from y, w, d, h, m, s, ms, the largest first, such "
        "as 15d or 1h30m",
        32,
        1,
    ),
]
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
Quantity = Annotated[
    str, text_like(_QUANTITY, "a size is a number with a unit of Kubernetes, such as 10Gi", 32)
]
# `cpu: 2` is an integer in YAML.
Amount = Annotated[
    str,
    Field(
        pattern=_QUANTITY,
        max_length=32,
        json_schema_extra={"x-kubernetes-int-or-string": True},
    ),
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
]
ShortText = Annotated[str, Field(max_length=1024)]
# What Kubernetes defines and checks itself is passed on as it is: kept by the API server unread.
Passthrough = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
]
