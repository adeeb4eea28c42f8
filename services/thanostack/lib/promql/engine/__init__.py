"""The PromQL engine: trees in, columns out.

    Engine(options).instant(expr, queryable, time_ms)  ->  QueryResult
    Engine(options).range(expr, queryable, start_ms, end_ms, step_ms)

A query names labels by integers, values by rows and steps. What one series does is a chain of
kernels over small batches; what several do together reads whole slices of steps. Numbers are
Prometheus's bit for bit, except where `kernels/promql_rows.py` says otherwise.
"""

from thanostack.lib.promql.engine.engine import Engine
from thanostack.lib.promql.engine.options import Deadline, EngineOptions
from thanostack.lib.promql.engine.result import (
    MatrixResult,
    QueryResult,
    QueryStats,
    ScalarResult,
    StringResult,
    Value,
    VectorResult,
)

__all__ = [
    "Deadline",
    "Engine",
    "EngineOptions",
    "MatrixResult",
    "QueryResult",
    "QueryStats",
    "ScalarResult",
    "StringResult",
    "Value",
    "VectorResult",
]
