"""The index of a block: symbols, series, postings and their table, as Prometheus lays them out.

    toc.py        magic, versions, table of contents, checked sections
    symbols.py    interning of label pairs (writing), symbol table (reading)
    postings.py   postings offset table, lists, and the algebra of sorted lists
    writer.py     IndexWriter: series ascending in label order -> version 2
    reader.py     IndexReader: versions 1, 2 and 3

Everything goes by batches: arrays in, arrays out, loops in `kernels/index_*.py`. Chunk files, meta
and tombstones are `tsdb`'s. The bytes: `docs/formats/index.md`.
"""
