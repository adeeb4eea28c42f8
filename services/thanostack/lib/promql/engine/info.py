"""`info(v, selector)`: adds the data labels of info metrics to the series that they describe.

An info series belongs to a base series when both have the same `instance` and `job`. Per step and
info metric the one with the newest sample counts. Labels of the base series are never overwritten.

Source: Prometheus 3.14 `promql/info.go`.
"""

from __future__ import annotations

import numpy as np

from thanostack.lib.foundation.errors import ExecutionFailed
from thanostack.lib.model.label_runs import BoolArray, Int64Array
from thanostack.lib.model.matchers import Matcher
from thanostack.lib.promql.ast import VectorSelector
from thanostack.lib.promql.engine.context import QueryContext
from thanostack.lib.promql.engine.labels import METRIC_NAME
from thanostack.lib.promql.engine.matrix import StepMatrix, merge_rows

_IDENTIFYING = ("instance", "job")


def add_info(
    context: QueryContext, base: StepMatrix, found: StepMatrix, selector: VectorSelector
) -> StepMatrix:
    """Return the base series with the data labels that info series have for them.

    Args:
        context: of the query.
        base: what is described.
        found: candidates for info series; values are the times of their samples.
        selector: of the info series, completed by `plan.prepare`.

    Raises:
        ExecutionFailed: when two info series contradict each other.
    """
    names = [m for m in selector.matchers if m.name == METRIC_NAME]
    data = [m for m in selector.matchers if m.name != METRIC_NAME]
    texts = context.table.value_texts(base.ids, METRIC_NAME)
    is_info = np.array([all(m.matches(t.encode()) for m in names) for t in texts], np.bool_)
    found = found.rows(_describing(context, base.ids[~is_info], found.ids))
    combined = _Combination(context, base, found, data)
    rows: list[StepMatrix] = []
    for i in range(len(base)):
        rows += [base.rows(np.array([i]))] if is_info[i] else combined.row(i)
    if not rows:
        return StepMatrix.empty(base.values.shape[1])
    result = StepMatrix(
        np.concatenate([row.ids for row in rows]),
        np.concatenate([row.values for row in rows]),
        np.concatenate([row.present for row in rows]),
        np.zeros(len(rows), np.bool_),
    )
    return merge_rows(result.compact())


def _describing(context: QueryContext, base: Int64Array, info: Int64Array) -> BoolArray:
    """Return which info series share the identifying labels that base series have."""
    keep = np.ones(len(info), np.bool_)
    known = False
    for name in _IDENTIFYING:
        values = np.unique(context.table.values(base, name))
        values = values[values >= 0]
        if len(values):
            known = True
            keep &= np.isin(context.table.values(info, name), values)
    return keep if known else np.zeros(len(info), np.bool_)


class _Combination:
    """Base series and the info rows that count for each of them at every step."""

    def __init__(
        self, context: QueryContext, base: StepMatrix, info: StepMatrix, data: list[Matcher]
    ) -> None:
        self.context, self.base, self.info, self.data = context, base, info, data
        self.names = context.table.values(info.ids, METRIC_NAME)
        self.info_signs = context.table.keep(info.ids, _IDENTIFYING)
        self.base_signs = context.table.keep(base.ids, _IDENTIFYING)
        keys = sorted(set(zip(self.names.tolist(), self.info_signs.tolist(), strict=True)))
        self.chosen = {key: self._newest(*key) for key in keys}

    def _newest(self, name: int, sign: int) -> Int64Array:
        """Return the info row that counts at each step, -1 for none."""
        rows = np.flatnonzero((self.names == name) & (self.info_signs == sign))
        steps = self.info.values.shape[1]
        chosen = np.full(steps, -1, np.int64)
        best = np.full(steps, -np.inf)
        for row in rows.tolist():
            there = self.info.present[row]
            times = np.where(there, self.info.values[row], -np.inf)
            twins = there & (times == best)
            if twins.any():
                self._refuse_twins(int(chosen[twins][0]), row, float(times[twins][0]))
            newer = times > best
            chosen[newer], best[newer] = row, times[newer]
        return chosen

    def _refuse_twins(self, old: int, new: int, time_s: float) -> None:
        describe = self.context.table.describe
        at = round(time_s * 1000)
        raise ExecutionFailed(
            f"found duplicate series for info metric: existing {describe(int(self.info.ids[old]))} "
            f"@ {at}, new {describe(int(self.info.ids[new]))} @ {at}"
        )

    def row(self, i: int) -> list[StepMatrix]:
        """Return one base series as one row for each label set that it takes on."""
        sign = int(self.base_signs[i])
        columns = [chosen for (_, s), chosen in self.chosen.items() if s == sign]
        there = self.base.present[i]
        if not columns:
            return self._part(i, (), there)
        parts = []
        stacked = np.stack(columns)
        for combination in np.unique(stacked[:, there], axis=1).T:
            steps = there & (stacked == combination[:, np.newaxis]).all(axis=0)
            parts += self._part(i, tuple(row for row in combination.tolist() if row >= 0), steps)
        return parts

    def _part(self, i: int, infos: tuple[int, ...], steps: BoolArray) -> list[StepMatrix]:
        if not infos and not all(m.matches_empty for m in self.data):
            return []
        part = self.base.rows(np.array([i]))
        part.present[0] &= steps
        part.values[~part.present] = np.nan
        for name, value in self._labels(i, infos).items():
            symbol = np.array([self.context.table.symbol(value)], np.int64)
            part.ids = self.context.table.assign(part.ids, name, symbol)
        return [part]

    def _labels(self, i: int, infos: tuple[int, ...]) -> dict[str, str]:
        own = dict(self.context.table.pairs(int(self.base.ids[i])))
        wanted = {m.name for m in self.data}
        labels: dict[str, str] = {}
        for row in infos:
            for name, value in self.context.table.pairs(int(self.info.ids[row])):
                if name == METRIC_NAME or (wanted and name not in wanted):
                    continue
                if labels.get(name, value) != value:
                    raise ExecutionFailed(f"conflicting label: {name}")
                if name not in own:
                    labels[name] = value
        return labels
