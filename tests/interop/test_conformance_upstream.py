"""Upstream's own PromQL scripts, from the module that the peers are built of.

Every evaluation passes that needs neither native histograms nor start timestamps, which are not
offered yet. How many those are is fixed below for each script: none can turn from passed into not
applicable, and none can go missing, without a change here.
"""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from thanostack.testing.promql_script import Outcome, Script

pytestmark = pytest.mark.interop
MODULE = "github.com/prometheus/prometheus@v0.314.0"
FOLDER = "promql/promqltest/testdata"

# script: (passed, needing a native histogram or a start timestamp)
COUNTS = {
    "aggregators": (125, 35),
    "at_modifier": (71, 0),
    "collision": (2, 0),
    "duration_expression": (59, 0),
    "extended_vectors": (120, 49),
    "fill-modifier": (46, 0),
    "functions": (323, 108),
    "histograms": (93, 92),
    "info": (41, 1),
    "limit": (1, 36),
    "literals": (25, 0),
    "name_label_dropping": (30, 0),
    "native_histograms": (3, 519),
    "operators": (141, 72),
    "range_queries": (16, 2),
    "selectors": (31, 0),
    "staleness": (17, 0),
    "start_timestamps": (0, 26),
    "subquery": (32, 2),
    "trig_functions": (19, 0),
    "type_and_unit": (58, 0),
}
# Evaluations that fail for a reason we accept, as "script:line": "reason".
EXCEPTIONS = {}


@pytest.fixture(scope="module")
def scripts():
    """The folder of the scripts; the module proxy's copy is kept by Go itself."""
    folder = os.environ.get("PROMQL_TESTDATA")
    if folder:
        return Path(folder)
    command = ["go", "mod", "download", "-json", MODULE]
    answer = subprocess.run(command, capture_output=True, check=True)
    return Path(json.loads(answer.stdout)["Dir"]) / FOLDER


def test_the_scripts_are_these(scripts):
    """No script of upstream's is left out."""
    assert sorted(COUNTS) == sorted(path.stem for path in scripts.glob("*.test"))


@pytest.mark.parametrize("name", COUNTS)
def test_script(scripts, name):
    """What the engine can evaluate gives what the script says."""
    reports = list(Script((scripts / f"{name}.test").read_text()).run())
    failed = {
        f"{name}:{report.line}": report for report in reports if report.outcome is Outcome.FAILED
    }
    unexpected = [
        f"line {report.line}: {report.query}: {report.reason}"
        for place, report in failed.items()
        if place not in EXCEPTIONS
    ]
    counts = Counter(report.outcome for report in reports)
    found = counts[Outcome.PASSED], counts[Outcome.NOT_APPLICABLE]
    print(f"{name}: {found[0]} passed, {found[1]} not applicable, {len(failed)} excepted")
    assert unexpected == []
    assert found == COUNTS[name]
