"""Which kernels a component uses, and which of them have to be compiled."""

import re
from pathlib import Path

import numpy as np
import pytest

import thanostack.lib.kernels
from thanostack.lib.kernels import remote_write_split
from thanostack.runtime.kernel_cache import (
    PLAIN_SELECTOR,
    WRITE_PATH,
    all_kernel_modules,
    cold_kernels,
    copy_kernels,
    kernel_modules_of,
)

FOLDER = Path(thanostack.lib.kernels.__file__).parent


def test_kernels_are_found_through_imports():
    """Receive reaches the kernels that take requests apart, and what those import."""
    found = kernel_modules_of("receive")
    assert {"remote_write_scan", "remote_write_split", "hashing", "varint", "wide"} <= set(found)
    assert not [name for name in found if name.startswith("promql_")]


def test_a_component_without_kernels_needs_none():
    """A name that does not exist has nothing to compile."""
    assert kernel_modules_of("no_such_component") == []


def test_a_called_kernel_is_warm():
    """Calling compiles, so afterwards the cache has it."""
    remote_write_split.message_runs(np.zeros(0, np.uint8), 0, 0, 1, np.zeros(5, np.int64))
    cold = [name for _, name in cold_kernels(["remote_write_split"])]
    assert "message_runs" not in cold


def test_every_kernel_is_found_cold_on_a_fresh_machine(monkeypatch, tmp_path):
    """Of each module all kernels are listed, the write path first."""
    monkeypatch.setattr("thanostack.lib.kernels._store.roots", lambda: [tmp_path])
    cold = cold_kernels(all_kernel_modules())
    names = [name for _, name in cold]
    first = (*WRITE_PATH, *PLAIN_SELECTOR)
    assert first == tuple(names[: len(first)])
    for path in FOLDER.glob("[a-z]*.py"):
        declared = len(re.findall(r"^@kernel\(", path.read_text(), re.MULTILINE))
        assert declared == sum(module.endswith("." + path.stem) for module, _ in cold), path.stem


def test_an_image_gets_every_kernel_of_its_source_and_no_other(monkeypatch, tmp_path):
    """What older sources left in the cache stays there."""
    copy_kernels(tmp_path)
    copied = {path.stem for path in tmp_path.rglob("*.kernel")}
    stamps = {path.parent.name for path in tmp_path.rglob("*.kernel")}
    monkeypatch.setattr("thanostack.lib.kernels._store.roots", lambda: [tmp_path])
    assert cold_kernels(all_kernel_modules()) == []
    assert len(stamps) == len({stamp.rpartition("-")[0] for stamp in stamps})
    assert {*WRITE_PATH, *PLAIN_SELECTOR} <= copied


def test_what_was_never_compiled_is_not_shipped(monkeypatch, tmp_path):
    """An image without its kernels would find out when it runs."""
    monkeypatch.setattr("thanostack.lib.kernels._store.roots", lambda: [tmp_path])
    with pytest.raises(LookupError, match="is not compiled"):
        copy_kernels(tmp_path / "image")
