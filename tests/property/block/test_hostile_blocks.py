"""Hostile blocks, checksums forged: reading ends in an error of ours and inside of the bytes.

That it stays inside is what the checked run sees: see `tests/property/test_builds.py`.
"""

import contextlib
import random
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest

from thanostack.lib.foundation.errors import Corruption
from thanostack.lib.index.toc import TOC_BYTES, TableOfContents, checksum, read_toc
from thanostack.lib.kernels._jit import DISABLED
from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.model.queryable import SeriesQuery
from thanostack.lib.tsdb.block_reader import BlockReader
from thanostack.testing.blocks import write_block

EVERYTHING = SeriesQuery((), 0, 1 << 60)
QUERIES = [
    EVERYTHING,
    SeriesQuery((Matcher(MatchType.RE, "job", "x.*|y"),), 0, 25),
    SeriesQuery((Matcher(MatchType.NEQ, "job", "y"),), 5, 1 << 60),
]
SERIES = [
    ({"__name__": "a", "job": "x", "long": "l" * 130}, [[(0, 1.0), (10, 2.0)], [(20, 3.0)]]),
    ({"__name__": "a", "job": "y"}, [[(5, -1.0)]]),
    ({"__name__": "b"}, [[(0, 1.0)], [(7, 1.0)], [(20, 3.0), (30, 4.0)]]),
]


def reseal(original: bytes, damaged: bytearray) -> bytes:
    """Make all checksums of a damaged index right again, where sections once were."""
    data = np.frombuffer(original, np.uint8)
    _, toc = read_toc(data, "original")

    def seal(start: int, stop: int) -> None:
        damaged[stop : stop + 4] = checksum(bytes(damaged[start:stop])).to_bytes(4, "big")

    for section in (toc.symbols, toc.postings_table):
        (length,) = struct.unpack_from(">I", original, section)
        seal(section + 4, section + 4 + length)
    at = toc.series
    while (at := -(-at // 16) * 16) < toc.postings:
        length, width = original[at], 1
        if length > 127:
            length, width = (length & 127) | original[at + 1] << 7, 2
        seal(at + width, at + width + length)
        at += width + length + 4
    at = -(-toc.postings // 4) * 4
    while at < toc.postings_table:
        (length,) = struct.unpack_from(">I", original, at)
        seal(at + 4, at + 4 + length)
        at += length + 8
    seal(len(original) - TOC_BYTES, len(original) - 4)
    return bytes(damaged)


def read_everything(folder: Path) -> None:
    """Open and read a block in all ways; anything but a corruption comes out."""
    with contextlib.suppress(Corruption):
        reader = BlockReader(folder)
        for query in QUERIES:
            for _ in reader.series(query):
                pass
            reader.label_names(query)
            reader.label_values("job", query)


def damage_blocks(seed: int, rounds: int) -> None:
    """Mutate a small block again and again and read it."""
    randomness = random.Random(seed)
    with tempfile.TemporaryDirectory() as parent:
        folder = write_block(Path(parent), SERIES, segment_bytes=120)
        names = ["index", "index", "index", "chunks/000001", "chunks/000002"]
        originals = {name: (folder / name).read_bytes() for name in names}
        for _ in range(rounds):
            name = randomness.choice(names)
            damaged = bytearray(originals[name])
            for _ in range(randomness.choice((1, 1, 2, 5))):
                at = randomness.randrange(len(damaged))
                damaged[at] = randomness.choice((0, 1, 127, 128, 255, randomness.randrange(256)))
            body = reseal(originals[name], damaged) if name == "index" else bytes(damaged)
            if randomness.random() < 0.1:
                body = body[: randomness.randrange(1, len(body))]
            # A new file: a mapping of the one before must not change under its reader.
            (folder / name).unlink()
            (folder / name).write_bytes(body)
            read_everything(folder)
            (folder / name).unlink()
            (folder / name).write_bytes(originals[name])
        assert len(list(BlockReader(folder).series(EVERYTHING))) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hostile_blocks_end_in_an_error_of_ours(seed):
    """Lengths, counts, references and offsets that lie, under checksums that are right."""
    damage_blocks(seed, 5 if DISABLED else 400)


def test_resealing_an_unharmed_index_changes_nothing(tmp_path):
    """The forger knows where the checksums are, or the test above would be about checksums."""
    index = (write_block(tmp_path, SERIES) / "index").read_bytes()
    assert index == reseal(index, bytearray(index))
    _, toc = read_toc(np.frombuffer(index, np.uint8), "index")
    assert isinstance(toc, TableOfContents)
