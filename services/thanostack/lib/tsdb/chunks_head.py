"""Files of closed head chunks: append, read back by reference, load, drop.

    chunks_head/000001 000002 …    header | chunk | chunk | … | zeros
    reference                      file number << 32 | offset of the chunk in its file

Chunks leave the head's memory for here as soon as they are closed, and every sample in them is in
the WAL until its block is cut: a lost file costs replay time, never data. So nothing is synced
until a file is finished, and a damaged file is set aside together with all later ones.

    000003.corrupt-<ms>            set aside; Prometheus looks at names of digits only

Readers on other threads hold a `ChunkFiles`: the files as they were when it was taken. A file that
`truncate` removes stays open until its last holder lets go.

Source: Prometheus `tsdb/chunks/head_chunks.go`; `docs/formats/chunks-head.md`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from thanostack.lib.foundation.clock import SystemClock
from thanostack.lib.foundation.errors import ChunkCorrupt, StorageUnwritable
from thanostack.lib.kernels.head_chunk_file import (
    FIXED,
    HEAD_CHUNK_DTYPE,
    META_MAX,
    SCAN_BAD_CRC,
    SCAN_DONE,
    SCAN_MORE,
    SCAN_TORN,
    head_chunks_gather,
    head_chunks_scan,
)
from thanostack.lib.model.label_runs import Int64Array, Uint8Array

HEADER = bytes.fromhex("0130bc91 01 000000")
FILE_BYTES = 128 * 1024 * 1024
OUT_OF_ORDER_BIT = 0x80
_READ_BYTES = 4 * 1024 * 1024
_SCAN_CHUNKS = 65536
_SPAN_BYTES = 1024 * 1024
_GAP_BYTES = 4096

Int32Array = npt.NDArray[np.int32]
Uint64Array = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class HeadChunkTable:
    """All chunks of a `chunks_head` folder, in the order of the files.

    Args:
        series_ref: uint64[n].
        chunk_ref: int64[n]; file number << 32 | offset.
        mint: int64[n], ms, inclusive.
        maxt: int64[n], ms, inclusive.
        length: int32[n]; of the encoded bytes.
        count: int32[n]; samples.
        encoding: int32[n]; Prometheus's number, without the out-of-order bit.
        out_of_order: bool[n].
        set_aside: what was damaged, in words; empty if nothing was.
        torn_bytes: bytes of an unfinished chunk that were cut off the newest file.
    """

    series_ref: Uint64Array
    chunk_ref: Int64Array
    mint: Int64Array
    maxt: Int64Array
    length: Int32Array
    count: Int32Array
    encoding: Int32Array
    out_of_order: npt.NDArray[np.bool_]
    set_aside: tuple[str, ...] = ()
    torn_bytes: int = 0

    def __len__(self) -> int:
        return len(self.series_ref)


class _ChunkFile:
    """One file, open for reading; closed when the last holder lets go."""

    def __init__(self, number: int, path: Path) -> None:
        self.number, self.path = number, path
        self.maxt = -(1 << 63)
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes; fewer at the end of the file."""
        return os.pread(self.fd, size, offset)

    def corrupt(self, offset: int, message: str) -> ChunkCorrupt:
        """Return the error that this file is damaged."""
        return ChunkCorrupt(str(self.path), offset, message)


class ChunkFiles:
    """A folder's files as they were at one moment; safe to read from any thread."""

    def __init__(self, files: dict[int, _ChunkFile]) -> None:
        self._files = files

    def read(self, ref: int) -> tuple[int, bytes]:
        """Return (encoding without the out-of-order bit, encoded bytes) of one chunk.

        Raises:
            ChunkCorrupt: if there is no whole chunk of this reference.
        """
        file, offset = self._file(ref >> 32), ref & 0xFFFFFFFF
        head = file.read(offset, FIXED + 5)
        length, width = _uvarint(head[FIXED:])
        if width == 0 or length > FILE_BYTES:
            raise file.corrupt(offset, "no chunk begins here")
        data, _ = self.read_many(np.array([ref], np.int64), np.array([length], np.int64))
        return head[24] & ~OUT_OF_ORDER_BIT, data.tobytes()

    def read_many(self, refs: Int64Array, lengths: Int64Array) -> tuple[Uint8Array, Int64Array]:
        """Gather chunks.

        Args:
            refs: int64[n]; chunk references, in any order.
            lengths: int64[n]; of the encoded bytes.

        Returns:
            (data, starts): chunk i is data[starts[i]:starts[i] + lengths[i]], in the order asked.

        Raises:
            ChunkCorrupt: if one is not whole or of another length.

        Cost: one `pread` for each stretch of chunks that lie close together.
        """
        lengths = np.ascontiguousarray(lengths, np.int64)
        ends = np.cumsum(lengths)
        starts = ends - lengths
        out = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
        offsets = refs & 0xFFFFFFFF
        order = np.argsort(refs, kind="stable")
        stops = offsets + lengths + META_MAX
        for first, stop in _spans(refs[order], stops[order]):
            picks = order[first:stop]
            file, base = self._file(int(refs[picks[0]]) >> 32), int(offsets[picks[0]])
            data = np.frombuffer(file.read(base, int(stops[picks].max()) - base), np.uint8)
            done = head_chunks_gather(data, base, picks, offsets, lengths, starts, out)
            if done < 0:
                bad = int(offsets[picks[-1 - done]])
                raise file.corrupt(bad, "a chunk of other length or checksum than it should have")
        return out, starts

    def _file(self, number: int) -> _ChunkFile:
        file = self._files.get(number)
        if file is None:
            raise ChunkCorrupt(f"{number:06d}", 0, "this head chunk file is not there")
        return file


