"""`thanostack check-config`: what an existing Thanos command line would do here, flag by flag.

    thanostack check-config -- receive --tsdb.path=/data …      words
    thanostack check-config -f receive.yaml                     manifest, compose file, shell text
    kubectl get sts receive -o yaml | thanostack check-config   the same from standard input

| verdict | meaning |
|---|---|
| same | it does here what it does there |
| no effect | it is taken and changes nothing; the reason is said |
| refused | the program would not start with it; what to do is said |
| unknown | neither Thanos v0.42.4 nor this program has it |
| invalid | its value does not parse, or contradicts another flag |

The code is 0 if every command would start, else 1. States come from the settings classes, as
docs/flags.md does. A value that is known only in the cluster is not judged, and no file is looked
at: what is checked may run elsewhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final, NoReturn

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.cli import COMMANDS, NOT_THERE_YET, is_there, settings_of
from thanostack.runtime.command_line import Names, Words, flag_and_value, subcommand
from thanostack.runtime.settings import MASK, Settings, State, is_default, problems
from thanostack.runtime.shared_flags import LogAndTracingFlags
from thanostack.runtime.thanos_commands import CommandLine, find_commands, has_reference

COMPONENTS: Final = frozenset(COMMANDS) | frozenset(NOT_THERE_YET)
_USAGE: Final = (
    "thanostack check-config [--output text|json] (-f FILE … | -- COMMAND [FLAGS]); "
    "without either, standard input is read"
)


class Verdict(Enum):
    """What becomes of a flag."""

    SAME = "same"
    NO_EFFECT = "no effect"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    INVALID = "invalid"

    @property
    def is_fine(self) -> bool:
        """Return whether the program starts with it."""
        return self in {Verdict.SAME, Verdict.NO_EFFECT}


@dataclass(frozen=True, slots=True)
class Finding:
    """One flag as it stands in a command line.

    Args:
        flag: with its dashes; empty for what is wrong with several together.
        value: as written, masked if it is a secret.
        verdict: what becomes of it.
        note: the reason, or what to do.
    """

    flag: str
    value: str
    verdict: Verdict
    note: str = ""


@dataclass(slots=True)
class Report:
    """One command line, judged.

    Args:
        where: it stands.
        command: the subcommand.
        error: why the whole cannot be judged or is not there; empty otherwise.
        findings: in order of appearance.
    """

    where: str
    command: str
    error: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_fine(self) -> bool:
        """Return whether the program would start."""
        return not self.error and all(finding.verdict.is_fine for finding in self.findings)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsInvalid(f"check-config: {message}; usage: {_USAGE}")


def main(arguments: Sequence[str]) -> int:
    """Judge what the arguments name, print it, and return the exit code.

    Raises:
        SettingsInvalid: for wrong arguments, files that cannot be read or hold no command.
    """
    own, words = _divided(arguments)
    parser = _Parser(prog="thanostack check-config", usage=_USAGE, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-f", "--file", action="append", default=[])
    parser.add_argument("--output", choices=["text", "json"], default="text")
    given = parser.parse_args(own)
    commands = [CommandLine("command line", tuple(words))] if words else []
    for path in given.file or ([] if words else ["-"]):
        where = "standard input" if path == "-" else path
        commands += find_commands(_read(path), where, COMPONENTS)
    reports = [judge(command) for command in commands]
    print(as_json(reports) if given.output == "json" else as_text(reports))
    return 0 if all(report.is_fine for report in reports) else 1


def _divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return our own arguments and the words after `--`, less a leading program name."""
    if "--" not in arguments:
        return list(arguments), []
    at = list(arguments).index("--")
    words = list(arguments[at + 1 :])
    if len(words) == 1 and " " in words[0]:  # a whole line in quotes
        (found,) = find_commands(words[0], "command line", COMPONENTS)
        words = list(found.words)
    if words and Path(words[0]).name in {"thanos", "thanostack"}:
        words = words[1:]
    if not words:
        raise SettingsInvalid(f"check-config: nothing after --; usage: {_USAGE}")
    return list(arguments[:at]), words


def _read(path: str) -> str:
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"check-config: cannot read {path}: {error}") from error


def judge(command: CommandLine) -> Report:
    """Return what a command line would do here."""
    name, rest = subcommand(command.words, LogAndTracingFlags)
    if name is None:
        return Report(command.where, "", "no command is named; Thanos would show its help")
    report = Report(command.where, name)
    if name in NOT_THERE_YET or (name in COMMANDS and not is_there(name)):
        report.error = "this command is not part of this version yet: keep Thanos's image for it"
    elif name not in COMMANDS:
        report.error = "Thanos v0.42.4 has no such command"
    else:
        report.findings = _findings(rest, settings_of(name))
    return report


