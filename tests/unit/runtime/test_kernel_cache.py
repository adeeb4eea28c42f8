"""Which kernels a component uses, and whether they are compiled."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import thanostack.lib.kernels
from thanostack.lib.kernels import remote_write_split
from thanostack.runtime import kernel_cache, logs
from thanostack.runtime.kernel_cache import is_warm, kernel_modules_of, warm_up


@pytest.fixture
def log():
    return logs.configure("test", level="info", form="logfmt", stream=io.StringIO())


def test_kernels_are_found_through_imports():
    """Receive reaches the kernels that take requests apart, and what those import."""
    found = kernel_modules_of("receive")
    assert {"remote_write_split", "hashing", "varint", "wide"} <= set(found)
    assert found[0].startswith("remote_write")


def test_a_component_without_kernels_needs_none():
    """A name that does not exist has nothing to compile."""
    assert kernel_modules_of("no_such_component") == []


def test_every_kernel_of_the_package_is_counted():
    """The decorator at the start of a line is what is counted; none may be indented."""
    folder = Path(thanostack.lib.kernels.__file__).parent
    for path in folder.glob("[a-z]*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("@kernel(") == len(kernel_cache._KERNEL.findall(text)) + (
            text.count(" @kernel(") + text.count("`@kernel(")
        )


def test_an_imported_module_is_warm():
    """Importing compiles, so afterwards the cache has it."""
    assert remote_write_split.message_runs is not None
    assert is_warm("remote_write_split")


def test_an_empty_cache_is_cold(tmp_path, monkeypatch):
    """With caches elsewhere, nothing is warm but modules without kernels."""
    monkeypatch.setenv("THANOSTACK_KERNEL_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert not is_warm("remote_write_split")
    assert is_warm("varint")


def test_cold_modules_are_compiled_in_children(monkeypatch, log):
    """Every cold module is compiled once, and progress is told."""
    done = []
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    monkeypatch.setattr(kernel_cache, "is_warm", lambda module: module != "hashing")
    monkeypatch.setattr(kernel_cache, "_compile", lambda module: bool(done.append(module)))
    warm_up("receive", log)
    assert done == ["hashing"]


def test_a_child_compiles_one_module():
    """A child's end says whether it could."""
    assert kernel_cache._compile("varint") is False
    assert kernel_cache._compile("no_such_kernels") is True
