"""A resource as the API server gives it → a `ThanosStack`, or what is wrong with it.

The API server has checked most of it by the schema; a stored resource may be older than that, and
some things, such as the keys of maps, only the models check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .fields import SAYS
from .stack import DEFAULT_REPOSITORY, ThanosStack, ThanosStackSpec

_FEW = 10  # of some 300 characters each; a condition's message has at most 4,096


class SpecInvalid(Exception):
    """Raised for a spec that the models refuse.

    Attributes:
        problems: a sentence each, with the path of the field.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_stack(resource: Mapping[str, Any], *, repository: str = DEFAULT_REPOSITORY) -> ThanosStack:
    """Return a resource with its spec parsed.

    Args:
        resource: the whole of it.
        repository: of the image, where the spec names none.

    Raises:
        SpecInvalid: if it does not parse.
    """
    metadata = resource["metadata"]
    try:
        spec = ThanosStackSpec.model_validate(resource.get("spec") or {}, by_name=False)
    except ValidationError as error:
        raise SpecInvalid(few(map(_sentence, error.errors()))) from error
    return ThanosStack(
        name=metadata["name"],
        namespace=metadata.get("namespace", "default"),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        spec=spec,
        repository=spec.image.repository or repository,
        deleting="deletionTimestamp" in metadata,
        finalizers=tuple(metadata.get("finalizers", ())),
        resource_version=metadata.get("resourceVersion", ""),
        status=resource.get("status"),
    )


def few(problems: Iterable[str]) -> tuple[str, ...]:
    """Return so many different problems as a condition's message holds, and how many more."""
    found = list(dict.fromkeys(problems))
    more = [f"and {len(found) - _FEW} more"] if len(found) > _FEW else []
    return (*found[:_FEW], *more)


def _sentence(error: ErrorDetails) -> str:
    path = "spec"
    for step in error["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    if error["type"] == "extra_forbidden":
        return f"{path}: there is no such field"
    message = error["msg"]
    if error["type"] == "string_pattern_mismatch":
        message = SAYS.get(error["ctx"]["pattern"], message)
    return f"{path}: {message[:1].lower()}{message[1:]}"
