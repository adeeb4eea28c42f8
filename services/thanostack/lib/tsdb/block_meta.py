"""A block's `meta.json`: what it is, what it holds, and where it comes from.

`maxt` of a block is exclusive: the block covers [mint, maxt), ms. Keys that we do not know are kept
when the file is written again, wherever they stand: Thanos adds `thanos`, newer versions add more.

Source: Prometheus `tsdb/block.go` (`BlockMeta`); `docs/formats/block.md`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thanostack.lib.foundation.errors import BlockCorrupt, BlockNotFound
from thanostack.lib.foundation.ids import BlockId

META_FILE = "meta.json"
META_VERSION = 1
_STATS = {
    "numSamples": "samples",
    "numFloatSamples": "float_samples",
    "numHistogramSamples": "histogram_samples",
    "numSeries": "series",
    "numChunks": "chunks",
    "numTombstones": "tombstones",
}
_TOP = ("ulid", "minTime", "maxTime", "stats", "compaction", "version")
_COMPACTION = ("level", "sources", "deletable", "parents", "failed", "hints")
# Go's encoder writes these inside strings so that a browser never sees markup.
_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


@dataclass(frozen=True, slots=True)
class BlockStats:
    """How much a block holds; zero where the file says nothing."""

    samples: int = 0
    float_samples: int = 0
    histogram_samples: int = 0
    series: int = 0
    chunks: int = 0
    tombstones: int = 0


@dataclass(frozen=True, slots=True)
class BlockParent:
    """A block that this one was made from, [mint, maxt)."""

    ulid: BlockId
    mint: int
    maxt: int


@dataclass(frozen=True, slots=True)
class BlockMeta:
    """One block.

    Args:
        ulid: the block's name.
        mint: ms, inclusive.
        maxt: ms, exclusive.
        stats: how much it holds.
        level: 1 when cut from a head, one more with each compaction.
        sources: the level 1 blocks in it, ascending.
        parents: the blocks it was made from.
        deletable: a compaction of it left nothing.
        failed: a compaction of it went wrong.
        hints: where its samples come from, such as `from-out-of-order`.
        extra: unknown keys by the object they stand in: "" the file, "stats", "compaction".
    """

    ulid: BlockId
    mint: int
    maxt: int
    stats: BlockStats = BlockStats()
    level: int = 1
    sources: tuple[BlockId, ...] = ()
    parents: tuple[BlockParent, ...] = ()
    deletable: bool = False
    failed: bool = False
    hints: tuple[str, ...] = ()
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the file's bytes, as Prometheus writes them."""
        stats = {key: getattr(self.stats, name) for key, name in _STATS.items()}
        compaction = {
            "level": self.level,
            "sources": list(self.sources),
            "deletable": self.deletable,
            "parents": [
                {"ulid": parent.ulid, "minTime": parent.mint, "maxTime": parent.maxt}
                for parent in self.parents
            ],
            "failed": self.failed,
            "hints": list(self.hints),
        }
        document = {
            "ulid": self.ulid,
            "minTime": self.mint,
            "maxTime": self.maxt,
            "stats": {k: v for k, v in stats.items() if v} | dict(self.extra.get("stats", {})),
            "compaction": {k: v for k, v in compaction.items() if v or k == "level"}
            | dict(self.extra.get("compaction", {})),
            "version": META_VERSION,
        } | dict(self.extra.get("", {}))
        text = json.dumps(document, indent="\t", ensure_ascii=False)
        for character, escape in _ESCAPES.items():
            text = text.replace(character, escape)
        return text.encode()

    @staticmethod
    def decode(body: bytes, file: str = META_FILE) -> BlockMeta:
        """Return the meta of a file's bytes.

        Raises:
            BlockCorrupt: for anything but a meta of version 1.
        """
        try:
            document = json.loads(body)
            version = document["version"]
        except (ValueError, TypeError, KeyError) as error:
            raise BlockCorrupt(file, 0, f"not a meta.json: {error}") from error
        if version != META_VERSION:
            raise BlockCorrupt(file, 0, f"version {META_VERSION} expected, {version!r} found")
        try:
            return _from_document(document)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BlockCorrupt(file, 0, f"not a meta.json: {error!r}") from error


def _from_document(document: dict[str, Any]) -> BlockMeta:
    stats = document.get("stats") or {}
    compaction = document["compaction"]
    extra = {
        "": {k: v for k, v in document.items() if k not in _TOP},
        "stats": {k: v for k, v in stats.items() if k not in _STATS},
        "compaction": {k: v for k, v in compaction.items() if k not in _COMPACTION},
    }
    return BlockMeta(
        ulid=BlockId(str(document["ulid"])),
        mint=int(document["minTime"]),
        maxt=int(document["maxTime"]),
        stats=BlockStats(**{name: int(stats.get(key, 0)) for key, name in _STATS.items()}),
        level=int(compaction["level"]),
        sources=tuple(BlockId(str(source)) for source in compaction.get("sources") or ()),
        parents=tuple(
            BlockParent(BlockId(str(p["ulid"])), int(p["minTime"]), int(p["maxTime"]))
            for p in compaction.get("parents") or ()
        ),
        deletable=bool(compaction.get("deletable", False)),
        failed=bool(compaction.get("failed", False)),
        hints=tuple(str(hint) for hint in compaction.get("hints") or ()),
        extra={place: keys for place, keys in extra.items() if keys},
    )


def read_meta(folder: Path) -> BlockMeta:
    """Return the meta of a block's folder.

    Raises:
        BlockNotFound: if there is no such folder.
        BlockCorrupt: if the file is missing or no meta of version 1.
    """
    path = folder / META_FILE
    try:
        body = path.read_bytes()
    except FileNotFoundError as error:
        if not folder.is_dir():
            raise BlockNotFound(f"no block at {folder}") from error
        raise BlockCorrupt(str(path), 0, "the file is missing") from error
    return BlockMeta.decode(body, str(path))


def write_meta(folder: Path, meta: BlockMeta) -> None:
    """Replace a block's meta: temporary file, fsync, rename.

    Raises:
        OSError: if the disk refuses.
    """
    replace_file(folder / META_FILE, meta.encode())


def replace_file(path: Path, body: bytes) -> None:
    """Write a file so that a reader sees the old one or all of the new one.

    Raises:
        OSError: if the disk refuses.
    """
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as out:
        out.write(body)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: if the disk refuses.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
