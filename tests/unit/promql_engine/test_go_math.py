"""Elementary functions have the bits of Go's, which are Prometheus's."""

import pathlib

import numpy as np
import pytest

from thanostack.lib.kernels import promql_rows
from thanostack.lib.promql.engine.row_functions import ROW_FUNCTIONS
from thanostack.testing.step_rows import bits

_GOLDEN = pathlib.Path(__file__).parents[2] / "data/promql_math/go_math.txt"
_XS = [0.1, 0.3, 0.65, 0.9, 1.5, 3.7, 25.2, 1234.567, 1e-9, 700.1, -0.4, -2.2]


def golden():
    for line in _GOLDEN.read_text().splitlines():
        name, *words = line.split()
        values = [np.nan if w == "NaN" else np.uint64(int(w, 16)).view(np.float64) for w in words]
        yield pytest.param(name, [float(value) for value in values], id=name)


@pytest.mark.parametrize(("name", "expected"), list(golden()))
def test_bits_are_those_of_go(name, expected):
    values, present = np.array([_XS]), np.ones((1, len(_XS)), np.bool_)
    op, param = ROW_FUNCTIONS.get(name, 0), 0.0
    if name.startswith("^"):
        op, param = promql_rows.POW, float(name[1:])
    if name.startswith("atan2"):
        op, param = promql_rows.ATAN2, float(name.partition(",")[2])
    promql_rows.transform_rows(values, present, op, np.full((2, len(_XS)), param))
    assert [bits(value) for value in expected] == [bits(value) for value in values[0].tolist()]


@pytest.mark.parametrize("name", ["asinh", "atanh", "sinh", "tanh", "sin", "tan", "asin", "atan"])
def test_zero_keeps_its_sign(name):
    values, present = np.array([[-0.0]]), np.ones((1, 1), np.bool_)
    promql_rows.transform_rows(values, present, ROW_FUNCTIONS[name], np.zeros((2, 1)))
    assert bits(-0.0) == bits(float(values[0, 0]))


@pytest.mark.parametrize(
    ("base", "exponent", "expected"),
    [
        (0.0, -1.0, np.inf),
        (-0.0, -3.0, -np.inf),
        (-0.0, 3.0, -0.0),
        (-1.0, np.inf, 1.0),
        (-8.0, 1 / 3, np.nan),
        (np.nan, 0.0, 1.0),
        (1.0, np.nan, 1.0),
        (2.0, 1024.0, np.inf),
        (2.0, -1080.0, 0.0),
        (2.0, -1074.0, 5e-324),
        (10.0, 308.0, 1.0000000000000006e308),
        (-np.inf, 3.0, -np.inf),
    ],
)
def test_special_powers(base, exponent, expected):
    values, present = np.array([[base]]), np.ones((1, 1), np.bool_)
    promql_rows.transform_rows(values, present, promql_rows.POW, np.full((2, 1), exponent))
    assert bits(expected) == bits(float(values[0, 0]))
