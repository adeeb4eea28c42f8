"""YAML as upstream's strict parsers take it.

One document; no key stands twice; a key without a value is a key that is not there.

Unknown keys are refused by whoever knows the known ones; models here forbid them (`StrictModel`).
"""

from __future__ import annotations

from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from thanostack.lib.foundation.errors import SettingsInvalid


class StrictModel(BaseModel):
    """A mapping with known keys; a number is taken where a text is wanted, as Go takes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


M = TypeVar("M", bound=StrictModel)


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that names a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, place: str, model: type[M]) -> M:
    """Return a YAML document as a model; an empty one is a mapping without keys.

    Args:
        text: one document.
        place: setting and file, which error texts begin with.
        model: its keys.

    Raises:
        SettingsInvalid: naming the place and the key.
    """
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, TypeError) as error:
        raise SettingsInvalid(f"{place}: not YAML: {' '.join(str(error).split())}") from error
    try:
        return model.model_validate(_without_nulls({} if document is None else document))
    except ValidationError as error:
        raise SettingsInvalid(f"{place}: {_explain(error)}") from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the document"
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    if first["type"] == "value_error":  # ours
        return f"{key}: {first['msg'].removeprefix('Value error, ')}"
    return f"{key}: {first['msg'][:1].lower()}{first['msg'][1:]}"
