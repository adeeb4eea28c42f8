"""The one program: which command, help, version, and commands that are not there yet."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from thanostack.runtime.cli import COMMANDS, NOT_THERE_YET, main
from thanostack.runtime.version import SOURCE_VERSION


@pytest.mark.parametrize("name", sorted(NOT_THERE_YET))
def test_commands_that_are_not_there_say_so(name, capsys):
    """A Thanos command of a later version is neither unknown nor silently nothing."""
    assert main([name, "--whatever"]) == 1
    assert "is not part of this version yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "command not specified"),
        (["recieve"], "expected a command but got 'recieve'"),
        (["version"], "there are: receive, query, standalone, check-config; try --help"),
        (["receive"], "no external labels configured for receive"),
        (["receive", "--tsdb.pth=x"], "did you mean --tsdb.path?"),
        (["--log.level=debug", "receive", "--log.level=info"], "cannot be repeated"),
        (
            ["receive", "--objstore.config=type: S3", '--label=a="b"'],
            "object storage is not offered yet",
        ),
    ],
)
def test_mistakes_end_with_one_line(arguments, text, capsys):
    """A wrong command line is one line on standard error and code 1."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_help_lists_commands_and_flags(capsys):
    """Help of the program and of a command, in three spellings; hidden flags are left out."""
    assert main(["--help"]) == 0
    assert all(name in capsys.readouterr().out for name in [*COMMANDS][:1])
    for arguments in (["receive", "--help"], ["help", "receive"], ["receive", "-h"]):
        assert main(arguments) == 0
        shown = capsys.readouterr().out
        assert "--receive.tenant-header=THANOS-TENANT" in shown
        assert "--[no-]tsdb.wal-compression" in shown
        assert "writer.intern" not in shown


def test_version_is_the_projects(capsys):
    """`--version` works with and without a command."""
    assert main(["--version"]) == main(["receive", "--version"]) == 0
    assert capsys.readouterr().out.count("thanostack, version ") == 2
    assert SOURCE_VERSION


def test_help_does_not_load_kernels():
    """Mistakes and help are answered at once: numba is not imported for them."""
    code = (
        "import sys; from thanostack.runtime.cli import main; main(['receive', '--help']);"
        "print([m for m in ('numba', 'fastapi', 'grpc') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1] == "[]"


def test_a_busy_port_is_found_before_anything_slow(capsys, tmp_path):
    """One line names the flag that helps; no kernel was compiled and nothing opened for it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flag = f"--remote-write.address=127.0.0.1:{taken.getsockname()[1]}"
        others = ("--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0")
        path = f"--tsdb.path={tmp_path / 'data'}"
        assert main(["receive", "--label", 'a="b"', path, *others, flag]) == 1
    assert "already in use" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_processor_that_kernels_do_not_run_on_is_one_line_of_the_log(tmp_path):
    """No traceback: the line says what to do."""
    code = (
        "import platform; platform.machine = lambda: 'x86_64';"
        "from thanostack.lib.kernels import _store; _store._processor_flags = lambda: {'sse2'};"
        "from thanostack.runtime.cli import main; raise SystemExit(main(["
        f"'receive', '--tsdb.path={tmp_path}', '--label=a=\"b\"', '--http-address=127.0.0.1:0',"
        "'--grpc-address=127.0.0.1:0', '--remote-write.address=127.0.0.1:0']))"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    (line,) = ended.stderr.splitlines() or ended.stdout.splitlines()
    assert ended.returncode == 1
    assert 'msg="cannot run here" err="this processor is below x86-64-v2' in line
