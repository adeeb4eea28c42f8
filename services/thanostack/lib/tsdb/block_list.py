"""The blocks of one tenant's directory, opened for reading.

The list is replaced, never changed: a reader keeps the tuple it took, and with it the mappings of
blocks that were deleted meanwhile. Folders that an interrupted creation or deletion left are
removed on opening.

Source: Prometheus `tsdb/db.go` (open, reload, retention); docs/formats/block.md.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thanostack.lib.foundation.errors import BlockCorrupt, Corruption
from thanostack.lib.tsdb.block_meta import read_meta
from thanostack.lib.tsdb.block_reader import BlockReader
from thanostack.lib.tsdb.options import Report

_ULID_LENGTH = 26
_LEFTOVERS = (".tmp-for-creation", ".tmp-for-deletion", ".tmp")
_EMPTY_MINT, _EMPTY_MAXT = (1 << 63) - 1, -(1 << 63)
_ALL_TIME = (-(1 << 63), (1 << 63) - 1)


@dataclass(frozen=True, slots=True)
class UnreadableBlock:
    """A damaged block; its files stay until retention, if they say of what time they are.

    Args:
        name: of its folder.
        mint, maxt: ms, [mint, maxt); all of time where its meta is damaged too.
        is_dated: whether the times are its meta's.
        size_bytes: of its files.
    """

    name: str
    mint: int
    maxt: int
    is_dated: bool
    size_bytes: int


class BlockList:
    """Blocks by ascending time.

    Args:
        folder: the tenant's.
        report: gets blocks that cannot be opened; the others serve.

    Attributes:
        readers: the blocks that serve.
        unreadable: those that do not.
        reloads: times that blocks were opened or deleted, this opening included.
        reloads_failed: of these, how often one could not be.
    """

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder, self._report = folder, report
        self.readers: tuple[BlockReader, ...] = ()
        self.unreadable: tuple[UnreadableBlock, ...] = ()
        found = []
        for path in sorted(folder.iterdir()):
            if path.is_dir() and path.name.endswith(_LEFTOVERS):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir() and len(path.name) == _ULID_LENGTH and path.name.isalnum():
                found += self._open(path)
        self._set(found)
        self.reloads, self.reloads_failed = 1, int(len(self.unreadable) > 0)

    @property
    def mint(self) -> int:
        """Return the earliest time of any block, ms inclusive; 2^63 - 1 when there is none."""
        return min((block.meta.mint for block in self.readers), default=_EMPTY_MINT)

    @property
    def maxt(self) -> int:
        """Return where the newest block ends, ms exclusive; -2^63 when there is none."""
        return max((block.meta.maxt for block in self.readers), default=_EMPTY_MAXT)

    @property
    def size_bytes(self) -> int:
        """Return the bytes of all blocks, unreadable ones too."""
        readable = sum(block.size_bytes for block in self.readers)
        return readable + sum(block.size_bytes for block in self.unreadable)

    @property
    def symbol_table_bytes(self) -> int:
        """Return the memory that the symbol tables of the open blocks take."""
        return sum(block.index.symbol_table_bytes for block in self.readers)

    def add(self, path: Path) -> None:
        """Open a new block and let readers see it.

        Raises:
            BlockCorrupt, IndexCorrupt: if it does not open.
        """
        with self._reload():
            self._set([*self.readers, BlockReader(path)])

    def expired(
        self, retention_ms: int, retention_bytes: int, other_bytes: int
    ) -> tuple[list[str], list[str]]:
        """Return the names of the blocks that are too old, and of others beyond the size.

        An unreadable block goes when its time comes; one without a time counts, and stays.

        Args:
            retention_ms: a block that ends this long before the newest one that can be read is
                expired; 0 = never.
            retention_bytes: newest blocks are kept while log and blocks fit in it; 0 = no bound.
            other_bytes: of log and head chunks.
        """
        blocks = [(b.meta.maxt, b.size_bytes, str(b.meta.ulid)) for b in self.readers]
        blocks += [(b.maxt, b.size_bytes, b.name) for b in self.unreadable if b.is_dated]
        size = other_bytes + sum(b.size_bytes for b in self.unreadable if not b.is_dated)
        too_old: list[str] = []
        too_much: list[str] = []
        for maxt, size_bytes, name in sorted(blocks, key=lambda block: -block[0]):
            size += size_bytes
            if retention_ms and self.maxt - maxt >= retention_ms:
                too_old.append(name)
            elif retention_bytes and size > retention_bytes:
                too_much.append(name)
        return too_old, too_much

    def delete(self, names: list[str]) -> None:
        """Take blocks from the readers' list, then from the disk."""
        gone = set(names)
        self._set([block for block in self.readers if block.meta.ulid not in gone])
        self.unreadable = tuple(block for block in self.unreadable if block.name not in gone)
        with self._reload():
            for name in gone:
                doomed = self._folder / f"{name}.tmp-for-deletion"
                (self._folder / name).rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    @contextlib.contextmanager
    def _reload(self) -> Iterator[None]:
        self.reloads += 1
        try:
            yield
        except BaseException:
            self.reloads_failed += 1
            raise

    def _open(self, path: Path) -> list[BlockReader]:
        try:
            return [BlockReader(path)]
        except Corruption as error:
            self.unreadable += (_describe(path),)
            self._report(
                "block cannot be read and is left out, and queries of its time get a warning: "
                "restore its folder from a copy, or move it away to do without, and start again",
                {"block": path.name, "folder": str(path), "err": str(error)},
            )
            return []

    def _set(self, blocks: list[BlockReader]) -> None:
        self.readers = tuple(sorted(blocks, key=lambda block: (block.meta.mint, block.meta.maxt)))


def _describe(path: Path) -> UnreadableBlock:
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    try:
        meta = read_meta(path)
    except BlockCorrupt:
        return UnreadableBlock(path.name, *_ALL_TIME, False, size)
    return UnreadableBlock(path.name, meta.mint, meta.maxt, True, size)
