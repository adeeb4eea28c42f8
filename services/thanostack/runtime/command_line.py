"""Splitting a command line as kingpin does, the parser behind every Thanos program.

    --name=value   --name value   --switch   --no-switch   @file   --   -h

A value that begins with a dash must be written with `=`. Flags may precede the subcommand where
they are global. A flag that is not repeatable may stand once. `@file` inserts the lines of a file,
without empty ones and those that begin with `#`. One leniency is ours: `--switch=true` and
`--switch=false`, which kingpin takes for a stray argument.

An unknown flag is answered with what it was probably meant to be: names of Prometheus, flags that
Thanos removed, and otherwise the nearest spelling.

Source: kingpin v2, `parser.go`, `flags.go`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.settings import Settings

MISTAKES = {
    "config.file": "there is no configuration file: everything is a flag",
    "data": "write --tsdb.path",
    "data-dir": "write --tsdb.path",
    "external-label": "write --label 'name=\"value\"'",
    "labels": "write --label 'name=\"value\"', once a label",
    "listen-address": "write --http-address or --grpc-address",
    "log-level": "write --log.level",
    "log-format": "write --log.format",
    "web.listen-address": "write --http-address",
    "web.enable-lifecycle": "there is no reload over HTTP: files are watched",
    "web.enable-remote-write-receiver": "leave it out: receive always accepts remote write",
    "storage.tsdb.path": "write --tsdb.path",
    "storage.tsdb.retention": "write --tsdb.retention",
    "storage.tsdb.retention.time": "write --tsdb.retention",
    "storage.tsdb.retention.size": "write --tsdb.max-retention-bytes",
    "tsdb.retention.time": "write --tsdb.retention",
    "tsdb.retention.size": "write --tsdb.max-retention-bytes",
    "tsdb.out-of-order-time-window": "write --tsdb.out-of-order.time-window",
    "remote-write-address": "write --remote-write.address",
    "receive.hashring": "write --receive.hashrings",
    "receive.hashring-file": "write --receive.hashrings-file",
    "receive.hashrings-config": "write --receive.hashrings-file",
    "receive.tenant-id": "write --receive.default-tenant-id",
    "receive.default-tenant": "write --receive.default-tenant-id",
    "receive.replicas": "write --receive.replication-factor",
    "objstore.config.file": "write --objstore.config-file",
    "objstore-config-file": "write --objstore.config-file",
    "store": "removed from Thanos: write --endpoint",
    "store-strict": "removed from Thanos: write --endpoint-strict",
    "rule": "removed from Thanos: write --endpoint",
    "target": "removed from Thanos: write --endpoint",
    "metadata": "removed from Thanos: write --endpoint",
    "exemplar": "removed from Thanos: write --endpoint",
    "replica-label": "write --query.replica-label",
    "query.lookback_delta": "write --query.lookback-delta",
    "cluster.address": "removed from Thanos with gossip: write --endpoint",
    "cluster.peers": "removed from Thanos with gossip: write --endpoint",
    "grpc-server-address": "write --grpc-address",
    "shipper.ignore-unequal-block-size": "removed from Thanos in 0.42: leave it out",
    "debug.advertise-compatibility-label": "removed from Thanos in 0.42: leave it out",
    "receive.tsdb-path-prefix": "removed from Thanos: write --tsdb.path",
}
"""Unknown flags seen in the wild, and what to do instead."""


@dataclass
class Words:
    """Arguments yet to be read, last one first; `@file` words are expanded when reached."""

    waiting: list[str]
    only_arguments: bool = False

    def next(self) -> str | None:
        """Return the next word, None after the last.

        Raises:
            SettingsInvalid: for an `@file` that cannot be read; the words after it are left.
        """
        while self.waiting:
            word = self.waiting.pop()
            if self.only_arguments:
                return word
            if word == "--":
                self.only_arguments = True
            elif word.startswith("@"):
                self.waiting.extend(reversed(_lines(word[1:])))
            else:
                return word
        return None

    def is_value_next(self) -> bool:
        """Return whether the next word may be a flag's value."""
        if not self.waiting:
            return False
        word = self.waiting[-1]
        return self.only_arguments or not (word.startswith("-") and word != "-")


