r"""Finds Thanos's command lines in what people have: manifests, scripts, words.

    Kubernetes manifest   command and args of containers, `$(NAME)` filled in from env
    compose file          entrypoint and command of services
    shell text            `thanos receive --a=b \` …, comments and joined lines
    words                 what follows `check-config --`

A container counts if its command is `thanos`, or if it has none and its image or its first argument
says so. A reference that nothing here can fill in stays as it is written: `$(NAME)` of a secret or
the downward API, `$NAME` of a shell.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from thanostack.lib.foundation.errors import SettingsInvalid

PROGRAMS: Final = frozenset({"thanos", "thanostack"})
_SHELLS: Final = frozenset({"sh", "bash", "ash", "dash"})
_REFERENCE: Final = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_UNKNOWN: Final = re.compile(r"\$\([-._a-zA-Z][^)]*\)|\$\{[^}]*\}|\$[A-Za-z_]\w*")
_OPERATORS: Final = frozenset(";|&()<>")


@dataclass(frozen=True, slots=True)
class CommandLine:
    """One command line of Thanos.

    Args:
        where: the file, object and container that it stands in.
        words: what follows the program's name.
    """

    where: str
    words: tuple[str, ...]


def has_reference(text: str) -> bool:
    """Return whether a value is known only where it runs.

    Example:
        >>> has_reference("$(POD_NAME)"), has_reference("${A}/b"), has_reference("a$")
        (True, True, False)
    """
    return _UNKNOWN.search(text) is not None


def find_commands(text: str, where: str, components: frozenset[str]) -> list[CommandLine]:
    """Return the Thanos command lines of a manifest or of shell text.

    Args:
        text: YAML of one or more documents, or a script.
        where: the file's name.
        components: names of Thanos's subcommands.

    Raises:
        SettingsInvalid: if there is none, saying what was looked for.
    """
    try:
        documents = [d for d in yaml.safe_load_all(text) if isinstance(d, dict | list)]
    except yaml.YAMLError as error:
        documents, problem = [], " ".join(str(error).split())
    else:
        problem = ""
    found = [
        command for document in documents for command in _in_manifest(document, where, components)
    ]
    if not documents:
        found = [CommandLine(where, words) for words in _in_script(text, components)]
    if not found:
        hint = "; render templates first (helm template)" if "{{" in text else ""
        reason = f" (not YAML: {problem})" if problem else ""
        raise SettingsInvalid(
            f"{where}: no Thanos command line found: neither containers with args in a Kubernetes "
            f"manifest, nor services of a compose file, nor a shell command{hint}{reason}"
        )
    return found


def _in_manifest(node: Any, where: str, components: frozenset[str]) -> Iterator[CommandLine]:
    if isinstance(node, list):
        for item in node:
            yield from _in_manifest(item, where, components)
        return
    if not isinstance(node, dict):
        return
    metadata = node.get("metadata")
    if "kind" in node and isinstance(metadata, dict):
        where = f"{where}: {node['kind']}/{metadata.get('name', '?')}"
    for key, value in node.items():
        if key == "services" and "kind" not in node and isinstance(value, dict):
            for name, service in value.items():
                yield from _in_service(name, service, where, components)
        elif key in {"containers", "initContainers"} and isinstance(value, list):
            for container in value:
                yield from _in_container(container, where, components)
        else:
            yield from _in_manifest(value, where, components)


def _in_container(item: Any, where: str, components: frozenset[str]) -> Iterator[CommandLine]:
    if not isinstance(item, dict):
        return
    where = f"{where}: container {item.get('name', '?')}"
    values = {
        entry["name"]: str(entry["value"])
        for entry in item.get("env") or ()
        if isinstance(entry, dict) and "name" in entry and "value" in entry
    }
    command = [_filled(str(word), values) for word in item.get("command") or ()]
    words = [_filled(str(word), values) for word in item.get("args") or ()]
    if command and PurePosixPath(command[0]).name in _SHELLS:
        for script in (*command, *words):
            yield from (CommandLine(where, found) for found in _in_script(script, components))
    elif command:
        if PurePosixPath(command[0]).name in PROGRAMS:
            yield CommandLine(where, (*command[1:], *words))
    elif "thanos" in str(item.get("image", "")) or (words and words[0] in components):
        yield CommandLine(where, tuple(words))


def _in_service(
    name: str, item: Any, where: str, components: frozenset[str]
) -> Iterator[CommandLine]:
    """Yield the command lines of a compose service: its `command` is Kubernetes's `args`."""
    if not isinstance(item, dict):
        return
    words = {
        ours: _split(item.get(key), f"{where}: service {name}: {key}")
        for ours, key in (("command", "entrypoint"), ("args", "command"))
    }
    container = {"name": name, "image": item.get("image"), **words}
    yield from _in_container(container, where, components)


def _split(given: Any, where: str) -> list[Any]:
    """Return the words of a compose command, which is a list, or text that is split as by a shell.

    Raises:
        SettingsInvalid: if a quote is open.
    """
    if given is None or isinstance(given, list):
        return given or []
    try:
        return shlex.split(str(given))
    except ValueError as error:
        raise SettingsInvalid(f"{where}: {error}: {given}") from error


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text as Kubernetes fills it in: `$(NAME)` where it is known, `$$` for a dollar.

    Example:
        >>> _filled("$(A) $(B) $$(A)", {"A": "a"})
        'a $(B) $(A)'
    """

    def fill(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return _REFERENCE.sub(fill, text)


def _in_script(text: str, components: frozenset[str]) -> Iterator[tuple[str, ...]]:
    for words in _simple_commands(text):
        # `docker run --name thanos quay.io/thanos/thanos:v0.42.4 receive …` has the name twice.
        places = [i for i, word in enumerate(words) if _is_program(word)]
        named = [i for i in places if i + 1 < len(words) and words[i + 1] in components]
        if places:
            yield tuple(words[(named or places)[0] + 1 :])
        elif words[0] in components:
            yield tuple(words)


def _is_program(word: str) -> bool:
    """Return whether a word is the program's path, or its image with or without a tag.

    Example:
        >>> [_is_program(w) for w in ("/bin/thanos", "quay.io/thanos/thanos:v1", "--x=/thanos")]
        [True, True, False]
    """
    is_flag = word.startswith("-")
    return not is_flag and re.split("[:@]", PurePosixPath(word).name)[0] in PROGRAMS


def _simple_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a script: one a line, or several with `;` and `&&`."""
    pending = ""
    for line in text.replace("\\\n", " ").splitlines():
        pending = f"{pending}\n{line}" if pending else line
        try:
            words = _words(pending)
        except ValueError:  # an open quote: the command goes on in the next line
            continue
        pending = ""
        command: list[str] = []
        for word in [*words, ";"]:
            if not set(word) <= _OPERATORS or not word:
                command.append(word)
            elif command:
                yield command
                command = []


def _words(line: str) -> Sequence[str]:
    # `$(NAME)` is one word and no subshell: the two characters are put aside for the split.
    lexer = shlex.shlex(_UNKNOWN.sub(_aside, line), posix=True, punctuation_chars=";|&()<>")
    lexer.whitespace_split = True
    return [word.replace("\x01", "(").replace("\x02", ")") for word in lexer]


def _aside(match: re.Match[str]) -> str:
    return match[0].replace("(", "\x01").replace(")", "\x02")
