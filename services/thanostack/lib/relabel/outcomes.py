"""What became of label runs seen before: bounded tables for the kernels.

Full tables learn no more, and start anew after as many misses as they have entries: series that
went away make room for those that came, and a fleet larger than the tables keeps part of it known
instead of none. A request keeps the tables that it began with, so starting anew takes nothing from
under it.

The memory is reserved and taken as it is touched.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np

from thanostack.lib.kernels import relabel as kernels
from thanostack.lib.kernels.relabel import Outcomes
from thanostack.lib.model.label_runs import Int64Array, Uint8Array
from thanostack.lib.tsdb.reserved_memory import reserve

_ENTRY_BYTES: Final = 8 * kernels.ENTRY_WIDTH + 16  # with two slots of the hash table
_SLICE: Final = 4096
_RUN_BYTES: Final = 200  # of a typical series, to divide the memory between entries and runs


class SeenRuns:
    """The tables, and when they start anew; safe from any thread.

    Args:
        bytes_max: of all tables together.
    """

    def __init__(self, bytes_max: int) -> None:
        self._entries_max = max(bytes_max // (_ENTRY_BYTES + _RUN_BYTES), 1)
        self._arena_bytes = max(bytes_max - self._entries_max * _ENTRY_BYTES, 1)
        self._misses_when_full = 0
        self.lock = threading.Lock()
        self.tables = self._fresh()

    def _fresh(self) -> Outcomes:
        slots = 1 << (2 * self._entries_max - 1).bit_length()
        return Outcomes(
            meta=np.zeros(2, np.int64),
            entries=reserve(np.int64, self._entries_max * kernels.ENTRY_WIDTH),
            arena=reserve(np.uint8, self._arena_bytes),
            table=reserve(np.uint64, slots),
        )

    @property
    def entries(self) -> int:
        """Return how many label runs are known."""
        return int(self.tables.meta[kernels.ENTRIES])

    @property
    def size_bytes(self) -> int:
        """Return the bytes in use."""
        return self.entries * _ENTRY_BYTES + int(self.tables.meta[kernels.TOP])

    def learn(
        self, tables: Outcomes, data: Uint8Array, spill: Uint8Array, rows: Int64Array,
        misses: Int64Array,
    ) -> None:  # fmt: skip
        """Add what was decided of the misses of a request that began with these tables.

        Args:
            tables: nothing is learnt if others have taken their place meanwhile.
            data: uint8[n]; what the rows' label runs index.
            spill: uint8[k]; new runs.
            rows: int64[S * 8]; see `kernels/relabel`.
            misses: int64[m]; the rows to learn.
        """
        # In slices: an event loop may wait for the lock.
        for at in range(0, len(misses), _SLICE):
            with self.lock:
                if tables is self.tables:
                    self._learn(data, spill, rows, misses[at : at + _SLICE])

    def _learn(
        self, data: Uint8Array, spill: Uint8Array, rows: Int64Array, misses: Int64Array
    ) -> None:
        learnt = int(kernels.relabel_learn(data, spill, rows, misses, self.tables))
        self._misses_when_full += len(misses) - learnt
        if self._misses_when_full > self.entries:
            self._misses_when_full = 0
            self.tables = self._fresh()
