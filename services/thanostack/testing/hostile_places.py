"""Places where a node of a cluster can be cut off: a network of its own, a disk of its own.

    here ── veth ── [ip netns: the node]     each end sends to the other's address, or to nobody's

    tmpfs of a few MiB, mounted ── ballast ── full ── ballast gone ── space again

A black hole is made of a wrong hardware address: a packet leaves, and whoever gets it sees that it
is for another. Nothing answers, no link goes down, no route is missing, so that nobody is told.

Both need Linux, root, and the programs `ip` (package iproute2) and `mount`; without them they fail
and say so. What they make goes with the block that made it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

_NUMBERS: Final = count()
_NOBODY: Final = "02:00:00:00:00:fe"
_PIECE: Final = bytes(64 << 10)


class NotPossibleHere(RuntimeError):
    """Raised when this machine lacks what a place needs; the message says what."""


@dataclass(frozen=True)
class End:
    """One end of a wire.

    Args:
        host: its address.
        device: its name.
        prefix: of commands that run on its side.
    """

    host: str
    device: str
    prefix: tuple[str, ...] = ()

    def hardware_address(self) -> str:
        """Return what packets to it bear."""
        text = run(*self.prefix, "ip", "-json", "link", "show", "dev", self.device)
        return str(json.loads(text)[0]["address"])

    def send_to(self, other: End, hardware_address: str) -> None:
        """Send what is for the other end there, whatever it says of itself."""
        run(
            *self.prefix, "ip", "neighbour", "replace", other.host, "lladdr", hardware_address,
            "dev", self.device, "nud", "permanent",
        )  # fmt: skip


class Link:
    """The wire to a network namespace.

    Args:
        here: this end.
        there: the end in the namespace.
    """

    def __init__(self, here: End, there: End) -> None:
        self._here, self._there = here, there
        self.host, self.prefix = there.host, there.prefix

    def black_hole(self) -> None:
        """Let everything vanish on its way, in both directions: no reset, no unreachable."""
        self._here.send_to(self._there, _NOBODY)
        self._there.send_to(self._here, _NOBODY)

    def heal(self) -> None:
        """Let everything pass again."""
        self._here.send_to(self._there, self._there.hardware_address())
        self._there.send_to(self._here, self._here.hardware_address())


@contextlib.contextmanager
def network_of_its_own() -> Iterator[Link]:
    """Make a network namespace with a wire to it, for the time of the block.

    Raises:
        NotPossibleHere: without root or iproute2.
    """
    need("ip")
    number = next(_NUMBERS)
    # A device's name has 15 characters at most; the addresses are those for tests of networks.
    name = f"ts{os.getpid() % 1_000_000}-{number}"
    here = End(f"198.18.{number}.1", f"{name}-h")
    there = End(f"198.18.{number}.2", f"{name}-n", ("ip", "netns", "exec", name))
    run("ip", "netns", "add", name)
    try:
        wire = ("type", "veth", "peer", "name", there.device, "netns", name)
        run("ip", "link", "add", here.device, *wire)
        for end in (here, there):
            run(*end.prefix, "ip", "address", "add", f"{end.host}/24", "dev", end.device)
            run(*end.prefix, "ip", "link", "set", end.device, "up")
        run(*there.prefix, "ip", "link", "set", "lo", "up")
        link = Link(here, there)
        link.heal()
        yield link
    finally:
        run("ip", "netns", "delete", name)


class SmallDisk:
    """A mounted file system of a few MiB.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Take all space that is left, to the last byte."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for piece in (_PIECE, b"\0"):
                with contextlib.suppress(OSError):  # no space left on device
                    while ballast.write(piece):
                        pass

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[SmallDisk]:
    """Mount a file system of so many MiB at a new folder, for the time of the block.

    Raises:
        NotPossibleHere: without root or mount.
    """
    need("mount", "umount")
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        run("umount", "--lazy", str(folder))


def need(*programs: str) -> None:
    """Check that this is root's machine and has some programs.

    Raises:
        NotPossibleHere: if not.
    """
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        raise NotPossibleHere(f"no {' or '.join(missing)} here: install iproute2 and util-linux")
    if os.geteuid() != 0:
        raise NotPossibleHere("network namespaces and mounts are root's: run this as root")


def run(*command: str) -> str:
    """Run a command and return what it says.

    Raises:
        NotPossibleHere: with what it says if it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPossibleHere(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
