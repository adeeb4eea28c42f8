"""Functions that make labels: label_replace, label_join, sort_by_label.

They look at series, not at samples; text work is done once a distinct value.

Source: Prometheus 3.14 `promql/functions.go`; Go `regexp.Expand`; facette/natsort.
"""

from __future__ import annotations

import functools
import re

import numpy as np
import re2

from thanostack.lib.foundation.errors import ExecutionFailed
from thanostack.lib.model.regex_template import Template
from thanostack.lib.promql.engine.context import QueryContext
from thanostack.lib.promql.engine.labels import METRIC_NAME
from thanostack.lib.promql.engine.matrix import StepMatrix, merge_rows

_CHUNKS = re.compile(r"(\d+|\D+)", re.ASCII)


def label_replace(context: QueryContext, matrix: StepMatrix, texts: tuple[str, ...]) -> StepMatrix:
    """Return the matrix with label dst set from src where the pattern matches all of it.

    Args:
        context: of the query.
        matrix: may be changed.
        texts: dst, replacement, src, pattern.

    Raises:
        ExecutionFailed: for a bad name or pattern, or two series becoming one.
    """
    dst, replacement, src, pattern = texts
    compiled = _compile(pattern)
    if not is_label_name(dst):
        raise ExecutionFailed(f"invalid destination label name in label_replace(): {dst}")
    template = Template(replacement)

    def replaced(value: bytes) -> bytes | None:
        match = compiled.search(value)
        return None if match is None else template.expand(match)

    table = context.table
    values = table.map_values(matrix.ids, src, replaced)
    rows = np.flatnonzero(values != -2)
    matrix.ids[rows] = table.assign(matrix.ids[rows], dst, values[rows])
    if dst == METRIC_NAME:
        matrix.drop[rows] = False
    return merge_rows(matrix)


def is_label_name(name: str) -> bool:
    """Return whether a text can name a label: anything but nothing, in valid UTF-8."""
    return bool(name) and not any(0xD800 <= ord(c) <= 0xDFFF for c in name)


@functools.lru_cache(maxsize=256)
def _compile(pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(f"^(?s:{pattern})$".encode(), options)
    except re2.error as error:
        raise ExecutionFailed(
            f"invalid regular expression in label_replace(): {pattern}"
        ) from error


def label_join(context: QueryContext, matrix: StepMatrix, texts: tuple[str, ...]) -> StepMatrix:
    """Return the matrix with label dst set to the values of the sources, joined.

    Args:
        context: of the query.
        matrix: may be changed.
        texts: dst, separator, sources.

    Raises:
        ExecutionFailed: for a bad name, or two series becoming one.
    """
    dst, separator, *sources = texts
    for source in sources:
        if not is_label_name(source):
            raise ExecutionFailed(f"invalid source label name in label_join(): {source}")
    if not is_label_name(dst):
        raise ExecutionFailed(f"invalid destination label name in label_join(): {dst}")
    table = context.table
    columns = [table.value_texts(matrix.ids, source) for source in sources]
    rows = zip(*columns, strict=True) if columns else ((),) * len(matrix)
    joined = [separator.join(row) for row in rows]
    values = table.symbols(text.encode(errors="surrogateescape") for text in joined)
    values[[not text for text in joined]] = -1
    matrix.ids = table.assign(matrix.ids, dst, values)
    if dst == METRIC_NAME:
        matrix.drop[:] = False
    return merge_rows(matrix)


def sort_by_label(
    context: QueryContext, matrix: StepMatrix, names: tuple[str, ...], *, descending: bool
) -> StepMatrix:
    """Return the rows in the natural order of label values, then of whole label sets."""
    order = context.table.order(matrix.ids)
    columns = [context.table.value_texts(matrix.ids, name) for name in names]
    rows = [tuple(column[i] for column in columns) for i in order.tolist()]
    key = functools.cmp_to_key(_compare)
    positions = sorted(range(len(rows)), key=lambda i: key(rows[i]))
    ranked = order[np.array(positions, np.int64)]
    return matrix.rows(ranked[::-1] if descending else ranked)


def _compare(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    for x, y in zip(a, b, strict=True):
        if x != y:
            return -1 if _natural_less(x, y) else 1
    return 0


def _natural_less(a: str, b: str) -> bool:
    """Return whether a sorts before b, runs of digits as numbers.

    Upstream: of two texts that are equal up to zeros before numbers, the one that ends first sorts
    first, and with equal ends the first argument does.
    """
    x, y = _CHUNKS.findall(a), _CHUNKS.findall(b)
    for i, left in enumerate(x):
        if i >= len(y):
            return False
        right = y[i]
        first, second = _integer(left), _integer(right)
        if first is not None and second is not None and first != second:
            return first < second
        if left == right or (first is not None and second is not None):
            if i in {len(x) - 1, len(y) - 1}:
                return i == len(x) - 1
            continue
        return bool(left < right)
    return len(x) < len(y)


def _integer(chunk: str) -> int | None:
    return int(chunk) if chunk.isdigit() and len(chunk) < 19 else None
