"""A configuration that is given as a file or as text, and read again when the file changes.

    --x.config-file=PATH    watched
    --x.config=TEXT         fixed
    both                    an error

`$(NAME)` is replaced by the environment variable of that name. Reading again is all or nothing:
what cannot be read or is not valid changes nothing, and is reported.

Kubernetes replaces a mounted file by switching a link, so the content is what is compared.

Source: Thanos `pkg/extkingpin/path_content_reloader.go`; efficientgo `extkingpin` (PathOrContent).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from thanostack.lib.foundation.errors import InvalidInput, SettingsInvalid

T = TypeVar("T")
_VARIABLE: Final = re.compile(rb"\$\(([a-zA-Z_0-9]+)\)")
INTERVAL_LEAST_S: Final = 0.1


@dataclass(frozen=True)
class PathOrContent:
    """Where a configuration is.

    Args:
        flag: the name of the flag that takes text; the one for a file ends in `-file`.
        path: of the file, empty for none.
        content: the text, empty for none.

    Raises:
        SettingsInvalid: on construction, if both are given.
    """

    flag: str
    path: str = ""
    content: str = ""

    def __post_init__(self) -> None:
        if self.path and self.content:
            raise SettingsInvalid(f"both {self.flag}-file and {self.flag} flags set")

    @property
    def given_flag(self) -> str:
        """Return the flag that was used, with its dashes."""
        return f"--{self.flag}-file" if self.path else f"--{self.flag}"

    @property
    def is_given(self) -> bool:
        """Return whether there is any."""
        return bool(self.path or self.content)

    def raw(self) -> bytes:
        """Return the bytes as they are.

        Raises:
            InvalidInput: if the file cannot be read.
        """
        if not self.path:
            return self.content.encode()
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise InvalidInput(f"loading file {self.path}: {error.strerror}") from error


def expand_environment(data: bytes, environment: Mapping[str, str] | None = None) -> bytes:
    """Return a text with `$(NAME)` replaced by variables.

    Raises:
        InvalidInput: if one is not set.
    """
    variables = os.environ if environment is None else environment

    def value(found: re.Match[bytes]) -> bytes:
        name = found[1].decode()
        if name not in variables:
            raise InvalidInput(f'found reference to unset environment variable "{name}"')
        return variables[name].encode()

    return _VARIABLE.sub(value, data)


class ConfigFile(Generic[T]):
    """A configuration, and the watch over it.

    Args:
        source: where it is.
        parse: makes it of bytes; raises InvalidInput.

    Raises:
        SettingsInvalid: on construction, if it cannot be read or is not valid.
    """

    def __init__(self, source: PathOrContent, parse: Callable[[bytes], T]) -> None:
        self._source, self._parse = source, parse
        try:
            self._seen: bytes | None = source.raw()
            self.value = parse(expand_environment(self._seen))
        except InvalidInput as error:
            raise SettingsInvalid(f"{source.given_flag}: {error}") from error

    @property
    def is_watched(self) -> bool:
        """Return whether it can change."""
        return bool(self._source.path)

    def read_again(self) -> bool:
        """Take what the file says now; return whether it had changed.

        Raises:
            InvalidInput: if it cannot be read or is not valid, once a change; the value stays.
        """
        try:
            found: bytes | None = self._source.raw()
        except InvalidInput:
            if self._seen is None:
                return False
            self._seen = None
            raise
        if found is None or found == self._seen:
            return False
        self._seen = found
        self.value = self._parse(expand_environment(found))
        return True

    async def watch(
        self,
        interval_s: float,
        changed: Callable[[T], None],
        failed: Callable[[InvalidInput], None],
    ) -> None:
        """Read the file again and again, for ever.

        Args:
            interval_s: between looks.
            changed: gets each new value; an InvalidInput that it raises counts as not valid.
            failed: gets each reason why a change was not taken.
        """
        while True:
            await asyncio.sleep(max(interval_s, INTERVAL_LEAST_S))
            before = self.value
            try:
                if await asyncio.to_thread(self.read_again):
                    changed(self.value)
            except InvalidInput as error:
                self.value = before
                failed(error)
