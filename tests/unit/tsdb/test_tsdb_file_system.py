"""A data directory on a file system that promises too little is pointed out, and used."""

from pathlib import Path

import pytest

from thanostack.lib.tsdb import file_system
from thanostack.lib.tsdb.multi_tsdb import MultiTSDB
from thanostack.testing.tsdb_directory import SMALL, Reports

PROC_SUPER_MAGIC = 0x9FA0


def test_the_kernel_is_asked():
    """The number is the kernel's own, here that of procfs; no answer is no number."""
    assert PROC_SUPER_MAGIC == file_system.file_system_type(Path("/proc"))
    assert file_system.file_system_type(Path("/proc/none")) is None


@pytest.mark.parametrize(
    ("magic", "name"),
    [(0x6969, "nfs"), (0xFF534D42, "cifs"), (0x01021997, "9p"), (0xEF53, None), (None, None)],
)
def test_a_warning_names_the_type(tmp_path, monkeypatch, magic, name):
    """NFS and its like get a warning with folder and type; ext4 and no answer none."""
    monkeypatch.setattr(file_system, "file_system_type", lambda _: magic)
    reports = Reports()
    storage = MultiTSDB(tmp_path, SMALL, report=reports)
    storage.open()
    storage.tsdb("a")
    storage.close()
    facts = [{"folder": str(tmp_path), "type": name}] if name else []
    assert facts == [facts for message, facts in reports if "local file system" in message]
