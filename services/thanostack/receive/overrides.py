"""The overrides file: everything that may differ from tenant to tenant, in one place.

    default:                              tenants that are not named, or do not say
      request: {size_bytes_limit, series_limit, samples_limit}
      head_series_limit: 100000           active series in this process
      label_names_limit: 40               labels of a series
      label_name_length_limit: 200        bytes
      label_value_length_limit: 2000      bytes
      retention: 15d
      out_of_order_time_window: 0s
    tenants:
      <tenant>: any of these

What is said of a tenant here goes before what the limits file says of it, that before the defaults
here, those before the limits file's, and the flags come last. 0 is unlimited; a retention of 0d is
for ever.

Every value is effective or refused: out-of-order ingestion is not offered yet, so a window is
refused instead of being ignored.

Source: ours; names as in Thanos's limits file and flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.lib.foundation.strict_yaml import Node, parse_yaml
from thanostack.lib.foundation.units import parse_model_duration
from thanostack.receive.limits_file import Layer, request_layer

_COUNTS: Final = (
    "head_series_limit", "label_names_limit", "label_name_length_limit", "label_value_length_limit",
)  # fmt: skip
_DURATIONS: Final = ("retention", "out_of_order_time_window")
_KNOWN: Final = ("request", *_COUNTS, *_DURATIONS)


@dataclass(frozen=True)
class Overrides:
    """What the file says; `retention` is in ms.

    Args:
        default: of tenants that do not say.
        tenants: by tenant.
    """

    default: Layer = field(default_factory=dict)
    tenants: Mapping[str, Layer] = field(default_factory=dict)


def parse_overrides(data: bytes) -> Overrides:
    """Return the overrides of a file.

    Raises:
        InvalidInput: if it is no such file, or asks for what is not offered; with the line.
    """
    root = parse_yaml(data).fields("overrides", ("default", "tenants"))
    tenants = root["tenants"].entries("tenants") if "tenants" in root else {}
    return Overrides(
        _layer(root["default"]) if "default" in root else {},
        {name: _layer(node) for name, node in tenants.items()},
    )


def _layer(node: Node) -> Layer:
    fields = {n: f for n, f in node.fields("overrides", _KNOWN).items() if not f.is_null}
    layer = request_layer(fields)
    for name in _COUNTS:
        if name in fields:
            layer[name] = fields[name].integer("uint64")
    for name in _DURATIONS:
        if name in fields:
            layer[name] = _duration(fields[name])
    if layer.pop("out_of_order_time_window", 0):
        raise fields["out_of_order_time_window"].error(
            "out_of_order_time_window: out-of-order ingestion is not offered yet: leave it out, or "
            "0s; late samples get 409"
        )
    return layer


def _duration(node: Node) -> int:
    try:
        return parse_model_duration(node.text())
    except InvalidInput as error:
        raise node.error(str(error)) from error