def _findings(arguments: Sequence[str], settings: type[Settings]) -> list[Finding]:
    words, names = Words(list(reversed(arguments))), Names.of(settings)
    findings: list[Finding] = []
    given: dict[str, list[str]] = {}
    while True:
        word = ""
        try:
            word = words.next() or ""
            if not word:
                break
            name, value = flag_and_value(word, words, names)
        except SettingsInvalid as error:
            if word.startswith("--") and "=" not in word and words.is_value_next():
                words.next()  # the value of a flag that we do not know
            findings.append(_unreadable(word, str(error), names))
            continue
        given.setdefault(name, []).append(value)
    return [*findings, *_judged(settings, given, names)]


def _unreadable(word: str, error: str, names: Names) -> Finding:
    flag, _, value = word.partition("=")
    is_unknown = word.startswith("-") and flag.removeprefix("--") not in names.known
    return Finding(flag, value, Verdict.UNKNOWN if is_unknown else Verdict.INVALID, error)


def _judged(settings: type[Settings], given: dict[str, list[str]], names: Names) -> list[Finding]:
    fields = {declared.name: name for name, declared in settings.flags().items()}
    wrong = dict[str, str]()
    for flag, text in _problems(settings, given, fields):
        wrong[flag] = f"{wrong[flag]}; {text}" if flag in wrong else text
    findings = []
    for name, texts in given.items():
        declared, where = settings.flags()[fields[name]], fields[name]
        value = tuple(texts) if settings.is_repeatable(where) else texts[-1]
        verdict, note = Verdict.SAME, ""
        if declared.state is State.WITHOUT_EFFECT:
            verdict, note = Verdict.NO_EFFECT, declared.note
        elif declared.state is State.REFUSED and not is_default(settings, where, value):
            verdict, note = Verdict.REFUSED, declared.note
        if len(texts) > 1 and name in names.once:
            verdict, note = Verdict.INVALID, f"flag '{name}' cannot be repeated"
        elif name in wrong:
            verdict, note = Verdict.INVALID, wrong[name]
        elif verdict is Verdict.SAME and any(map(has_reference, texts)):
            note = "its value is known only where it runs"
        shown = MASK if declared.secret else ",".join(texts)
        findings.append(Finding(f"--{name}", shown, verdict, note))
    if "" in wrong:
        findings.append(Finding("", "", Verdict.INVALID, wrong[""]))
    return findings


def _problems(
    settings: type[Settings], given: dict[str, list[str]], fields: dict[str, str]
) -> list[tuple[str, str]]:
    """Return what is wrong with values; refused flags and values not known here are left out."""
    flags = settings.flags()
    values: dict[str, object] = {}
    for name, texts in given.items():
        where = fields[name]
        if flags[where].state is not State.REFUSED:
            values[where] = tuple(texts) if settings.is_repeatable(where) else texts[-1]
    found = problems(settings, values)
    unknown = [name for name, _ in found if name and any(map(has_reference, given[name]))]
    if not unknown:
        return found
    return problems(settings, {w: v for w, v in values.items() if flags[w].name not in unknown})


def as_text(reports: Sequence[Report]) -> str:
    """Return reports to read: what needs doing is spelled out, one flag a line."""
    lines: list[str] = []
    for report in reports:
        lines += [*_block(report), ""]
    n_bad = sum(not report.is_fine for report in reports)
    total = f"{len(reports)} command{'s' if len(reports) != 1 else ''}"
    lines.append(f"{total}: all would start" if not n_bad else f"{total}: {n_bad} would not start")
    return "\n".join(lines)


def _block(report: Report) -> list[str]:
    head = f"{report.command or '?'}  ({report.where})"
    if report.error:
        return [head, f"  {report.error}"]
    counts = [
        f"{n} {verdict.value}"
        for verdict in Verdict
        if (n := sum(finding.verdict is verdict for finding in report.findings))
    ]
    lines = [f"{head}: {', '.join(counts) or 'no flags'}"]
    for finding in sorted(report.findings, key=lambda finding: finding.verdict.is_fine):
        shown = f"{finding.flag}={finding.value}" if finding.value else finding.flag
        lines.append(f"  {finding.verdict.value:<10}{shown or '(together)'}")
        if finding.note:
            lines.append(f"  {'':<10}  {finding.note}")
    return lines


def as_json(reports: Sequence[Report]) -> str:
    """Return reports for programs."""
    commands = [
        {
            **asdict(report),
            "ok": report.is_fine,
            "findings": [
                {**asdict(finding), "verdict": finding.verdict.value} for finding in report.findings
            ],
        }
        for report in reports
    ]
    return json.dumps({"ok": all(r.is_fine for r in reports), "commands": commands}, indent=2)
