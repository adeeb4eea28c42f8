"""The objects of the documented examples, word for word.

Golden files are written by `python -P tests/unit/manifests/test_golden_manifests.py`; read their
difference before you commit it: it is what a running cluster will be changed to.
"""

from pathlib import Path

import pytest
import yaml

from thanostack_operator.testing.stacks import objects_at_rest, stack_of_file

EXAMPLES = sorted((Path(__file__).parents[3] / "docs" / "examples").glob("*.yaml"))


def golden(path):
    return Path(__file__).parent / "golden" / path.name


def text(path):
    return yaml.safe_dump_all(objects_at_rest(stack_of_file(path)), sort_keys=False, width=100)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_objects_are_as_they_were(path):
    assert golden(path).read_text(encoding="utf-8") == text(path), f"run: python -P {__file__}"


if __name__ == "__main__":
    for each in EXAMPLES:
        golden(each).write_text(text(each), encoding="utf-8")
