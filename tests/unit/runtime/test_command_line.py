"""Command lines are split as kingpin splits them."""

from __future__ import annotations

import pytest

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.command_line import split, subcommand
from thanostack.runtime.settings import Settings, flag


class Example(Settings):
    """A value, a switch that is on, one that is off, and a list."""

    tsdb_path: str = flag("tsdb.path", "./data", "A path.")
    wal_compression: bool = flag("wal-compression", "true", "A switch.")
    no_lockfile: bool = flag("no-lockfile", "false", "A switch whose name begins with no-.")
    label: tuple[str, ...] = flag("label", (), "A list.")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--tsdb.path=a"], {"tsdb.path": ["a"]}),
        (["--tsdb.path", "a"], {"tsdb.path": ["a"]}),
        (["--tsdb.path=a=b"], {"tsdb.path": ["a=b"]}),
        (["--tsdb.path="], {"tsdb.path": [""]}),
        (["--tsdb.path=-a"], {"tsdb.path": ["-a"]}),
        (["--tsdb.path", "-"], {"tsdb.path": ["-"]}),
        (["--wal-compression"], {"wal-compression": ["true"]}),
        (["--no-wal-compression"], {"wal-compression": ["false"]}),
        (["--no-lockfile"], {"no-lockfile": ["true"]}),
        (["--no-no-lockfile"], {"no-lockfile": ["false"]}),
        (["--wal-compression=false"], {"wal-compression": ["false"]}),
        (["--label=a", "--label", "b"], {"label": ["a", "b"]}),
    ],
)
def test_forms_of_a_flag(arguments, expected):
    """Values with and without `=`, switches both ways, lists."""
    assert split(arguments, Example).flags == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tsdb.path"], "expected argument for flag '--tsdb.path'"),
        (["--tsdb.path", "--no-lockfile"], "expected argument for flag '--tsdb.path'"),
        (["--tsdb.path=a", "--tsdb.path=b"], "flag 'tsdb.path' cannot be repeated"),
        (["--no-tsdb.path"], "unknown long flag '--no-tsdb.path': did you mean --tsdb.path?"),
        (["--tsdb-path=a"], "unknown long flag '--tsdb-path': did you mean --tsdb.path?"),
        (["--tsbd.path=a"], "unknown long flag '--tsbd.path': did you mean --tsdb.path?"),
        (["--labels=a"], "unknown long flag '--labels': write --label"),
        (["--storage.tsdb.path=a"], "unknown long flag '--storage.tsdb.path': write --tsdb.path"),
        (["--qqqqqqq"], "unknown long flag '--qqqqqqq'"),
        (["-x"], "unknown short flag '-x'"),
        (["extra"], "unexpected argument 'extra'"),
        (["--wal-compression=1"], "unexpected argument '1': write --wal-compression or --no-wal"),
        (["--no-lockfile=yes"], "unexpected argument 'yes': write --no-lockfile or --no-no-lock"),
        (["--wal-compression="], "unexpected argument ''"),
        (["--", "--label=a"], "unexpected argument '--label=a'"),
        (["@/does/not/exist"], "cannot read arguments from the file"),
    ],
)
def test_mistakes_are_answered_with_what_was_meant(arguments, message):
    """Kingpin's errors, and a suggestion where there is one."""
    with pytest.raises(SettingsInvalid) as caught:
        split(arguments, Example)
    assert str(caught.value).startswith(message)


def test_files_of_arguments_are_inserted(tmp_path):
    """One argument a line, without comments and empty lines; also before a value."""
    file = tmp_path / "flags"
    file.write_text("# comment\n--label=a\n\n--label\nb c\n", encoding="utf-8")
    assert split([f"@{file}", "--label=d"], Example).flags == {"label": ["a", "b c", "d"]}


def test_help_and_version_are_seen_anywhere():
    """They do not stop the parsing of what else is there."""
    parsed = split(["--label=a", "-h", "--version"], Example)
    assert (parsed.help, parsed.version) == (True, True)


@pytest.mark.parametrize(
    ("arguments", "name", "rest"),
    [
        (["receive", "--label=a"], "receive", ["--label=a"]),
        (["--tsdb.path", "x", "receive"], "receive", ["--tsdb.path", "x"]),
        (["--no-lockfile", "receive", "more"], "receive", ["--no-lockfile", "more"]),
        (["--tsdb.path=x"], None, ["--tsdb.path=x"]),
        ([], None, []),
    ],
)
def test_global_flags_may_precede_the_subcommand(arguments, name, rest):
    """The value of a leading flag is not taken for the subcommand."""
    assert subcommand(arguments, Example) == (name, rest)
