"""A value made of files, made anew when one of them changes.

    current() ── stamps of the files ──same──> the value there is
                          │ changed
                          └── make() ──good──> the new value
                                     └─bad───> the value there is, and one line in the log

There is no watcher: whoever needs the value asks, and asking costs one `stat` a file. A change that
cannot be used is told once; the next change is tried again. For one thread.

Stamps are taken before files are read: one that changes meanwhile is seen as changed next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from thanostack.lib.foundation.errors import SettingsInvalid

T = TypeVar("T")
Stamps = tuple[tuple[str, int, int, int] | None, ...]
Told = Callable[[SettingsInvalid | None], None]


class Reloading(Generic[T]):
    """A value that follows its files.

    Args:
        files: returns the files that the value is made of now.
        make: makes it.
        told: called after every reload, with the error of one that failed.

    Raises:
        SettingsInvalid: if it cannot be made at the start.
    """

    def __init__(
        self, files: Callable[[], Iterable[str]], make: Callable[[], T], told: Told
    ) -> None:
        self._files, self._make, self._told = files, make, told
        self._stamps = stamps(files())
        self._value = make()

    def current(self) -> T:
        """Return the value of the files as they are now, or of when they last were good."""
        found = stamps(self._files())
        if found == self._stamps:
            return self._value
        self._stamps = found
        try:
            self._value = self._make()
        except SettingsInvalid as error:
            self._told(error)
        else:
            self._told(None)
        return self._value


def stamps(files: Iterable[str]) -> Stamps:
    """Return what tells whether files have changed; None for one that is not there."""
    return tuple(_stamp(path) for path in files)


def _stamp(path: str) -> tuple[str, int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return path, found.st_mtime_ns, found.st_size, found.st_ino
