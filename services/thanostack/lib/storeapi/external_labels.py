"""Labels of a whole store: which matchers they settle, and how they join its series.

An external label wins over a series' own label of the same name. A matcher on an external label is
decided once, for the whole store, and does not reach it.

Source: Thanos `pkg/store/prometheus.go` (`matchesExternalLabels`), `pkg/store/tsdb.go`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thanostack.lib.model.label_runs import Labels
from thanostack.lib.model.matchers import Matcher


def resolve_matchers(matchers: Iterable[Matcher], external: Labels) -> tuple[Matcher, ...] | None:
    """Return the matchers that external labels do not settle, or None if they contradict one."""
    values = {name.decode(): value for name, value in external}
    left = []
    for matcher in matchers:
        value = values.get(matcher.name)
        if value is None:
            left.append(matcher)
        elif not matcher.matches(value):
            return None
    return tuple(left)


def label_sets_match(matchers: Sequence[Matcher], label_sets: Sequence[Labels]) -> bool:
    """Return whether at least one label set contradicts no matcher, or there is none at all.

    A matcher on a label that a set lacks does not contradict it: the series may have the label.

    Source: Thanos `pkg/store/proxy.go`, `LabelSetsMatch`.
    """
    return not label_sets or any(
        resolve_matchers(matchers, labels) is not None for labels in label_sets
    )
