"""The functions of one value, and the operators: their numbers in `kernels/promql_rows.py`."""

from __future__ import annotations

from thanostack.lib.kernels import promql_rows as kernels

OPERATORS = {
    "+": kernels.ADD,
    "-": kernels.SUB,
    "*": kernels.MUL,
    "/": kernels.DIV,
    "^": kernels.POW,
    "%": kernels.MOD,
    "atan2": kernels.ATAN2,
    "==": kernels.EQ,
    "!=": kernels.NE,
    ">": kernels.GT,
    "<": kernels.LT,
    ">=": kernels.GE,
    "<=": kernels.LE,
}
SET_OPERATORS = frozenset({"and", "or", "unless"})
TRIM_OPERATORS = frozenset({"</", ">/"})
SCHEMA_CHANGING = frozenset({"+", "-", "*", "/", "^", "%", "atan2"})
"""Operators after which a value no longer measures what its name says."""

SIMPLE_FUNCTIONS = {
    "abs": kernels.ABS,
    "ceil": kernels.CEIL,
    "floor": kernels.FLOOR,
    "sqrt": kernels.SQRT,
    "sgn": kernels.SGN,
    "deg": kernels.DEG,
    "rad": kernels.RAD,
    "exp": kernels.EXP,
    "ln": kernels.LN,
    "log2": kernels.LOG2,
    "log10": kernels.LOG10,
    "sin": kernels.SIN,
    "cos": kernels.COS,
    "tan": kernels.TAN,
    "asin": kernels.ASIN,
    "acos": kernels.ACOS,
    "atan": kernels.ATAN,
    "sinh": kernels.SINH,
    "cosh": kernels.COSH,
    "tanh": kernels.TANH,
    "asinh": kernels.ASINH,
    "acosh": kernels.ACOSH,
    "atanh": kernels.ATANH,
}
DATE_FUNCTIONS = {
    "minute": kernels.MINUTE,
    "hour": kernels.HOUR,
    "day_of_week": kernels.WEEKDAY,
    "day_of_month": kernels.DAY,
    "day_of_year": kernels.YEARDAY,
    "days_in_month": kernels.MONTH_DAYS,
    "month": kernels.MONTH,
    "year": kernels.YEAR,
}
PARAMETER_FUNCTIONS = {
    "round": kernels.ROUND,
    "clamp": kernels.CLAMP,
    "clamp_min": kernels.CLAMP,
    "clamp_max": kernels.CLAMP,
}
ROW_FUNCTIONS = {**SIMPLE_FUNCTIONS, **DATE_FUNCTIONS, **PARAMETER_FUNCTIONS}
