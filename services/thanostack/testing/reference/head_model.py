"""The head in plain Python: what the tables of `kernels/head_types.py` mean, without their layout.

    rows      a list; a freed row has no run and its number is the next one taken, the newest first
    records   label pairs and names in the order of their coming, a name before its first pair
    closed    closed chunks in the order of closing; those not in a file yet have their frame

The references in `testing/reference/head_*.py` work on it. Limits that only memory sets (postings,
slabs) are not modelled: there is always room for them.
"""

from dataclasses import dataclass, field

from thanostack.lib.model.label_runs import decode_run
from thanostack.testing.reference import protobuf, xor_chunk
from thanostack.testing.reference.head_chunk_file import encode_chunk

NEVER, NO_TIME = -(2**63), 2**63 - 1
FRAME_MAX = 1200


@dataclass
class OpenChunk:
    """An open XOR chunk: its samples, and its bits so far."""

    mint: int
    end: int
    samples: list = field(default_factory=list)
    bits: xor_chunk._Bits = field(default_factory=xor_chunk._Bits)
    window: tuple | None = None

    def append(self, t, value):
        """Add a sample to the bits as the format wants it."""
        before = self.samples[-2:]
        if not before:
            self.bits.put(0, 16)
            self.bits.put_uvarint((t << 1 ^ t >> 63) & (1 << 64) - 1)
            self.bits.put(value, 64)
        else:
            delta = t - before[-1][0]
            if len(before) == 1:
                self.bits.put_uvarint(delta)
            else:
                xor_chunk._put_dod(self.bits, delta - (before[1][0] - before[0][0]))
            self.window = xor_chunk._put_value(self.bits, value ^ before[-1][1], self.window)
        self.samples.append((t, value))

    def __len__(self):
        return (len(self.bits.text) + 7) // 8

    def encoded(self):
        """Return the chunk bytes, sample count included."""
        return len(self.samples).to_bytes(2, "big") + self.bits.to_bytes()[2:]


@dataclass
class ClosedChunk:
    """A closed chunk; `ref` is -1 - offset while its frame is pending."""

    row: int
    mint: int
    maxt: int
    ref: int
    length: int
    data: bytes = b""
    frame: bytes = b""


@dataclass
class Row:
    """A series, or a freed place for one (`run` is None)."""

    run: bytes | None
    ref: int
    last_t: int = NEVER
    last_v: int = 0
    open: OpenChunk | None = None


@dataclass
class Record:
    """A label pair or, with `name` -1, a label name."""

    data: bytes
    name: int
    rows: list = field(default_factory=list)


def pairs_of(run):
    """Return (pair bytes, name bytes) of each label of a canonical run."""
    return [
        (protobuf.field(1, name) + protobuf.field(2, value), protobuf.field(1, name))
        for name, value in decode_run(run)
    ]


def range_end(t, width):
    """Return the end of t's chunk range; Go's division truncates."""
    quotient = abs(t) // width
    return (-quotient if t < 0 else quotient) * width + width


def predicted_end(first, last, end):
    """Return where upstream wants a chunk to end that is a quarter full."""
    n = float(end - first) / (float(last - first + 1) * 4)
    return end if n <= 1 else int(float(first) + float(end - first) / (n // 1))


@dataclass
class HeadModel:
    """A head's state; sizes bound it as the arrays bound the tables."""

    rows_max: int = 1 << 30
    keys_max: int = 1 << 40
    pairs_max: int = 1 << 30
    pair_bytes_max: int = 1 << 40
    closed_max: int = 1 << 40
    table: int = 1024
    pair_table: int = 2048
    rows: list = field(default_factory=list)
    freed: list = field(default_factory=list)
    by_run: dict = field(default_factory=dict)
    records: list = field(default_factory=list)
    by_record: dict = field(default_factory=dict)
    closed: list = field(default_factory=list)
    keys_top: int = 0
    closed_top: int = 0
    next_ref: int = 1
    alive: int = 0
    mint: int = NO_TIME
    maxt: int = NEVER
    chunks_made: int = 0
    chunks_removed: int = 0

    def fresh(self):
        """Return a model that shares the rows and has an empty index of its own."""
        return HeadModel(table=self.table, pair_table=self.pair_table, rows=self.rows)

    @property
    def pair_bytes(self):
        """The bytes of all records."""
        return sum(len(record.data) for record in self.records)

    def chunks_of(self, r):
        """Return the closed chunks of a row, the oldest first."""
        return [chunk for chunk in self.closed if chunk.row == r]

    def index(self, run, r):
        """Add a row to the records of its labels."""
        self.keys_top += len(run)
        self.alive += 1
        for pair, name in pairs_of(run):
            if pair not in self.by_record:
                owner = self._record(name, -1)
                self._record(pair, owner)
            self.records[self.by_record[pair]].rows.append(r)

    def _record(self, data, name):
        if data not in self.by_record:
            self.by_record[data] = len(self.records)
            self.records.append(Record(data, name))
        return self.by_record[data]

    def append(self, r, t, value, chunk_range):
        """Append a sample by upstream's rules; False when a chunk must close and cannot."""
        row, chunk = self.rows[r], self.rows[r].open
        if chunk is not None:
            full = len(chunk) > 1024 - 19
            if not full:
                if len(chunk.samples) == 120 // 4:
                    chunk.end = predicted_end(chunk.mint, row.last_t, chunk.end)
                full = t >= chunk.end or len(chunk.samples) >= 2 * 120
            if full and not self._close(r):
                return False
        if row.open is None:
            row.open = OpenChunk(t, range_end(t, chunk_range))
            self.chunks_made += 1
        row.open.append(t, value)
        row.last_t, row.last_v = t, value
        self.mint, self.maxt = min(self.mint, t), max(self.maxt, t)
        return True

    def _close(self, r):
        if self.closed_top + FRAME_MAX > self.closed_max:
            return False
        row, data = self.rows[r], self.rows[r].open.encoded()
        frame = encode_chunk(row.ref, row.open.mint, row.last_t, 1, data)
        ref = -1 - self.closed_top
        self.closed.append(ClosedChunk(r, row.open.mint, row.last_t, ref, len(data), data, frame))
        self.closed_top += len(frame)
        row.open = None
        return True