class ChunksHeadWriter:
    """The files of one head: appended to by one thread, read by any.

    Args:
        folder: created if missing. Existing files are only read; writing starts in a new one.
        file_bytes: where a file is cut; a chunk is never split.
        known: what `load_chunks_head` found, so that files need not be scanned again.

    Raises:
        StorageUnwritable: if the folder cannot be made.
        ChunkCorrupt: if file numbers have a gap.
    """

    def __init__(
        self, folder: Path, file_bytes: int = FILE_BYTES, known: HeadChunkTable | None = None
    ) -> None:
        assert file_bytes <= FILE_BYTES, "upstream's bound"
        self.folder = folder
        self.file_bytes = file_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error
        table = load_chunks_head(folder) if known is None else known
        self._files = {
            number: _ChunkFile(number, path) for number, path in _list_files(folder).items()
        }
        numbers = table.chunk_ref >> 32
        for number, file in self._files.items():
            file.maxt = int(table.maxt[numbers == number].max(initial=file.maxt))
        self._number = max(self._files, default=0)
        self._fd = -1
        self._size = 0
        self._finisher: threading.Thread | None = None

    def append(self, frames: Uint8Array, lengths: Int64Array) -> Int64Array:
        """Write complete chunks and return their references; all of them or none.

        Args:
            frames: uint8[n]; chunks as the format has them, CRC included, one after another.
            lengths: int64[C]; bytes of each, together n.

        Returns:
            int64[C] chunk references.

        Raises:
            StorageUnwritable: if the disk refuses; the files are as before the call.
        """
        assert int(lengths.sum()) == len(frames), "frames are of these lengths"
        starts = np.cumsum(lengths) - lengths
        before = (self._fd, self._size, self._number, self._files)
        refs, first = np.empty(len(lengths), np.int64), 0
        opened: list[int] = []
        try:
            while first < len(lengths):
                stop = self._fit(starts, lengths, first)
                if stop == first:
                    self._open_next()
                    opened.append(self._fd)
                    continue
                begin, end = int(starts[first]), int(starts[stop - 1] + lengths[stop - 1])
                refs[first:stop] = (self._number << 32) + self._size + starts[first:stop] - begin
                _write_all(self._fd, frames.data[begin:end])
                self._size += end - begin
                first = stop
        except OSError as error:
            self._undo(before, opened)
            raise _unwritable(self.folder, error) from error
        self._finish([before[0], *opened[:-1]] if opened else [])
        self._note_maxt(frames, starts, refs)
        return refs

    def roll(self) -> None:
        """End the current file; the next chunk starts a new one."""
        if self._fd >= 0:
            self._finish([self._fd])
            self._fd, self._size = -1, 0

    def truncate(self, mint: int) -> None:
        """Delete the oldest files whose chunks all end before mint, ms; never the current file.

        Stops at the first file that is still needed, so that numbers keep without a gap.

        Raises:
            StorageUnwritable: if one cannot be deleted.
        """
        for number in sorted(self._files):
            file = self._files[number]
            if file.maxt >= mint or (number == self._number and self._fd >= 0):
                break
            try:
                file.path.unlink(missing_ok=True)
            except OSError as error:
                raise _unwritable(self.folder, error) from error
            self._files = {n: f for n, f in self._files.items() if n != number}

    def pin(self) -> ChunkFiles:
        """Return the files as they are now; any thread may read them, whatever is truncated."""
        return ChunkFiles(self._files)

    def read(self, ref: int) -> tuple[int, bytes]:
        """Return (encoding, encoded bytes) of one chunk; see `ChunkFiles.read`."""
        return self.pin().read(ref)

    def read_many(self, refs: Int64Array, lengths: Int64Array) -> tuple[Uint8Array, Int64Array]:
        """Gather chunks; see `ChunkFiles.read_many`."""
        return self.pin().read_many(refs, lengths)

    @property
    def size_bytes(self) -> int:
        """The bytes of all files."""
        return sum(os.fstat(file.fd).st_size for file in self._files.values())

    def close(self) -> None:
        """Sync and close the current file; readers that hold files keep them."""
        self.roll()
        self._wait()
        self._files = {}

    def _fit(self, starts: Int64Array, lengths: Int64Array, first: int) -> int:
        """Return the end of the chunks from `first` on that the current file has room for."""
        if self._fd < 0:
            return first
        room = self.file_bytes - self._size
        ends = starts + lengths - starts[first]
        stop = int(np.searchsorted(ends, room, side="right"))
        if stop <= first and self._size == len(HEADER):
            return first + 1
        return max(stop, first)

    def _open_next(self) -> None:
        number = self._number + 1
        path = self.folder / f"{number:06d}"
        # Truncated: a file of this number is what an attempt left that failed.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(path, flags, 0o666)
        self._fd, self._number, self._size = fd, number, len(HEADER)
        self._files = {**self._files, number: _ChunkFile(number, path)}
        _write_all(fd, memoryview(HEADER))

    def _undo(self, before: tuple[int, int, int, dict[int, _ChunkFile]], opened: list[int]) -> None:
        """Return to the file and size before a failed append."""
        for number in range(self._number, before[2], -1):
            with contextlib.suppress(OSError):
                (self.folder / f"{number:06d}").unlink()
        for fd in {*opened, self._fd} - {before[0], -1}:
            os.close(fd)
        self._fd, self._size, self._number, self._files = before
        if self._fd < 0:
            return
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            # Readers know chunks by reference; only the next load trips over the torn end, and sets
            # the file aside, whose samples the WAL has. Nothing may be appended behind it.
            os.close(self._fd)
            self._fd, self._size = -1, 0

    def _note_maxt(self, frames: Uint8Array, starts: Int64Array, refs: Int64Array) -> None:
        if not len(starts):
            return
        bytes_of = frames[starts[:, None] + np.arange(16, 24)]
        maxt = np.ascontiguousarray(bytes_of).view(">i8")[:, 0].astype(np.int64)
        numbers = refs >> 32
        # Files rise. Not `np.unique`: it imports numpy's masked arrays, 50 ms and 6 MiB.
        for number in range(int(numbers[0]), int(numbers[-1]) + 1):
            file = self._files[number]
            file.maxt = max(file.maxt, int(maxt[numbers == number].max()))

    def _finish(self, fds: list[int]) -> None:
        fds = [fd for fd in fds if fd >= 0]
        if fds:
            self._wait()
            self._finisher = threading.Thread(
                target=_sync_and_close, args=(fds,), name="chunks-head-finish", daemon=True
            )
            self._finisher.start()

    def _wait(self) -> None:
        if self._finisher is not None:
            self._finisher.join()
            self._finisher = None


