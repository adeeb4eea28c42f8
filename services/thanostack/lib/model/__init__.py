"""Columnar batches of series, their one-row views, and the protocols between packages.

    label_runs.py   label sets as canonical bytes: identity, wire form and hash input at once
    series.py       SeriesBatch (labels + chunks) and SampleBatch (timestamps + values)
    matchers.py     label predicates
    queryable.py    what PromQL asks of whoever has series; what storage offers the StoreAPI

A batch of series is a few arrays; there is no object a sample or a series on a hot path.
"""
