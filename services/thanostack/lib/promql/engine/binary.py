"""Operators between instant vectors.

    signature   of a series: the labels that both sides are matched by
    one side    at most one series a signature and step; the other side is the many side

Pairs of rows are found once from signatures; steps only decide which pairs are there. A fill value
stands as one more row a signature, present wherever the real side is not.

Source: Prometheus 3.14 `promql/engine.go` (`VectorBinop`, `VectorAnd`…, `resultMetric`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thanostack.lib.foundation.errors import ExecutionFailed
from thanostack.lib.kernels import promql_rows as kernels
from thanostack.lib.model.label_runs import BoolArray, Int64Array
from thanostack.lib.promql.ast import BinaryExpr, Cardinality, VectorMatching
from thanostack.lib.promql.engine.annotations import incompatible_types
from thanostack.lib.promql.engine.context import QueryContext
from thanostack.lib.promql.engine.labels import (
    METADATA_LABELS,
    METRIC_NAME,
    group_numbers,
    members_by_group,
)
from thanostack.lib.promql.engine.matrix import StepMatrix, merge_rows, stacked
from thanostack.lib.promql.engine.row_functions import (
    OPERATORS,
    SCHEMA_CHANGING,
    SET_OPERATORS,
    TRIM_OPERATORS,
)


def combine_vectors(
    context: QueryContext, node: BinaryExpr, left: StepMatrix, right: StepMatrix
) -> StepMatrix:
    """Return `left op right` at every step.

    Raises:
        ExecutionFailed: when series cannot be matched as the query says.
    """
    matching = node.matching or VectorMatching()
    signatures = _Signatures.of(context, matching, left, right)
    if node.op in SET_OPERATORS:
        return _combine_sets(node.op, left, right, signatures)
    if node.op in TRIM_OPERATORS:
        if len(left) and len(right):
            context.annotations.add(incompatible_types("float", node.op, "float"), node.position)
        return StepMatrix.empty(left.values.shape[1])
    return _Matcher(context, node, matching, signatures).combine(left, right)


@dataclass(slots=True)
class _Signatures:
    """The signature number of every row, and the label set of every signature."""

    left: Int64Array
    right: Int64Array
    ids: Int64Array

    @staticmethod
    def of(
        context: QueryContext, matching: VectorMatching, left: StepMatrix, right: StepMatrix
    ) -> _Signatures:
        both = np.concatenate([left.ids, right.ids])
        if matching.on:
            projected = context.table.keep(both, matching.labels)
        else:
            projected = context.table.without(both, (METRIC_NAME, *matching.labels))
        numbers, ids = group_numbers(projected)
        return _Signatures(numbers[: len(left)], numbers[len(left) :], ids)

    def presence(self, matrix: StepMatrix, numbers: Int64Array) -> BoolArray:
        """Return bool[signatures, steps]: where some row of a signature is present."""
        out = np.zeros((len(self.ids), matrix.values.shape[1]), np.bool_)
        kernels.mark_groups(matrix.present, numbers, out)
        return out


def _combine_sets(
    op: str, left: StepMatrix, right: StepMatrix, signatures: _Signatures
) -> StepMatrix:
    if op == "or":
        taken = signatures.presence(left, signatures.left)
        return merge_rows(stacked(left, right.masked(~taken[signatures.right])))
    there = signatures.presence(right, signatures.right)[signatures.left]
    return left.masked(there if op == "and" else ~there)


def _first_clash(
    present: BoolArray, groups: Int64Array, wanted: BoolArray
) -> tuple[int, int] | None:
    """Return (row, step) of the first value whose group has one already, at a wanted step."""
    numbers, unique = group_numbers(groups)
    if len(unique) == len(groups):
        return None
    seen = np.zeros((len(unique), present.shape[1]), np.bool_)
    found = kernels.first_clash(present, numbers, wanted[np.newaxis, :], seen)
    return None if found < 0 else divmod(int(found), present.shape[1])


@dataclass(slots=True)
class _Matcher:
    """One arithmetic or comparison operator with its matching."""

    context: QueryContext
    node: BinaryExpr
    matching: VectorMatching
    signatures: _Signatures

    def combine(self, left: StepMatrix, right: StepMatrix) -> StepMatrix:
        """Return the result for each matched pair, one row a label set."""
        swapped = self.matching.card is Cardinality.ONE_TO_MANY
        many, one = (right, left) if swapped else (left, right)
        many_signs, one_signs = self.signatures.left, self.signatures.right
        if swapped:
            many_signs, one_signs = one_signs, many_signs
        active = self._active(many, one)
        self._refuse_many_to_many(one, one_signs, active)
        many_there = self.signatures.presence(many, many_signs)
        one_there = self.signatures.presence(one, one_signs)
        # Upstream: after swapping sides the fill for a missing "one" is still `fill_right`.
        many, many_signs = self._filled(
            many, many_signs, one_there & ~many_there, self.matching.fill_left
        )
        one, one_signs = self._filled(
            one, one_signs, many_there & ~one_there, self.matching.fill_right
        )
        manys, ones = _pairs(many_signs, one_signs, len(self.signatures.ids))
        ids = self._result_ids(many.ids[manys], one.ids[ones])
        self._refuse_ambiguity(many.present[manys] & one.present[ones], many_signs[manys], ids)
        lefts, rights = (ones, manys) if swapped else (manys, ones)
        first, second = (one, many) if swapped else (many, one)
        return merge_rows(self._operate(first, lefts, second, rights, ids))

    def _active(self, many: StepMatrix, one: StepMatrix) -> BoolArray:
        """Return the steps at which anything can match at all."""
        some_many, some_one = many.present.any(axis=0), one.present.any(axis=0)
        if self.matching.fill_left is None and self.matching.fill_right is None:
            return np.asarray(some_many & some_one)
        return np.asarray(some_many | some_one)

    def _refuse_many_to_many(self, one: StepMatrix, signs: Int64Array, active: BoolArray) -> None:
        clash = _first_clash(one.present, signs, active)
        if clash is None:
            return
        row, step = clash
        twin = int(np.flatnonzero((signs == signs[row]) & one.present[:, step])[0])
        describe = self.context.table.describe
        side = "left" if self.matching.card is Cardinality.ONE_TO_MANY else "right"
        group = describe(int(self.signatures.ids[signs[row]]))
        raise ExecutionFailed(
            f"found duplicate series for the match group {group} on the {side} hand-side of the "
            f"operation: [{describe(int(one.ids[row]))}, {describe(int(one.ids[twin]))}]"
            ";many-to-many matching not allowed: matching labels must be unique on one side"
        )

    def _filled(
        self, matrix: StepMatrix, signs: Int64Array, missing: BoolArray, fill: float | None
    ) -> tuple[StepMatrix, Int64Array]:
        """Return a side with one more row for each signature that it lacks somewhere."""
        numbers = np.flatnonzero(missing.any(axis=1))
        if fill is None or not len(numbers):
            return matrix, signs
        extra = StepMatrix.of(self.signatures.ids[numbers], missing.shape[1])
        extra.present = missing[numbers]
        extra.values[extra.present] = fill
        return stacked(matrix, extra), np.concatenate([signs, numbers])

    def _result_ids(self, ids: Int64Array, others: Int64Array) -> Int64Array:
        table = self.context.table
        now = not self.context.options.delayed_name_removal
        if self.node.op in SCHEMA_CHANGING or (self.node.return_bool and now):
            ids = table.without(ids, METADATA_LABELS)
        if self.matching.card is Cardinality.ONE_TO_ONE:
            labels = self.matching.labels
            ids = table.keep(ids, labels) if self.matching.on else table.without(ids, labels)
        for name in self.matching.include:
            ids = table.assign(ids, name, table.values(others, name))
        return ids

    def _refuse_ambiguity(self, present: BoolArray, signs: Int64Array, ids: Int64Array) -> None:
        always = np.ones(present.shape[1], np.bool_)
        if self.matching.card is Cardinality.ONE_TO_ONE:
            if _first_clash(present, signs, always) is not None:
                raise ExecutionFailed(
                    "multiple matches for labels: many-to-one matching must be explicit "
                    "(group_left/group_right)"
                )
            return
        both = signs << np.int64(32) | ids
        if _first_clash(present, both, always) is not None:
            raise ExecutionFailed(
                "multiple matches for labels: grouping labels must ensure unique matches"
            )

    def _operate(
        self,
        left: StepMatrix,
        lefts: Int64Array,
        right: StepMatrix,
        rights: Int64Array,
        ids: Int64Array,
    ) -> StepMatrix:
        result = StepMatrix.of(ids, left.values.shape[1])
        result.drop[:] = self.node.return_bool and self.context.options.delayed_name_removal
        op = OPERATORS[self.node.op] + (kernels.AS_BOOL if self.node.return_bool else 0)
        for first in range(0, len(ids), 256):
            self.context.deadline.check()
            part = slice(first, first + 256)
            kernels.combine_rows(
                left.values, left.present, right.values, right.present,
                lefts[part], rights[part], op, result.values[part], result.present[part],
            )  # fmt: skip
        return result.compact()


def _pairs(many: Int64Array, one: Int64Array, n: int) -> tuple[Int64Array, Int64Array]:
    """Return all pairs of rows with equal signatures, in the order of the many side."""
    rows, bounds = members_by_group(one, n)
    counts = bounds[many + 1] - bounds[many]
    manys = np.repeat(np.arange(len(many), dtype=np.int64), counts)
    starts = np.repeat(bounds[many] - (np.cumsum(counts) - counts), counts)
    return manys, rows[starts + np.arange(len(manys))]