def load_chunks_head(folder: Path, *, now_ms: int | None = None) -> HeadChunkTable:
    """Describe every chunk of a folder, CRCs checked, and mend what a crash left.

    An empty newest file is deleted; an unfinished chunk at the end of the newest file is cut off.
    A damaged file and all later ones are renamed and left out: their samples are in the WAL.

    Args:
        folder: may be missing.
        now_ms: goes into the names of files set aside; the system's clock if None.

    Raises:
        ChunkCorrupt: if file numbers have a gap.
    """
    files = sorted(_list_files(folder).items())
    parts: list[npt.NDArray[np.void]] = []
    numbers: list[int] = []
    problem: ChunkCorrupt | None = None
    torn_bytes = 0
    for i, (number, path) in enumerate(files):
        newest = i == len(files) - 1
        if newest and _is_blank(path):
            path.unlink()
            break
        scan = _Scan(number, path)
        found = list(scan.parts())
        if scan.torn_at is not None and newest:
            torn_bytes = path.stat().st_size - scan.torn_at
            os.truncate(path, scan.torn_at)
            scan.problem = None
        if scan.problem is not None:
            problem = scan.problem
            break
        parts += found
        numbers += [number] * sum(len(part) for part in found)
    set_aside = () if problem is None else _set_aside(problem, files[i:], now_ms)
    return _table(parts, np.array(numbers, np.int64), set_aside, torn_bytes)


