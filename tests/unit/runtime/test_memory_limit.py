"""The memory that a process may have, by what its control groups and the machine say."""

import os

from thanostack.runtime.memory_limit import memory_limit_bytes

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def files(root, **texts):
    for path, text in texts.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_the_least_limit_of_version_2_holds(tmp_path):
    """Of the group and all above it; `max` is none."""
    files(
        tmp_path,
        **{
            "proc/self/cgroup": "0::/pod/container\n",
            "sys/fs/cgroup/pod/container/memory.max": "max\n",
            "sys/fs/cgroup/pod/memory.max": "5000000\n",
        },
    )
    assert memory_limit_bytes(tmp_path) == 5_000_000


def test_a_container_sees_its_own_group_as_the_root(tmp_path):
    """The path that it is told may lie outside of what it sees."""
    files(
        tmp_path,
        **{
            "proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/kubepods/a\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "7000000\n",
            "sys/fs/cgroup/cpu/memory.limit_in_bytes": "1\n",
        },
    )
    assert memory_limit_bytes(tmp_path) == 7_000_000


def test_no_limit_is_the_machine(tmp_path):
    """Version 1 says a number beyond all memory; elsewhere there are no such files."""
    assert memory_limit_bytes(tmp_path) == MACHINE
    files(
        tmp_path,
        **{
            "proc/self/cgroup": "3:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert memory_limit_bytes(tmp_path) == MACHINE
    assert 0 < memory_limit_bytes() <= MACHINE
