"""A query that cannot look at other series than a matcher allows.

    sum(up{tenant_id="b"}) ──enforce tenant_id="a"──> sum(up{tenant_id="a"})

The matcher goes into every selector and replaces whatever the selector says about that label, as
upstream's does. Unlike there, the parameter of an aggregation is no exception: there,
`topk(scalar(x), y)` looks at every tenant's `x`.

The answer is text and not a tree, so that whatever is said about the query by position means the
same as upstream.

Source: prom-label-proxy v0.11.1 `injectproxy/enforce.go`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from thanostack.lib.model.matchers import Matcher
from thanostack.lib.promql.ast import Expr, VectorSelector
from thanostack.lib.promql.parser.options import ParserOptions
from thanostack.lib.promql.parser.parser import parse_expr
from thanostack.lib.promql.parser.printer import format_expr


def enforce_query(text: str, matcher: Matcher, options: ParserOptions) -> str:
    """Return a query with a matcher in each of its selectors.

    Raises:
        ParseError: if the query does not parse.

    Example:
        >>> from thanostack.lib.model.matchers import MatchType
        >>> enforce_query("up + 1", Matcher(MatchType.EQ, "t", "a"), ParserOptions())
        'up{t="a"} + 1'
    """
    return format_expr(_enforced(parse_expr(text, options), matcher))


def enforce_matchers(matchers: tuple[Matcher, ...], matcher: Matcher) -> tuple[Matcher, ...]:
    """Return a selector's matchers with one that replaces any on the same label."""
    return (*(own for own in matchers if own.name != matcher.name), matcher)


def _enforced(node: Expr, matcher: Matcher) -> Expr:
    if isinstance(node, VectorSelector):
        return dataclasses.replace(node, matchers=enforce_matchers(node.matchers, matcher))
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if isinstance(value, Expr):
            changes[field.name] = _enforced(value, matcher)
        elif isinstance(value, tuple) and value and isinstance(value[0], Expr):
            changes[field.name] = tuple(_enforced(item, matcher) for item in value)
    return dataclasses.replace(node, **changes) if changes else node
