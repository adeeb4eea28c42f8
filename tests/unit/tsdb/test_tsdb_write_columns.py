"""What a small body may expand to is bounded, and what one large request took is not kept."""

import numpy as np
import pytest

from thanostack.lib.foundation.errors import LimitExceeded
from thanostack.lib.kernels import label_canonical
from thanostack.lib.tsdb import write_columns
from thanostack.lib.tsdb.head import Head, HeadOptions
from thanostack.lib.tsdb.write_columns import ColumnsPool, WriteColumns
from thanostack.runtime.error_mapping import remote_write_status

SYMBOL = 256 << 10


def field(tag, content):
    """Return one length-delimited field."""
    size, prefix = len(content), b""
    while size > 127:
        prefix += bytes([size & 127 | 128])
        size >>= 7
    return bytes([tag]) + prefix + bytes([size]) + content


def v2_body(n_labels):
    """Return a 2.0 body of one series that names the same long symbol again and again."""
    symbols = b"".join(field(0x22, symbol) for symbol in (b"", b"n", b"x" * SYMBOL))
    return np.frombuffer(symbols + field(0x2A, field(0x0A, bytes([1, 2]) * n_labels)), np.uint8)


@pytest.mark.parametrize(
    ("name", "body", "version"),
    [
        ("size_bytes_limit", v2_body(256), 2),
        ("series_limit", np.frombuffer(b"\x0a\x00" * (write_columns.SERIES_MAX + 1), np.uint8), 1),
        (
            "samples_limit",
            np.frombuffer(field(0x0A, b"\x12\x00" * (write_columns.SAMPLES_MAX + 1)), np.uint8),
            1,
        ),
    ],
)
def test_a_request_that_expands_too_far(name, body, version):
    """It is refused for good, as a smaller one would be needed."""
    columns = WriteColumns()
    with pytest.raises(LimitExceeded) as refused:
        columns.scan(body, version)
    assert (name, 413) == (refused.value.name, remote_write_status(refused.value))
    assert columns.label_room <= write_columns.LABEL_BYTES_MAX


def test_requests_at_the_bounds():
    """The bounds themselves are accepted."""
    columns = WriteColumns()
    columns.scan(np.frombuffer(b"\x0a\x00" * write_columns.SERIES_MAX, np.uint8))
    assert write_columns.SERIES_MAX == columns.count
    columns.scan(np.frombuffer(field(0x0A, b"\x12\x00" * write_columns.SAMPLES_MAX), np.uint8))
    assert write_columns.SAMPLES_MAX == columns.samples
    columns.scan(v2_body(200), 2)
    assert len(columns.data) > 200 * SYMBOL


@pytest.mark.parametrize(
    ("body", "version"),
    [
        (v2_body(20), 2),
        (np.frombuffer(b"\x0a\x00" * (ColumnsPool.SAMPLES_KEPT_MAX + 1), np.uint8), 1),
    ],
)
def test_large_columns_are_not_kept(body, version):
    """The pool takes back ordinary columns only."""
    pool = ColumnsPool()
    small, large = pool.take(), pool.take()
    large.scan(body, version)
    pool.give_back(small)
    pool.give_back(large)
    assert (True, False) == (pool.take() is small, pool.take() is large)
    # Whoever still holds them, such as the traceback of a refusal, holds nothing big.
    assert (0, 1, 1) == (large.label_room, len(large.rows), len(large.values))


def test_a_head_keeps_no_large_scratch():
    """One request with a huge label value leaves no buffer of that size behind."""
    head = Head(HeadOptions(series_max=1 << 16), None)
    columns = WriteColumns()
    label = field(0x0A, field(0x0A, b"n") + field(0x12, b"v" * (5 << 20)))
    columns.scan(np.frombuffer(field(0x0A, label), np.uint8))
    created, statuses = head.resolve(columns)
    assert (0, [label_canonical.TOO_LONG]) == (created, statuses.tolist())
    assert len(head._canonical) < 5 << 20
    assert head.resolve(columns)[0] == 0
