"""The one program: `thanostack <component> [flags]`, a subcommand a container.

A component is imported only when it was asked for, after its flags parsed and its kernels are
compiled, so that `--help`, `--version` and mistakes are answered at once.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.command_line import Split, split, subcommand
from thanostack.runtime.settings import Flag, Settings, State, load
from thanostack.runtime.shared_flags import LogAndTracingFlags
from thanostack.runtime.version import describe

PROGRAM: Final = "thanostack"
_HELP_WIDTH: Final = 92
_ADDRESSES: Final = frozenset({"http-address", "grpc-address", "remote-write.address"})


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand that is there.

    Args:
        settings_class: in `thanostack.<name>.settings`.
        summary: one sentence for the help.
        compiles_beside: whether it starts while kernels are still compiled.
    """

    settings_class: str
    summary: str
    compiles_beside: bool = False


COMMANDS: Final = {
    "receive": Command("ReceiveSettings", "Take remote write and store it, a TSDB a tenant."),
    "query": Command("QuerySettings", "Answer PromQL over every StoreAPI endpoint it knows."),
    "standalone": Command(
        "StandaloneSettings", "Receive and query in one process.", compiles_beside=True
    ),
}
NOT_THERE_YET: Final = {
    "store": "serve blocks of a bucket",
    "compact": "compact and downsample blocks of a bucket",
    "rule": "evaluate rules and send alerts",
    "sidecar": "offer a Prometheus's data as StoreAPI",
    "query-frontend": "split and cache queries",
    "tools": "look into and mend buckets",
}


def is_there(name: str) -> bool:
    """Return whether a command's package is part of this installation."""
    return name in COMMANDS and importlib.util.find_spec(f"thanostack.{name}.settings") is not None


def settings_of(name: str) -> type[LogAndTracingFlags]:
    """Return the settings class of a component, importing its declaration only."""
    module = importlib.import_module(f"thanostack.{name}.settings")
    found: type[LogAndTracingFlags] = getattr(module, COMMANDS[name].settings_class)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name, rest = subcommand(arguments, LogAndTracingFlags)
    try:
        return _dispatch(name, rest)
    except BrokenPipeError:
        # Whoever read the help has seen enough; a flush at exit would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SettingsInvalid as error:
        shown = f"{PROGRAM} {name}" if name in COMMANDS else PROGRAM
        print(f"{shown}: error: {error}; try --help", file=sys.stderr)
        return 1


def _dispatch(name: str | None, rest: list[str]) -> int:
    if name == "help":
        name, rest = (rest[0] if rest else None), ["--help"]
    if name is None:
        return _without_command(split(rest, LogAndTracingFlags))
    if name == "check-config":
        from thanostack.runtime import check_config

        return check_config.main(rest)
    if name in NOT_THERE_YET or (name in COMMANDS and not is_there(name)):
        raise SettingsInvalid(
            f"the command {name!r} is not part of this version yet; there are: {_names()}"
        )
    if name not in COMMANDS:
        raise SettingsInvalid(f"expected a command but got {name!r}; there are: {_names()}")
    parsed = split(rest, settings_of(name))
    if parsed.version:
        print(describe())
    elif parsed.help:
        print(command_help(name, settings_of(name)))
    else:
        return _run(name, parsed)
    return 0


def _without_command(parsed: Split) -> int:
    if parsed.version:
        print(describe())
        return 0
    if parsed.help:
        print(program_help())
        return 0
    raise SettingsInvalid(f"command not specified; there are: {_names()}")


def _run(name: str, parsed: Split) -> int:
    settings = load(settings_of(name), parsed.flags)
    settings.check()
    from thanostack.lib.kernels._store import ProcessorUnsupported
    from thanostack.runtime import kernel_pool, process

    _check_addresses(settings)
    log = process.log_of(name, settings)
    try:
        kernel_pool.start(name, log)
    except ProcessorUnsupported as error:
        log.error("cannot run here", err=str(error))  # noqa: TRY400 - where it was found is no news
        return 1
    if not COMMANDS[name].compiles_beside:
        kernel_pool.wait_for_all()
    wiring = importlib.import_module(f"thanostack.{name}.wiring")
    return process.run(name, settings, wiring.start, log)


def _check_addresses(settings: Settings) -> None:
    """Find a busy port before kernels are compiled, not minutes later."""
    from thanostack.runtime.http_server import listen

    for field, declared in settings.flags().items():
        if declared.name in _ADDRESSES:
            listen(getattr(settings, field), declared.name).close()


def _names() -> str:
    return ", ".join([*(name for name in COMMANDS if is_there(name)), "check-config"])


def program_help() -> str:
    """Return the text of `thanostack --help`."""
    lines = [f"usage: {PROGRAM} <command> [<flags>]", "", "Commands:"]
    lines += [
        f"  {name:<16}{command.summary}" for name, command in COMMANDS.items() if is_there(name)
    ]
    lines += ["", "Not there yet:"]
    lines += [f"  {name:<16}{summary}" for name, summary in NOT_THERE_YET.items()]
    lines += [
        "",
        "Before moving from Thanos:",
        f"  {'check-config':<16}say flag by flag what a Thanos command line or manifest does here",
    ]
    lines += ["", f"Flags of a command: {PROGRAM} <command> --help"]
    return "\n".join(lines)


def command_help(name: str, settings: type[Settings]) -> str:
    """Return the text of `thanostack <command> --help`."""
    lines = [f"usage: {PROGRAM} {name} [<flags>]", "", COMMANDS[name].summary, "", "Flags:"]
    lines += ["  -h, --help", "      --version"]
    for field, declared in settings.flags().items():
        if not declared.hidden:
            lines += _flag_help(declared, boolean=settings.is_boolean(field))
    lines += [
        "",
        "Every flag is also an environment variable: --tsdb.path is THANOSTACK_TSDB_PATH.",
    ]
    return "\n".join(lines)


def _flag_help(declared: Flag, *, boolean: bool) -> list[str]:
    if boolean:
        head = f"      --[no-]{declared.name}"
    else:
        shown = declared.default if isinstance(declared.default, str) else "..."
        head = f"      --{declared.name}={declared.placeholder or shown or '...'}"
    text = declared.help
    if declared.state is not State.SUPPORTED:
        text += f" ({declared.state.value}: {declared.note})"
    return [
        head,
        *textwrap.wrap(text, _HELP_WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 12),
    ]
