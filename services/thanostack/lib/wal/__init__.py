"""Prometheus's write-ahead log: segments, records, checkpoints, repair.

    writer.py      append records, all or nothing per call
    reader.py      stream records back in columnar batches
    records.py     what is inside a record: series, samples, tombstones, metadata
    checkpoint.py  the compacted prefix of the log
    repair.py      cut a damaged log back to its last good record
    segments.py    file names, listing, the one open file

The bytes are Prometheus's, in both directions: `docs/formats/wal.md`, `wal-records.md` and
`checkpoint.md`. What a record *means* to a head is `lib/tsdb`'s.
"""
