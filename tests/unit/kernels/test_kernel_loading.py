"""From the store to a function: what is trusted, what is refused, and what a kernel accepts."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from thanostack.lib.kernels import _linker, _store, remote_write_split
from thanostack.lib.kernels._linker import LinkError

SERVICES = str(Path(_store.__file__).parents[3])
EMPTY = np.zeros(0, np.uint8)
V2 = {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}
V3 = V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}


def message_runs(runs):
    return remote_write_split.message_runs(EMPTY, 0, 0, 1, runs)


def entry():
    """Return a compiled kernel as the store has it; the first call has compiled it."""
    assert message_runs(np.zeros(5, np.int64)) == 0
    found = _store.find("remote_write_split", "message_runs")
    assert found is not None
    return found


def frozen(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "argument",
    [
        np.zeros(5, np.int32),
        np.zeros(5, np.float64),
        np.zeros(5, np.uint64),
        np.zeros(5, ">i8"),
        np.zeros((5, 1), np.int64),
        np.zeros(10, np.int64)[::2],
        np.frombuffer(bytearray(41), np.uint8)[1:].view(np.int64),
        frozen(np.zeros(5, np.int64)),
        [0, 0, 0, 0, 0],
        None,
    ],
    ids=["int32", "float", "unsigned", "swapped", "2d", "strided", "odd", "frozen", "list", "none"],
)
def test_an_array_of_another_kind_is_refused(argument):
    """Machine code would read it as something that it is not."""
    with pytest.raises(TypeError, match="C-contiguous writable array of int64, 1-dimensional"):
        message_runs(argument)


def test_the_number_of_arguments_is_checked():
    with pytest.raises(TypeError, match="5"):
        remote_write_split.message_runs(EMPTY)


def test_a_damaged_file_is_taken_for_missing(tmp_path, monkeypatch):
    """Code is run as it is read, so one flipped bit must not be."""
    kept = entry()
    monkeypatch.setattr(_store, "roots", lambda: [tmp_path])
    _store.keep("remote_write_split", "message_runs", kept)
    assert _store.find("remote_write_split", "message_runs") == kept
    (path,) = tmp_path.rglob("*.kernel")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert _store.find("remote_write_split", "message_runs") is None
    path.write_bytes(b"")
    assert _store.find("remote_write_split", "message_runs") is None


def test_a_folder_that_others_can_write_is_not_read(tmp_path, monkeypatch):
    """Whoever can write there could have their code run as us."""
    kept = entry()
    monkeypatch.setattr(_store, "roots", lambda: [tmp_path])
    _store.keep("remote_write_split", "message_runs", kept)
    (path,) = tmp_path.rglob("*.kernel")
    path.parent.chmod(0o777)
    assert not _store.has("remote_write_split", "message_runs")
    assert _store.find("remote_write_split", "message_runs") is None
    with pytest.raises(OSError, match="THANOSTACK_KERNEL_CACHE"):
        _store.keep("remote_write_split", "message_runs", kept)


def test_the_next_folder_is_used_where_one_cannot_be_written(tmp_path, monkeypatch):
    kept = entry()
    (tmp_path / "file").touch()
    monkeypatch.setattr(_store, "roots", lambda: [tmp_path / "file", tmp_path / "second"])
    _store.keep("remote_write_split", "message_runs", kept)
    (path,) = tmp_path.rglob("*.kernel")
    assert path.is_relative_to(tmp_path / "second")


def test_a_store_that_has_the_kernel_needs_no_home_and_no_temporary_folder(tmp_path, monkeypatch):
    """A container may have neither: its user is a number, its root cannot be written."""
    kept = entry()
    monkeypatch.setenv("THANOSTACK_KERNEL_CACHE", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    _store.copy("remote_write_split", "message_runs", tmp_path)

    def refuse(*_):
        raise RuntimeError

    monkeypatch.setattr(Path, "home", refuse)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: 1 / 0)
    assert _store.find("remote_write_split", "message_runs") == kept


@pytest.mark.parametrize(
    ("flags", "pinned", "target"),
    [
        (V3, "", "x86-64-v3"),
        (V2, "", "x86-64-v2"),
        (None, "", "x86-64-v2"),
        (V3, "x86-64-v2", "x86-64-v2"),
        (V3, "znver3", "znver3"),
    ],
)
def test_the_target_is_the_newest_portable_level(monkeypatch, flags, pinned, target):
    monkeypatch.setattr(_store.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(_store, "_processor_flags", lambda: flags)
    monkeypatch.setenv("NUMBA_CPU_NAME", pinned)
    assert _store.target.__wrapped__() == target


@pytest.mark.parametrize(("flags", "pinned"), [(V2 - {"sse4_2"}, ""), (V2, "x86-64-v3")])
def test_a_processor_below_the_kernels_is_told_so(monkeypatch, flags, pinned):
    """An image's kernels need a level; below it a clear error, not an illegal instruction."""
    monkeypatch.setattr(_store.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(_store, "_processor_flags", lambda: flags)
    monkeypatch.setenv("NUMBA_CPU_NAME", pinned)
    with pytest.raises(_store.ProcessorUnsupported, match="this processor is below x86-64-v"):
        _store.target.__wrapped__()


def test_what_is_no_object_file_is_refused():
    with pytest.raises(LinkError, match="not a relocatable object file"):
        _linker.load(b"\x7fELF" + bytes(60))


def test_a_call_to_something_unknown_is_refused():
    code = entry().code
    assert b"numba_adapt_ndarray" in code
    with pytest.raises(LinkError, match="nothing here is called xumba_adapt_ndarray"):
        _linker.load(code.replace(b"numba_adapt_ndarray", b"xumba_adapt_ndarray"))


def test_linked_code_cannot_be_written():
    """What was linked is executable or writable, never both."""
    entry()
    starts = [ctypes.addressof(ctypes.c_char.from_buffer(image)) for image in _linker._images]
    rights = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, flags = line.split()[:2]
        first, stop = (int(bound, 16) for bound in bounds.split("-"))
        rights.update({start: flags for start in starts if first <= start < stop})
    assert rights == dict.fromkeys(starts, "r-xp")


def run_alone(code):
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(
        command, env={"PYTHONPATH": SERVICES, "HOME": str(Path.home())}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_process_that_uses_kernels_carries_no_compiler():
    """Importing numba would cost each process 100 MiB and a second."""
    entry()
    assert run_alone("""
import sys
import numpy as np
from thanostack.lib.kernels import remote_write_split
print(remote_write_split.message_runs(np.zeros(0, np.uint8), 0, 0, 1, np.zeros(5, np.int64)))
import thanostack.standalone.wiring
from thanostack.runtime import kernel_cache, kernel_pool
kernel_pool.load("receive", kernel_cache.WRITE_PATH + kernel_cache.ROUTE_PATH)
print([name for name in ("numba", "llvmlite") if name in sys.modules])
""") == ["0", "[]"]


def test_the_compilers_linker_gives_the_same_function():
    """It is what is used where object files are not ELF for x86-64."""
    entry()
    assert run_alone("""
import sys
sys.platform = "elsewhere"
import numpy as np
from thanostack.lib.kernels import remote_write_split
runs = np.zeros(5, np.int64)
body = np.frombuffer(bytes([8, 1]), np.uint8)
print(remote_write_split.message_runs(body, 0, 2, 1, runs), *runs.tolist())
print("thanostack.lib.kernels._llvm_linker" in sys.modules)
""") == ["1", "1", "0", "1", "2", "1", "True"]
