"""The blocks of one tenant's directory, opened for reading.

The list is replaced, never changed: a reader keeps the tuple it took, and with it the mappings of
blocks that were deleted meanwhile. Folders that an interrupted creation or deletion left are
removed on opening.

Source: Prometheus `tsdb/db.go` (open, reload, retention); docs/formats/block.md.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from thanostack.lib.foundation.errors import BlockCorrupt, IndexCorrupt
from thanostack.lib.tsdb.block_reader import BlockReader
from thanostack.lib.tsdb.options import Report

_ULID_LENGTH = 26
_LEFTOVERS = (".tmp-for-creation", ".tmp-for-deletion", ".tmp")
_EMPTY_MINT, _EMPTY_MAXT = (1 << 63) - 1, -(1 << 63)


class BlockList:
    """Blocks by ascending time.

    Args:
        folder: the tenant's.
        report: gets blocks that cannot be opened; the others serve.
    """

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder, self._report = folder, report
        self.readers: tuple[BlockReader, ...] = ()
        found = []
        for path in sorted(folder.iterdir()):
            if path.is_dir() and path.name.endswith(_LEFTOVERS):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir() and len(path.name) == _ULID_LENGTH and path.name.isalnum():
                found += self._open(path)
        self._set(found)

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
        """Return the bytes of all blocks."""
        return sum(block.size_bytes for block in self.readers)

    def add(self, path: Path) -> None:
        """Open a new block and let readers see it.

        Raises:
            BlockCorrupt, IndexCorrupt: if it does not open.
        """
        self._set([*self.readers, BlockReader(path)])

    def expired(
        self, retention_ms: int, retention_bytes: int, other_bytes: int
    ) -> list[BlockReader]:
        """Return the blocks that retention wants gone.

        Args:
            retention_ms: a block that ends this long before the newest one is expired; 0 = never.
            retention_bytes: newest blocks are kept while log and blocks fit in it; 0 = no bound.
            other_bytes: of log and head chunks.
        """
        newest_first = sorted(self.readers, key=lambda block: -block.meta.maxt)
        expired = []
        size = other_bytes
        for block in newest_first:
            size += block.size_bytes
            too_old = retention_ms and newest_first[0].meta.maxt - block.meta.maxt >= retention_ms
            if too_old or (retention_bytes and size > retention_bytes):
                expired.append(block)
        return expired

    def delete(self, blocks: list[BlockReader]) -> None:
        """Take blocks from the readers' list, then from the disk."""
        gone = {block.meta.ulid for block in blocks}
        self._set([block for block in self.readers if block.meta.ulid not in gone])
        for ulid in gone:
            doomed = self._folder / f"{ulid}.tmp-for-deletion"
            (self._folder / ulid).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _open(self, path: Path) -> list[BlockReader]:
        try:
            return [BlockReader(path)]
        except (BlockCorrupt, IndexCorrupt) as error:
            self._report(
                "block cannot be read and is left out", {"block": path.name, "err": str(error)}
            )
            return []

    def _set(self, blocks: list[BlockReader]) -> None:
        self.readers = tuple(sorted(blocks, key=lambda block: (block.meta.mint, block.meta.maxt)))
