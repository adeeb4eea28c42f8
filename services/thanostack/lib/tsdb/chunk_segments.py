"""Chunk segments: the files `chunks/000001`, `000002` … of a block.

    85 BD 40 DD | 01 | 00 00 00 | chunk chunk ...
    chunk: uvarint length | encoding | data | CRC(encoding, data)

A reference is (number of the file, from 0) << 32 | offset of the length. The kernels frame and
find chunks; here files are opened, cut, synced and mapped.

Source: Prometheus `tsdb/chunks/chunks.go`; `docs/formats/chunks.md`.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from thanostack.lib.foundation.errors import BlockCorrupt, ChunkCorrupt
from thanostack.lib.kernels import index_read, index_write
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_runs import Int64Array, Uint8Array
from thanostack.lib.model.series import ChunkArray, SeriesBatch

SEGMENT_BYTES = 512 << 20
HEADER = bytes.fromhex("85BD40DD01000000")


class ChunkSegmentWriter:
    """Writes the chunks of a block into segments.

    Args:
        folder: the `chunks` folder, which exists and is empty.
        segment_bytes: where to begin another file; a chunk that is larger takes one of its own.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._state = np.zeros(8, np.int64)
        self._state[index_write.SEGMENT] = -1
        self._state[index_write.SEGMENT_BYTES] = segment_bytes
        self._file: BinaryIO | None = None
        self.n_chunks = 0

    @property
    def float_samples(self) -> int:
        """Return how many float samples were written."""
        return int(self._state[index_write.FLOATS])

    @property
    def histogram_samples(self) -> int:
        """Return how many histogram samples were written."""
        return int(self._state[index_write.HISTOGRAMS])

    def write(self, batch: SeriesBatch) -> tuple[Uint8Array, Int64Array]:
        """Write all chunks of a batch.

        Returns:
            The chunk part of each series' index entry: uint8[n], and int64[S + 1] offsets.

        Raises:
            ValueError: for chunks of one series that overlap or descend, a chunk that ends before
                it begins, or one outside of the batch's data.
            OSError: if the disk refuses.
        """
        if self._file is None:
            self._state[index_write.SEGMENT] = 0
            self._begin_segment(1)
        n = len(batch.chunks)
        room = int(batch.chunks["length"].sum()) + 10 * n
        out = np.empty(max(room, 0), np.uint8)
        cuts = np.empty(n, np.int64)
        meta, offsets = (
            np.empty(10 * len(batch) + 30 * n, np.uint8),
            np.zeros(len(batch) + 1, np.int64),
        )
        size = index_write.frame_chunks(
            batch.data, batch.chunks, batch.chunk_offsets, self._state, out, cuts, meta, offsets
        )
        if size < 0:
            row = batch.labels.mapping(int(self._state[index_write.ROW]))
            reason = {-1: "lie outside of the batch", -2: "overlap or descend"}.get(
                int(size), "end before they begin"
            )
            raise ValueError(f"chunks of a series {reason}: {row}")
        self._write(out[:size], cuts[: self._state[index_write.CUTS]].tolist())
        self.n_chunks += n
        return meta[: offsets[-1]].copy(), offsets

    def _write(self, out: Uint8Array, cuts: list[int]) -> None:
        number = int(self._state[index_write.SEGMENT]) + 1 - len(cuts)
        begin = 0
        for cut in cuts:
            self._append(out[begin:cut])
            number += 1
            self._begin_segment(number)
            begin = cut
        self._append(out[begin:])

    def _append(self, part: Uint8Array) -> None:
        assert self._file is not None, "write() began a segment"
        if len(part):
            self._file.write(part.data)

    def _begin_segment(self, number: int) -> None:
        self.close()
        self._file = (self._folder / f"{number:06d}").open("wb")
        self._file.write(HEADER)
        if number == 1:
            self._state[index_write.POSITION] = len(HEADER)

    def close(self) -> None:
        """Sync and close the segment that is open.

        Raises:
            OSError: if the disk refuses.
        """
        if self._file is None:
            return
        with self._file as file:
            self._file = None
            file.flush()
            os.fsync(file.fileno())


class ChunkSegments:
    """The mapped segments of a block."""

    def __init__(self, folder: Path) -> None:
        """Map all segments.

        Raises:
            BlockCorrupt: if the folder or a number is missing.
            ChunkCorrupt: for a wrong header.
        """
        self._folder = folder
        try:
            names = sorted(path.name for path in folder.iterdir() if path.name.isdigit())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BlockCorrupt(str(folder), 0, "the folder is missing") from error
        if names != [f"{k + 1:06d}" for k in range(len(names))]:
            raise BlockCorrupt(str(folder), 0, f"segments {', '.join(names)} are not consecutive")
        self._segments = [self._map(folder / name) for name in names]
        self.size_bytes = sum(len(segment) for segment in self._segments)

    @staticmethod
    def _map(path: Path) -> Uint8Array:
        data = map_file(path)
        found = data[: len(HEADER)].tobytes()
        # The three bytes after the version are padding, and not looked at.
        if found[:5] != HEADER[:5] or len(found) < len(HEADER):
            raise ChunkCorrupt(str(path), 0, f"header {HEADER.hex()} expected, {found.hex()} found")
        return data

    def read(self, chunks: ChunkArray) -> tuple[ChunkArray, Uint8Array]:
        """Return chunks with their bytes in one buffer, checksums compared.

        Args:
            chunks: CHUNK_DTYPE[C]; `start` is the reference.

        Raises:
            ChunkCorrupt: for a reference to nothing, a length beyond the file or a wrong checksum.
        """
        refs = chunks["start"].copy()
        lengths = np.zeros(len(refs), np.int64)
        numbers = np.unique(refs >> 32).tolist()
        for number in numbers:
            if not 0 <= number < len(self._segments):
                raise ChunkCorrupt(str(self._folder), 0, f"there is no segment {number + 1:06d}")
            status = index_read.measure_chunks(self._segments[number], number, refs, lengths)
            if status < 0:
                reason = "the checksum differs" if status % 2 == 0 else "it passes the file's end"
                offset = int(refs[(-status - 1) // 2]) & 0xFFFFFFFF
                raise ChunkCorrupt(str(self._path(number)), offset, f"chunk: {reason}")
        out = np.empty(len(refs), CHUNK_DTYPE)
        out["mint"], out["maxt"], out["length"] = chunks["mint"], chunks["maxt"], lengths
        np.cumsum(lengths, out=lengths)
        out["start"] = lengths - out["length"]
        data = np.empty(int(lengths[-1]) if len(lengths) else 0, np.uint8)
        copied = sum(
            index_read.copy_chunks(self._segments[number], number, refs, out, data)
            for number in numbers
        )
        assert copied == len(refs), "chunks were measured"
        return out, data

    def _path(self, number: int) -> Path:
        return self._folder / f"{number + 1:06d}"

    def close(self) -> None:
        """Forget the mappings; they end with the last array that looks into them."""
        self._segments = []


def map_file(path: Path) -> Uint8Array:
    """Return a file's bytes, mapped; the mapping lives as long as an array looks into it.

    Raises:
        BlockCorrupt: if the file is missing or empty.
    """
    try:
        with path.open("rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError as error:
        raise BlockCorrupt(str(path), 0, "the file is missing") from error
    except ValueError as error:
        raise BlockCorrupt(str(path), 0, "the file is empty") from error