class _Scan:
    """Walk one file a stretch at a time."""

    def __init__(self, number: int, path: Path) -> None:
        self.problem: ChunkCorrupt | None = None
        self.torn_at: int | None = None
        self._file = _ChunkFile(number, path)

    def parts(self) -> Iterator[npt.NDArray[np.void]]:
        """Yield descriptions of chunks, offsets counted from the file's start."""
        head = self._file.read(0, len(HEADER))
        if len(head) < len(HEADER) or head[:5] != HEADER[:5]:
            self.problem = self._file.corrupt(0, f"unexpected header {head.hex()}")
            return
        size = os.fstat(self._file.fd).st_size
        base, span = len(HEADER), _READ_BYTES
        chunks, state = np.empty(_SCAN_CHUNKS, HEAD_CHUNK_DTYPE), np.zeros(2, np.int64)
        while base < size:
            data = np.frombuffer(self._file.read(base, span), np.uint8)
            if not len(data):
                self.problem = self._file.corrupt(base, "the file became shorter")
                return
            last = base + len(data) >= size
            count = head_chunks_scan(data, 0, int(last), chunks, state)
            status = int(state[0])
            if count:
                found = chunks[:count].copy()
                found["offset"] += base
                yield found
            elif status == SCAN_MORE:
                span *= 2
            base += int(state[1])
            if status < 0:
                self._stop(status, base)
            if status < 0 or (status == SCAN_DONE and state[1] < len(data)):
                return

    def _stop(self, status: int, offset: int) -> None:
        if status == SCAN_TORN:
            self.torn_at = offset
        message = "unexpected checksum" if status == SCAN_BAD_CRC else "a chunk beyond the file"
        self.problem = self._file.corrupt(offset, message)


def _table(
    parts: list[npt.NDArray[np.void]],
    numbers: Int64Array,
    set_aside: tuple[str, ...],
    torn_bytes: int,
) -> HeadChunkTable:
    chunks = np.concatenate([np.empty(0, HEAD_CHUNK_DTYPE), *parts])
    return HeadChunkTable(
        np.ascontiguousarray(chunks["series_ref"]),
        (numbers << 32) | chunks["offset"],
        np.ascontiguousarray(chunks["mint"]),
        np.ascontiguousarray(chunks["maxt"]),
        np.ascontiguousarray(chunks["length"]),
        np.ascontiguousarray(chunks["count"]),
        chunks["encoding"] & ~np.int32(OUT_OF_ORDER_BIT),
        (chunks["encoding"] & OUT_OF_ORDER_BIT) != 0,
        set_aside,
        torn_bytes,
    )


def _list_files(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    paths = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdigit()]
    files = {int(path.name): path for path in sorted(paths)}
    for number in sorted(files)[1:]:
        if number - 1 not in files:
            raise ChunkCorrupt(str(files[number]), 0, "the file before this one is missing")
    return files


def _is_blank(path: Path) -> bool:
    """Return whether a file never got its header, or only the beginning of it."""
    with path.open("rb") as file:
        head = file.read(len(HEADER))
    is_cut = len(head) < 4 or (len(head) < len(HEADER) and HEADER.startswith(head))
    return is_cut or head[:4] == bytes(4)


def _set_aside(
    problem: ChunkCorrupt, files: list[tuple[int, Path]], now_ms: int | None
) -> tuple[str, ...]:
    now = SystemClock().now_ms() if now_ms is None else now_ms
    report = [str(problem)]
    for _, path in reversed(files):
        target = path.with_name(f"{path.name}.corrupt-{now}")
        path.rename(target)
        report.append(f"{path} is now {target.name}")
    return tuple(report)


def _spans(refs: Int64Array, stops: Int64Array) -> Iterator[tuple[int, int]]:
    """Yield [first, stop) of sorted chunks that one read should fetch together."""
    if not len(refs):
        return
    offsets = refs & 0xFFFFFFFF
    apart = offsets[1:] - stops[:-1] > _GAP_BYTES
    apart |= (refs[1:] >> 32) != (refs[:-1] >> 32)
    apart |= (offsets[1:] // _SPAN_BYTES) != (offsets[:-1] // _SPAN_BYTES)
    cuts = [0, *(np.flatnonzero(apart) + 1).tolist(), len(refs)]
    yield from pairwise(cuts)


def _uvarint(data: bytes) -> tuple[int, int]:
    """Return (value, bytes it takes), (0, 0) if it is cut short."""
    value = 0
    for i, byte in enumerate(data):
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, i + 1
    return 0, 0


def _write_all(fd: int, data: memoryview) -> None:
    done = 0
    while done < len(data):
        n = os.write(fd, data[done:])
        if n == 0:
            raise OSError("the file system took no byte")
        done += n


def _sync_and_close(fds: list[int]) -> None:
    for fd in fds:
        # A sync that is refused here costs replay time at worst: the WAL has these samples.
        with contextlib.suppress(OSError):
            os.fsync(fd)
        os.close(fd)


def _unwritable(folder: Path, error: OSError) -> StorageUnwritable:
    return StorageUnwritable(f"head chunks {folder}: {error.strerror or error}")
