"""Frames are protobuf that anybody reads, cut where they should be, and read back unchanged."""

import numpy as np
import pytest
import xxhash

from thanostack.lib.foundation.errors import EndpointUnavailable, ExecutionFailed
from thanostack.lib.kernels._types import CHUNK_DTYPE
from thanostack.lib.model.label_runs import LabelRuns, encode_run
from thanostack.lib.model.series import SeriesBatch
from thanostack.lib.pb import series_pb2, store_pb2
from thanostack.lib.storeapi.codec import FRAME_BYTES, decode_frames, encode_frames, encode_warning
from thanostack.lib.storeapi.requests import COUNT, COUNTER, MIN, SUM


def make_batch(n_series=5, n_chunks=3, chunk_bytes=40, mint=1_000):
    labels = LabelRuns.of_mappings(
        {"__name__": "up", "instance": f"host-{i:05}"} for i in range(n_series)
    )
    chunks = np.zeros(n_series * n_chunks, CHUNK_DTYPE)
    chunks["mint"] = np.tile(np.arange(n_chunks) * 100, n_series) + mint
    chunks["maxt"] = chunks["mint"] + 99
    chunks["start"] = np.arange(len(chunks)) * chunk_bytes
    chunks["length"], chunks["encoding"] = chunk_bytes, 1
    data = np.random.default_rng(1).integers(0, 256, len(chunks) * chunk_bytes, np.uint8)
    return SeriesBatch(labels, np.arange(n_series + 1) * n_chunks, chunks, data)


def content(batch):
    return [
        (
            batch.labels.run(s),
            [
                (
                    int(chunk["mint"]),
                    int(chunk["maxt"]),
                    int(chunk["encoding"]),
                    batch.chunk_bytes(c),
                )
                for c, chunk in enumerate(batch.chunks)
                if batch.chunk_offsets[s] <= c < batch.chunk_offsets[s + 1]
            ],
        )
        for s in range(len(batch))
    ]


def joined(batch):
    """Return content with neighbouring frames of one series joined."""
    series = []
    for run, chunks in content(batch):
        if series and series[-1][0] == run:
            series[-1][1].extend(chunks)
        else:
            series.append((run, chunks))
    return series


@pytest.mark.parametrize("batch_size", [0, 1, 2, 64])
@pytest.mark.parametrize("mint", [-5, 0, 1_700_000_000_000])
def test_frames_round_trip(batch_size, mint):
    """Columns survive, whatever the kind of frame."""
    batch = make_batch(mint=mint)
    decoded = decode_frames(list(encode_frames(batch, batch_size)))
    assert content(batch) == content(decoded.batch)


def test_frames_are_what_protobuf_writes():
    """A frame is byte for byte what a protobuf library makes of the same message."""
    batch = make_batch(2, 2)
    frames = list(encode_frames(batch, 10))
    message = store_pb2.SeriesResponse()
    for run, chunks in content(batch):
        series = message.batch.series.add()
        series.MergeFromString(run)
        for mint, maxt, encoding, data in chunks:
            raw = series_pb2.Chunk(type=encoding - 1, data=data, hash=xxhash.xxh64_intdigest(data))
            series.chunks.add(min_time=mint, max_time=maxt, raw=raw)
    assert [message.SerializeToString()] == frames


def test_frames_hold_as_many_series_as_asked():
    """A frame ends at the batch size."""
    sizes = [
        len(store_pb2.SeriesResponse.FromString(frame).batch.series)
        for frame in encode_frames(make_batch(10), 4)
    ]
    assert sizes == [4, 4, 2]


def test_a_large_series_spans_frames():
    """Frames end at one MiB; the next repeats the labels and goes on with the next chunk."""
    batch = make_batch(3, 30, chunk_bytes=100_000)
    for batch_size in (1, 64):
        frames = list(encode_frames(batch, batch_size))
        assert max(map(len, frames)) <= FRAME_BYTES
        assert len(frames) >= 9
        assert content(batch) == joined(decode_frames(frames).batch)


def test_a_chunk_larger_than_a_frame_goes_out_alone():
    """Nothing is held back for being large."""
    batch = make_batch(2, 2, chunk_bytes=FRAME_BYTES + 10)
    frames = list(encode_frames(batch, 64))
    assert len(frames) == 4
    assert content(batch) == joined(decode_frames(frames).batch)


def test_series_without_chunks():
    """Labels alone travel too."""
    batch = SeriesBatch.without_chunks(LabelRuns.of_mappings([{}, {"a": "b"}]))
    assert content(batch) == content(decode_frames(list(encode_frames(batch, 64))).batch)


def test_warnings_and_kinds_of_frames_mix():
    """Warnings, hints, single frames and batches come in any order."""
    batch = make_batch(3)
    single, several = list(encode_frames(batch, 1)), list(encode_frames(batch, 64))
    hints = store_pb2.SeriesResponse()
    hints.hints.type_url = "type.googleapis.com/hintspb.SeriesResponseHints"
    frames = [encode_warning("a"), *single[:1], hints.SerializeToString(), *several]
    decoded = decode_frames([*frames, encode_warning("é")])
    assert content(batch)[:1] + content(batch) == content(decoded.batch)
    assert decoded.warnings == ("a", "é")


def test_foreign_labels_become_canonical():
    """Unknown fields, padded lengths and empty values do not change a series' identity."""
    padded = b"\x0a\x8a\x80\x00\x0a\x01a\x12\x01b\x1a\x00\x20\x05"
    series = padded + b"\x0a\x03\x0a\x01c"
    frame = b"\x0a" + bytes([len(series)]) + series
    assert encode_run({"a": "b"}) == decode_frames([frame]).batch.labels.run(0)


def test_unsorted_labels_are_refused():
    """Order is promised; guessing would make two series of one."""
    series = encode_run({"b": "1"}) + encode_run({"a": "1"})
    frame = b"\x0a" + bytes([len(series)]) + series
    with pytest.raises(EndpointUnavailable, match="peer sent a series whose labels are not sorted"):
        decode_frames([frame], source="peer")


def downsampled(*fields):
    chunk = series_pb2.AggrChunk(min_time=1, max_time=2)
    for field in fields:
        getattr(chunk, field).data = field.encode()
    series = series_pb2.Series(labels=[{"name": "a", "value": "b"}], chunks=[chunk])
    return [store_pb2.SeriesResponse(series=series).SerializeToString()]


def test_one_aggregate_stands_in_for_raw():
    """The chunk asked for is read; raw wins where it is there."""
    assert decode_frames(downsampled("min", "max"), [MIN]).batch.chunk_bytes(0) == b"min"
    assert decode_frames(downsampled("min", "raw"), [MIN]).batch.chunk_bytes(0) == b"raw"


def test_missing_aggregates_are_an_error():
    """Never an average read as a sum."""
    for aggregates in ([SUM], [COUNTER], [COUNT, SUM], []):
        with pytest.raises(ExecutionFailed, match="downsampled"):
            decode_frames(downsampled("counter"), aggregates)
