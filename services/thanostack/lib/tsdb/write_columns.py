"""One write request as columns: the scratch arrays between a decoded body and the head.

Arrays are reused from request to request through a small pool, because allocating and touching
them anew costs as much as filling them. Nothing here knows a head.
"""

from __future__ import annotations

import numpy as np

from thanostack.lib.foundation.errors import InvalidInput, LimitExceeded
from thanostack.lib.kernels import remote_write_scan as kernels
from thanostack.lib.kernels.head_append import SAMPLE_RECORD_BYTES
from thanostack.lib.model.label_runs import Int64Array, Uint8Array

SERIES_MAX = 1 << 20
SAMPLES_MAX = 1 << 22
LABEL_BYTES_MAX = 64 << 20
"""Bounds of one request, whatever it expands to: an empty series or sample takes two bytes on the
wire and fifty here, and a small 2.0 body can name one long symbol until gigabytes are filled."""

_FIRST_LABEL_BYTES = 1 << 14


class WriteColumns:
    """The columns of one request.

    Attributes:
        data: uint8[n]; what `bounds` index: the body, or for 2.0 the label runs written out.
        count: series in the request.
        bounds: int64[2 S]; label runs, see `remote_write_scan`.
        offsets: int64[S + 1].
        timestamps: int64[N], ms.
        values: uint64[N], bits.
        rows, staged: int64[S], int64[N]; filled by the head.
        record: uint8[m]; room for the WAL record.
        untimely: samples of series that were not made for want of others, too late and too early;
            see `untimely`.
        exemplars, histograms, metadata: entries seen beside the samples.
    """

    def __init__(self, series: int = 2048, samples: int = 2048) -> None:
        self.data: Uint8Array = np.zeros(0, np.uint8)
        self.count = 0
        self.untimely = (0, 0)
        self._labels = np.zeros(0, np.uint8)
        self._stats = np.zeros(4, np.int64)
        self._grow_series(series)
        self._grow_samples(samples)

    @property
    def label_room(self) -> int:
        """Return the bytes held for the label runs of 2.0 requests."""
        return len(self._labels)

    @property
    def samples(self) -> int:
        """Return the number of samples in the request."""
        return int(self.offsets[self.count])

    @property
    def exemplars(self) -> int:
        """Return the number of exemplars in the request."""
        return int(self._stats[kernels.EXEMPLARS])

    @property
    def histograms(self) -> int:
        """Return the number of native histogram samples in the request."""
        return int(self._stats[kernels.HISTOGRAMS])

    def scan(self, body: Uint8Array, version: int = 1) -> None:
        """Fill the columns from a decoded body of remote write 1.0 or 2.0.

        Raises:
            InvalidInput: if the body is not the protobuf message that it should be.
            LimitExceeded: for more series, samples or label bytes than one request may carry.
        """
        self.untimely = (0, 0)
        scan = self._scan_v1 if version == 1 else self._scan_v2
        while True:
            self._stats[:] = 0
            count = scan(body)
            if count >= 0:
                self.count = count
                return
            if count == kernels.SERIES_FULL:
                self._grow_series(_more("series_limit", len(self.rows), SERIES_MAX))
            elif count == kernels.SAMPLES_FULL:
                self._grow_samples(_more("samples_limit", len(self.timestamps), SAMPLES_MAX))
            elif count == kernels.LABELS_FULL:
                size = max(len(self._labels), _FIRST_LABEL_BYTES)
                self._labels = np.zeros(_more("size_bytes_limit", size, LABEL_BYTES_MAX), np.uint8)
            else:
                raise InvalidInput("the request body is not a valid protobuf write request")

    def shrink(self) -> None:
        """Let go of the memory; what was scanned is gone."""
        self.count, self.data, self._labels = 0, np.zeros(0, np.uint8), np.zeros(0, np.uint8)
        self._grow_series(1)
        self._grow_samples(1)

    def _scan_v1(self, body: Uint8Array) -> int:
        self.data = body
        return int(
            kernels.remote_write_scan(
                body, 0, len(body), self.bounds, self.offsets, self.timestamps, self.values,
                self._stats,
            )
        )  # fmt: skip

    def _scan_v2(self, body: Uint8Array) -> int:
        symbols = np.zeros(2048, np.int64)
        while (count := kernels.remote_write_symbols(body, symbols)) == kernels.SERIES_FULL:
            symbols = np.zeros(4 * len(symbols), np.int64)
        if count < 0:
            return int(count)
        result = kernels.remote_write_scan_v2(
            body, symbols[: 2 * count], self._labels, self.bounds, self.offsets, self.timestamps,
            self.values, self._stats,
        )  # fmt: skip
        self.data = self._labels[: self._stats[kernels.LABEL_BYTES]]
        return int(result)

    def _grow_series(self, series: int) -> None:
        self.bounds = np.empty(2 * series, np.int64)
        self.offsets = np.zeros(series + 1, np.int64)
        self.rows = np.empty(series, np.int64)

    def _grow_samples(self, samples: int) -> None:
        self.timestamps = np.empty(samples, np.int64)
        self.values = np.empty(samples, np.uint64)
        self.staged: Int64Array = np.empty(samples, np.int64)
        self.record = np.empty(32 + SAMPLE_RECORD_BYTES * samples, np.uint8)


def _more(limit: str, size: int, ceiling: int) -> int:
    """Return the size to grow to, at most the ceiling; LimitExceeded when it is there already."""
    if size >= ceiling:
        raise LimitExceeded(limit, ceiling, size + 1)
    return min(4 * size, ceiling)


class ColumnsPool:
    """Keeps a few columns for the next request; taking and giving back is thread-safe."""

    KEPT_MAX = 8
    SAMPLES_KEPT_MAX = 1 << 17
    LABEL_BYTES_KEPT_MAX = 4 << 20

    def __init__(self) -> None:
        self._free: list[WriteColumns] = []

    def take(self) -> WriteColumns:
        """Return columns nobody else uses."""
        try:
            return self._free.pop()
        except IndexError:
            return WriteColumns()

    def give_back(self, columns: WriteColumns) -> None:
        """Keep columns for later, unless they are many or one huge request made them so."""
        columns.data = np.zeros(0, np.uint8)
        is_large = (
            max(len(columns.values), len(columns.rows)) > self.SAMPLES_KEPT_MAX
            or columns.label_room > self.LABEL_BYTES_KEPT_MAX
        )
        if is_large:
            # Not left to the collector: a refusal's traceback may hold on to them for long.
            columns.shrink()
        elif len(self._free) < self.KEPT_MAX:
            self._free.append(columns)
