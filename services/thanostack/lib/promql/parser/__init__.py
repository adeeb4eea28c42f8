"""PromQL text to tree and back, with Prometheus 3.14's grammar, error texts and positions.

    text ── lexer ──> tokens ── parser ──> tree ── type_check ──> tree the engine may trust
                                            └── printer, pretty_printer ──> text

    parser      operators, calls, aggregations;  selectors, matching, postfixes, durations: the rest
    cursor      the token under the finger, and which words an unexpected one gets
    numerals, quoting, regexes, tokens, functions    the vocabulary
    tree        types and traversal
    enforcement a matcher that every selector must have

Every failure is one `ParseError`. Trees are bounded in nesting and height, so readers may recurse.
The notation for series in tests and unit-test files is not part of it.
"""

from thanostack.lib.promql.parser.enforcement import enforce_matchers, enforce_query
from thanostack.lib.promql.parser.functions import FUNCTIONS
from thanostack.lib.promql.parser.options import ParserOptions
from thanostack.lib.promql.parser.parser import parse_expr, parse_metric_selector
from thanostack.lib.promql.parser.pretty_printer import prettify_expr
from thanostack.lib.promql.parser.printer import format_expr, format_matcher
from thanostack.lib.promql.parser.tree import children, expr_type, walk
from thanostack.lib.promql.parser.type_check import documented

__all__ = [
    "FUNCTIONS",
    "ParserOptions",
    "children",
    "documented",
    "enforce_matchers",
    "enforce_query",
    "expr_type",
    "format_expr",
    "format_matcher",
    "parse_expr",
    "parse_metric_selector",
    "prettify_expr",
    "walk",
]
