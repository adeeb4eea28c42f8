"""Prometheus's storage: one directory a tenant, byte for byte as Prometheus leaves it.

    tsdb.py          one tenant: write path, reads over head and blocks, maintenance
    multi_tsdb.py    all tenants of a process
    head.py          the newest samples, in tables of reserved memory (kernels/head_*.py)
    job_queue.py     the FIFO that makes every head one writer's
    write_columns.py one request as columns
    replay.py        directory -> head
    chunks_head.py   files of closed head chunks
    block_*.py       immutable blocks

The order of a write: validate, encode, log, [fsync], apply, acknowledge.
"""
