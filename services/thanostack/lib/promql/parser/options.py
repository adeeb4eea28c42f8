"""Which parts of the language are switched on.

Source: Prometheus 3.14, `promql/parser/parse.go: Options`, and the defaults of `cmd/prometheus`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParserOptions:
    """The feature flags that the parser knows.

    Args:
        enable_experimental_functions: the 17 experimental functions, `limitk`, `limit_ratio`;
            feature `promql-experimental-functions`.
        enable_extended_range_selectors: `anchored` and `smoothed`; feature
            `promql-extended-range-selectors`.
        enable_binop_fill_modifiers: `fill`, `fill_left`, `fill_right`; feature
            `promql-binop-fill-modifiers`.
        enable_duration_expressions: arithmetic in ranges, steps and offsets; stable upstream,
            hence on.
    """

    enable_experimental_functions: bool = False
    enable_extended_range_selectors: bool = False
    enable_binop_fill_modifiers: bool = False
    enable_duration_expressions: bool = True
