"""Blocks that Prometheus wrote are read, and written again byte for byte."""

import gzip
from itertools import chain
from pathlib import Path

import pytest

from thanostack.lib.model.matchers import Matcher, MatchType
from thanostack.lib.model.queryable import SeriesQuery
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.tsdb.block_reader import BlockReader
from thanostack.lib.tsdb.block_writer import BlockWriter
from thanostack.testing.blocks import plain_series

DATA = Path(__file__).parents[2] / "data" / "blocks"
GOLDEN = "01M81BTHKDJW27D8WK2YA8HE6T"
EVERYTHING = SeriesQuery((), 0, 1 << 60)


def openmetrics_samples() -> dict[str, list[tuple[int, float]]]:
    """Return the samples of the text that the golden block was made from."""
    found: dict[str, list[tuple[int, float]]] = {}
    text = gzip.decompress((DATA / f"{GOLDEN}.openmetrics.gz").read_bytes()).decode()
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value, seconds = line.rsplit(" ", 2)
            found.setdefault(name, []).append((int(seconds) * 1000, float(value)))
    return found


def exposition_name(labels: dict[str, str]) -> str:
    pairs = ",".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    return labels["__name__"] + (f"{{{pairs}}}" if pairs else "")


def test_every_sample_of_a_block_of_promtool_is_read():
    """Decoding the block gives the text it was made from."""
    series = plain_series(BlockReader(DATA / GOLDEN).series(EVERYTHING))
    read = {exposition_name(labels): list(chain(*chunks)) for labels, chunks in series}
    assert openmetrics_samples() == read
    assert list(read) == sorted(read)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_writing_the_same_series_gives_the_same_bytes(tmp_path, batch_size):
    """Index, chunks, tombstones and meta.json are Prometheus's, whatever the batches."""
    reader = BlockReader(DATA / GOLDEN)
    postings = reader.index.all_postings()
    meta = reader.meta
    writer = BlockWriter(tmp_path, mint=meta.mint, maxt=meta.maxt, ulid=meta.ulid)
    for rows in reader.index.series(postings, 0, 1 << 60, batch_size):
        chunks, data = reader._chunks.read(rows.chunks)
        writer.write(SeriesBatch(rows.labels, rows.chunk_offsets, chunks, data))
    assert meta == writer.finish()
    for name in ("index", "chunks/000001", "tombstones", "meta.json"):
        expected = (DATA / GOLDEN / name).read_bytes()
        assert expected == (tmp_path / meta.ulid / name).read_bytes(), name


def test_meta_survives_decoding_and_encoding():
    """The golden meta.json is reproduced from its fields."""
    assert (DATA / GOLDEN / "meta.json").read_bytes() == BlockReader(DATA / GOLDEN).meta.encode()


def test_an_index_of_version_1_is_read():
    """Symbols and series by byte offset, and label indices that nobody reads."""
    reader = BlockReader(DATA / "index-format-v1")
    assert reader.index.version == 1
    series = [
        batch.labels.mapping(i) for batch in reader.series(EVERYTHING) for i in range(len(batch))
    ]
    expected = sorted([{"bar": str(i)} for i in range(100)], key=lambda s: s["bar"])
    assert expected == series[:100]
    assert reader.meta.stats.series == len(series)
    values = reader.label_values("bar", EVERYTHING)
    assert sorted(str(i) for i in range(100)) == values
    query = SeriesQuery((Matcher(MatchType.EQ, "bar", "7"),), 0, 1 << 60)
    assert [{"bar": "7"}] == [b.labels.mapping(0) for b in reader.series(query)]


def test_labels_of_the_golden_block():
    """Names and values come from the postings offset table, or from matching series."""
    reader = BlockReader(DATA / GOLDEN)
    query = SeriesQuery((Matcher(MatchType.EQ, "__name__", "up"),), 0, 1 << 60)
    assert ["__name__", "code", "instance", "job"] == reader.label_names(EVERYTHING)
    assert ["__name__", "instance", "job"] == reader.label_names(query)
    assert ["a:80", "b:80", "é:80"] == reader.label_values("instance", EVERYTHING)
    assert ["a:80", "b:80"] == reader.label_values("instance", query)
    assert [] == reader.label_values("nope", query)
