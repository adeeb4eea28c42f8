"""A pydantic model → the structural schema that the API server takes.

What pydantic says and Kubernetes refuses is said otherwise, or left to pydantic, which reads the
resource once more:

| pydantic | here |
|---|---|
| `$ref`, `$defs` | written out in place |
| `title` | dropped |
| `anyOf: [X, null]`, default null | X |
| `anyOf` of integer and string | `x-kubernetes-int-or-string: true` |
| `const: v` | `enum: [v]` |
| `exclusiveMinimum: n` | `minimum: n`, `exclusiveMinimum: true`; the same for maxima |
| `uniqueItems: true` | `x-kubernetes-list-type: set` |
| `additionalProperties: false` | dropped: unknown fields are pruned, and refused by kubectl |
| `propertyNames`, `patternProperties` | `additionalProperties`: pydantic checks the keys of maps |
| `pattern` of `fields.text_like` | a rule that says what the text looks like |
| `default` of an object | `{}`: each field has its own default, the API server fills them in |

Descriptions are first paragraphs, and the default, which `kubectl explain` does not show.
Recursion, tuples and unions of other kinds are not in our models and are refused here.

Source: Kubernetes, `apiextensions-apiserver`, structural schemas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

# Kept word for word; everything else has a meaning that is said otherwise, or is dropped.
_KEPT = frozenset({
    "type", "enum", "format", "pattern", "required",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
    "minProperties", "maxProperties",
})  # fmt: skip
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


def structural(model: type[BaseModel], *, with_defaults: bool = True) -> Schema:
    """Return a model's structural schema.

    Args:
        model: its fields' aliases are the names.
        with_defaults: whether the API server fills in defaults; it must not in a status.

    Raises:
        ValueError: for what a structural schema cannot say.
    """
    whole = model.model_json_schema(by_alias=True)
    return _Writer(whole.get("$defs", {}), with_defaults=with_defaults).node(whole)


class _Writer:
    """Writes nodes out, given what `$ref` refers to."""

    def __init__(self, defs: Mapping[str, Schema], *, with_defaults: bool) -> None:
        self._defs, self._with_defaults = defs, with_defaults

    def node(self, node: Schema) -> Schema:
        """Return a node in Kubernetes's words."""
        node = self._resolved(node)
        written: Schema = {}
        if "description" in node:
            written["description"] = first_paragraph(node["description"])
        written |= {
            key: value
            for key, value in node.items()
            if key in _KEPT or key.startswith("x-kubernetes-")
        }
        for key in _EXCLUSIVE.keys() & node.keys():
            written |= {_EXCLUSIVE[key]: node[key], key: True}
        if "const" in node:
            written["enum"] = [node["const"]]
        if node.get("uniqueItems"):
            written["x-kubernetes-list-type"] = "set"
        if self._with_defaults and node.get("default") is not None:
            written["default"] = self._default(node)
            if "description" in written and not isinstance(written["default"], dict | list):
                written["description"] += f" Default: {json.dumps(written['default'])}."
        if "x-says" in node:
            pattern = written.pop("pattern")
            rule = {"rule": f'self.matches(r"{pattern}")', "message": node["x-says"]}
            written["x-kubernetes-validations"] = [rule]
        if node.get("x-kubernetes-int-or-string"):
            written.pop("type", None)
        elif "type" not in written:
            raise ValueError(f"a structural schema cannot say {node}")
        return written | self._inner(node)

    def _inner(self, node: Schema) -> Schema:
        """Return what a node says of its fields, values or items."""
        inner: Schema = {}
        if "properties" in node:
            fields = node["properties"].items()
            inner["properties"] = {name: self.node(field) for name, field in fields}
        if "items" in node:
            inner["items"] = self.node(node["items"])
        values = node.get("additionalProperties")
        if "patternProperties" in node:  # keys of a pattern, which pydantic checks
            (values,) = node["patternProperties"].values()
        if isinstance(values, dict):
            inner["additionalProperties"] = self.node(values)
        return inner

    def _resolved(self, node: Schema) -> Schema:
        """Return a node without references, and without the unions that have another name."""
        if "$ref" in node:
            there = self._defs[node["$ref"].rpartition("/")[2]]
            node = there | {key: value for key, value in node.items() if key != "$ref"}
        kinds = node.get("anyOf")
        if kinds is None:
            return node
        rest = {key: value for key, value in node.items() if key != "anyOf"}
        if sorted(kind.get("type", "") for kind in kinds) == ["integer", "string"]:
            return rest | {"x-kubernetes-int-or-string": True}
        (kind,) = (kind for kind in kinds if kind.get("type") != "null")
        return self._resolved(self._resolved(kind) | rest)

    def _default(self, node: Schema) -> Any:
        """Return a default without what the API server fills in by the defaults further down."""
        value = node["default"]
        if isinstance(value, dict):
            return {} if "properties" in node else value
        if isinstance(value, list) and "$ref" in node["items"]:
            required = self._resolved(node["items"]).get("required", ())
            return [{name: item[name] for name in required} for item in value]
        return value


def first_paragraph(text: str) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join(text.partition("\n\n")[0].split())
