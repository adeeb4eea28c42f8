"""Each thing that pydantic says and Kubernetes refuses is said otherwise."""
# ruff: noqa: RUF012 - pydantic copies defaults

from typing import Annotated, Literal

import pytest
from pydantic import Field

from thanostack_operator.api.fields import Amount, Model, Passthrough, Quantity, map_keys
from thanostack_operator.api.rules import Rule, rules
from thanostack_operator.api.schema import structural


class Inner(Model):
    """A part.

    More about it, for readers of the code.
    """

    model_config = rules(Rule("self.size > 0", "say more"))

    size: int = 1
    """How big it is."""


class Everything(Model):
    """All kinds of fields."""

    reference: Inner = Inner()
    optional: Annotated[int, Field(ge=1)] | None = None
    either: int | str = 0
    one: Literal["a"] = "a"
    some: Literal["a", "b"] = "a"
    open_interval: Annotated[float, Field(gt=0, lt=1)] = 0.5
    unique: set[str] = set()
    plain_map: dict[str, str] = {}
    keyed: dict[Annotated[str, Field(pattern="^a$")], int] = {}
    opaque: Passthrough | None = None
    amount: Amount = "1"
    quantity: Quantity = "1"
    items: Annotated[list[Inner], Field(json_schema_extra=map_keys("size"))] = [Inner()]


PROPERTIES = structural(Everything)["properties"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("optional", {"type": "integer", "minimum": 1}),
        ("either", {"x-kubernetes-int-or-string": True, "default": 0}),
        ("one", {"type": "string", "enum": ["a"], "default": "a"}),
        ("some", {"type": "string", "enum": ["a", "b"], "default": "a"}),
        (
            "openInterval",
            {
                "type": "number",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 1,
                "exclusiveMaximum": True,
                "default": 0.5,
            },
        ),
        (
            "unique",
            {
                "type": "array",
                "items": {"type": "string"},
                "x-kubernetes-list-type": "set",
                "default": [],
            },
        ),
        (
            "plainMap",
            {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
        ),
        ("keyed", {"type": "object", "additionalProperties": {"type": "integer"}, "default": {}}),
        ("opaque", {"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
    ],
)
def test_fields_are_structural(name, expected):
    assert expected == PROPERTIES[name]


def test_references_are_written_out_with_their_rules():
    """The description is the docstring's first paragraph; the default leaves the rest to fields."""
    assert PROPERTIES["reference"] == {
        "description": "A part.",
        "type": "object",
        "default": {},
        "properties": {
            "size": {"description": "How big it is. Default: 1.", "type": "integer", "default": 1}
        },
        "x-kubernetes-validations": [{"rule": "self.size > 0", "message": "say more"}],
    }


def test_lists_keep_their_keys_and_short_defaults():
    found = PROPERTIES["items"]
    assert found["x-kubernetes-list-map-keys"] == ["size"]
    assert found["default"] == [{}]
    assert found["items"]["type"] == "object"


def test_a_pattern_becomes_a_rule_that_says_more():
    """A plain pattern would be the whole message; where a number may stand it has to remain."""
    quantity, amount = PROPERTIES["quantity"], PROPERTIES["amount"]
    (rule,) = quantity["x-kubernetes-validations"]
    assert rule["message"].startswith("a size is a number")
    assert rule["rule"].startswith('self.matches(r"^[0-9]+')
    assert "pattern" not in quantity
    assert "pattern" in amount
    assert "type" not in amount


def test_a_status_has_no_defaults():
    assert "default" not in str(structural(Everything, with_defaults=False))


def test_what_cannot_be_said_is_refused():
    class Union(Model):
        """A union that has no structural schema."""

        field: int | list[int] = 0

    with pytest.raises(ValueError, match="unpack"):
        structural(Union)


def test_unknown_keywords_do_not_get_through():
    """The API server refuses a whole definition for one of them."""

    def keys(node):
        yield from node
        for child in (*node.get("properties", {}).values(), node.get("items")):
            if child:
                yield from keys(child)

    known = {
        "type", "description", "properties", "required", "items", "default", "enum", "format",
        "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength",
        "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
        "additionalProperties",
    }  # fmt: skip
    found = {key for key in keys(structural(Everything)) if not key.startswith("x-kubernetes-")}
    assert found - known == set()
