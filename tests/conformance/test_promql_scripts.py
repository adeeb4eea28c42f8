"""Every evaluation of every script gives what the script says."""

import os
import pathlib

import pytest

from thanostack.testing.promql_script import Outcome, Script

_HERE = pathlib.Path(__file__).parent / "promql"
_EXTRA = os.environ.get("PROMQL_TESTDATA")


def scripts():
    folders = [_HERE, *([pathlib.Path(_EXTRA)] if _EXTRA else [])]
    paths = [path for folder in folders for path in sorted(folder.glob("*.test"))]
    return [pytest.param(path, id=f"{path.parent.name}/{path.stem}") for path in paths]


@pytest.mark.parametrize("path", scripts())
def test_script(path):
    """No evaluation fails; those that need what the engine has not are counted, not passed."""
    reports = list(Script(path.read_text()).run())
    failed = [report for report in reports if report.outcome is Outcome.FAILED]
    failures = [f"line {report.line}: {report.query}: {report.reason}" for report in failed]
    assert failures == []
    assert reports


def test_a_wrong_expectation_fails():
    """The runner is awake: a wrong value, a missing series and a missing error are failures."""
    text = "load 1m\n  m 1\neval instant at 0 m\n  m 2\neval instant at 0 m\n\n"
    text += "eval instant at 0 m\n  expect fail\neval instant at 0 m\n  expect warn\n  m 1\n"
    outcomes = [report.outcome for report in Script(text).run()]
    assert outcomes == [Outcome.FAILED] * 4


def test_histograms_are_not_applicable():
    text = "load 1m\n  h {{count:1 sum:1}}\n  m 1\neval instant at 0 h\n  h {{count:1 sum:1}}\n"
    text += "eval instant at 0 count(h)\n  {} 1\neval instant at 0 m\n  m 1\n"
    outcomes = [report.outcome for report in Script(text).run()]
    assert outcomes == [Outcome.NOT_APPLICABLE, Outcome.NOT_APPLICABLE, Outcome.PASSED]