@dataclass(frozen=True)
class Split:
    """A command line taken apart.

    Args:
        flags: name → texts given, in order; switches as `true` or `false`.
        help: whether `--help` or `-h` stood anywhere.
        version: whether `--version` did.
    """

    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    help: bool = False
    version: bool = False


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"cannot read arguments from the file {path!r}: {error}") from error
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def split(arguments: Sequence[str], settings: type[Settings]) -> Split:
    """Return the flags of one subcommand's arguments.

    Raises:
        SettingsInvalid: for an unknown or incomplete flag, a repeated one that may stand once,
            or a stray argument.
    """
    words, names = Words(list(reversed(arguments))), Names.of(settings)
    given: dict[str, list[str]] = {}
    asked: set[str] = set()
    while (word := words.next()) is not None:
        is_flag = not words.only_arguments
        if is_flag and word in {"--help", "-h", "--help-long", "--help-man", "--version"}:
            asked.add("version" if word == "--version" else "help")
            continue
        name, value = flag_and_value(word, words, names)
        if name in given and name in names.once:
            raise SettingsInvalid(f"flag '{name}' cannot be repeated")
        given.setdefault(name, []).append(value)
    return Split(given, "help" in asked, "version" in asked)


@dataclass(frozen=True, slots=True)
class Names:
    """The flags of one subcommand, as the parser needs them.

    Args:
        known: all names.
        switches: of flags that take no value.
        once: of flags that may stand once.
    """

    known: frozenset[str]
    switches: frozenset[str]
    once: frozenset[str]

    @classmethod
    def of(cls, settings: type[Settings]) -> Names:
        """Return the names of a settings class."""
        flags = settings.flags().items()
        return cls(
            frozenset(declared.name for _, declared in flags),
            frozenset(declared.name for field, declared in flags if settings.is_boolean(field)),
            frozenset(d.name for field, d in flags if not settings.is_repeatable(field)),
        )


def flag_and_value(word: str, words: Words, names: Names) -> tuple[str, str]:
    """Return the flag that a word is, and its value, which may be the next word.

    Raises:
        SettingsInvalid: for a word that is no flag, one that is unknown, or lacks its value.
    """
    known, switches = names.known, names.switches
    if words.only_arguments or not word.startswith("-") or word == "-":
        raise SettingsInvalid(f"unexpected argument {word!r}: every setting is a --flag")
    if not word.startswith("--"):
        raise SettingsInvalid(f"unknown short flag '{word[:2]}': flags begin with two dashes")
    name, equals, value = word[2:].partition("=")
    positive = name.removeprefix("no-")
    if name not in known and positive in switches and name.startswith("no-") and not equals:
        return positive, "false"
    if name not in known:
        raise SettingsInvalid(f"unknown long flag '--{name}'{suggestion(name, known)}")
    if name in switches:
        if equals and value not in ("true", "false"):
            raise SettingsInvalid(f"unexpected argument {value!r}: write --{name} or --no-{name}")
        return name, value if equals else "true"
    if equals:
        return name, value
    if not words.is_value_next() or (following := words.next()) is None:
        raise SettingsInvalid(f"expected argument for flag '--{name}'")
    return name, following


def suggestion(name: str, known: Collection[str]) -> str:
    """Return what an unknown flag was probably meant to be, as the end of a sentence."""
    name = name.removeprefix("no-")
    if name in MISTAKES:
        return f": {MISTAKES[name]}"
    import difflib  # for mistakes only

    folded = {_folded(candidate): candidate for candidate in sorted(known)}
    near = difflib.get_close_matches(_folded(name), folded, n=1, cutoff=0.75)
    return f": did you mean --{folded[near[0]]}?" if near else ""


def _folded(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def subcommand(arguments: Sequence[str], leading: type[Settings]) -> tuple[str | None, list[str]]:
    """Return the subcommand's name and all other arguments, in order.

    Args:
        arguments: what follows the program's name.
        leading: the flags that may stand before the subcommand.
    """
    taking_value = {
        f"--{declared.name}"
        for name, declared in leading.flags().items()
        if not leading.is_boolean(name)
    }
    rest = list(arguments)
    i = 0
    while i < len(rest):
        if not rest[i].startswith(("-", "@")):
            return rest.pop(i), rest
        i += 2 if rest[i] in taking_value else 1
    return None, rest
