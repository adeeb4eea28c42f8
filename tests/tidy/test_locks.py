"""An image installs what the one lock says, and of that only what is its own."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pins(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("folder", ["services", "operator"])
def test_an_images_lock_is_part_of_the_one(folder):
    """`make lock` writes all three."""
    everything = pins("requirements.lock")
    ours = pins(f"{folder}/requirements.lock")
    assert ours
    assert ours == {name: everything.get(name) for name in ours}


@pytest.mark.parametrize(
    ("folder", "others"),
    [("services", {"kopf", "kubernetes"}), ("operator", {"numpy", "numba", "llvmlite", "grpcio"})],
)
def test_neither_image_carries_what_only_the_other_needs(folder, others):
    assert not others & set(pins(f"{folder}/requirements.lock"))
