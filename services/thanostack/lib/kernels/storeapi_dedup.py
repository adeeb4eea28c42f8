"""Deduplication of replicas: overlap split into lanes, then the penalty or the chain fold.

    chunks of one series, replica labels gone     lanes                 one series
    |---a1---| |---a2---|                         a1 a2      fold
       |---b1---|  |--b2--|                   ->  b1 b2      ---->      samples

A *lane* is a run of chunks that do not overlap: replicas rebuilt without their labels. Lanes are
rows of samples, decoded by the XOR kernel, then trimmed (rising timestamps, bounds, counter resets
applied) and folded.

The penalty fold is a left-leaning tree of pairwise merges; level d joins what lanes 0..d-1 gave
with lane d. A counter's adjustment passes through all levels below, so the tree is walked sample
by sample and not level by level:

    level 2:  a = level 1, b = lane 2        level 1:  a = lane 0, b = lane 1

Source: Thanos `pkg/dedup/iter.go`, `pkg/query/iter.go`, `pkg/compact/downsample/downsample.go`
(`ApplyCounterResetsSeriesIterator`); Prometheus `storage/merge.go` (`chainSampleIterator`).
"""

import numpy as np

from thanostack.lib.kernels._jit import device, kernel
from thanostack.lib.kernels._types import BYTES, CHUNKS, CHUNKS_OUT, F64, F64_OUT, I64, I64_OUT, i64
from thanostack.lib.kernels.wide import bits_float, float_bits

_START = np.int64(-(2**63))
_INITIAL_PENALTY = np.int64(5000)

# One record of the tree's state, 16 slots of int64 a level; a lane's state lives with its level.
_WIDTH = 16
_LAST, _PEN_A, _PEN_B, _USE_A, _A, _B, _LAST_A, _POS, _END, _ADJUST = range(10)

FIRST_WINS, CHAIN = 0, 1


@device
def _comes_later(data, x, y):
    """Return whether chunk x sorts after chunk y: by mint, maxt, encoding, then falling bytes."""
    if x.mint != y.mint:
        return x.mint > y.mint
    if x.maxt != y.maxt:
        return x.maxt > y.maxt
    if x.encoding != y.encoding:
        return x.encoding > y.encoding
    n = min(np.int64(x.length), np.int64(y.length))
    for k in range(n):
        if data[x.start + k] != data[y.start + k]:
            # Upstream: equal bounds put the larger bytes first.
            return data[x.start + k] < data[y.start + k]
    return x.length < y.length


@device
def _order_chunks(chunks, first, count, data, order):
    """Write the order of chunks [first, first + count); they are nearly in order already."""
    for k in range(count):
        j = k
        while j > 0 and _comes_later(data, chunks[first + order[j - 1]], chunks[first + k]):
            order[j] = order[j - 1]
            j -= 1
        order[j] = k


@kernel(i64(I64, CHUNKS, BYTES, I64_OUT, I64_OUT, I64_OUT, CHUNKS_OUT))
def split_lanes(chunk_offsets, chunks, data, scratch, series_lanes, lane_offsets, out):
    """Split each series' chunks into lanes without overlap; return the number of lanes.

    A series without chunks has one empty lane.

    Args:
        chunk_offsets: int64[S + 1]; bounds in `chunks`.
        chunks: CHUNK_DTYPE[C]; of one series about ascending.
        data: uint8[n]; holds every chunk.
        scratch: int64[3 * most chunks of one series].
        series_lanes: int64[S + 1], out; series s has lanes [series_lanes[s], series_lanes[s + 1]).
        lane_offsets: int64[C + S + 1], out; the chunks of lane l in `out`.
        out: CHUNK_DTYPE[C], out; the same chunks, lane after lane.
    """
    lanes = np.int64(0)
    at = np.int64(0)
    series_lanes[0] = 0
    lane_offsets[0] = 0
    for s in range(chunk_offsets.shape[0] - 1):
        first = chunk_offsets[s]
        count = chunk_offsets[s + 1] - first
        order = scratch[:count]
        lane_of = scratch[count : 2 * count]
        ends = scratch[2 * count : 3 * count]
        _order_chunks(chunks, first, count, data, order)
        used = np.int64(0)
        for k in range(count):
            x = chunks[first + order[k]]
            lane = np.int64(0)
            while lane < used and ends[lane] >= x.mint:
                lane += 1
            if lane == used:
                used += 1
            ends[lane] = x.maxt
            lane_of[k] = lane
        for lane in range(max(used, np.int64(1))):
            for k in range(count):
                if lane_of[k] == lane:
                    out[at] = chunks[first + order[k]]
                    at += 1
            lanes += 1
            lane_offsets[lanes] = at
        series_lanes[s + 1] = lanes
    return lanes


@kernel(i64(I64, I64, I64, F64, I64, I64_OUT, I64_OUT, F64_OUT))
def trim_lanes(
    series_lanes, offsets, timestamps, values, options, out_offsets, out_timestamps, out_values
):
    """Keep rising samples inside the bounds, counter resets applied if asked; return how many.

    A series of one lane keeps its resets: nothing will be folded into it.

    Args:
        series_lanes: int64[S + 1]; the lanes of series s.
        offsets: int64[L + 1]; the samples of lane l.
        timestamps: int64[N], ms.
        values: float64[N].
        options: int64[3]; mint, maxt (inclusive ms), and 1 to turn counters into running totals
            without NaN, as downsampled counters are read.
        out_offsets: int64[L + 1], out.
        out_timestamps, out_values: [N], out.
    """
    mint, maxt = options[0], options[1]
    n = np.int64(0)
    s = np.int64(0)
    out_offsets[0] = 0
    for lane in range(offsets.shape[0] - 1):
        while series_lanes[s + 1] <= lane:
            s += 1
        counter = options[2] if series_lanes[s + 1] - series_lanes[s] > 1 else np.int64(0)
        last_t = _START
        last = 0.0
        total = 0.0
        begun = False
        for k in range(offsets[lane], offsets[lane + 1]):
            t, v = timestamps[k], values[k]
            if counter == 1:
                if v != v:
                    continue
                if begun and t <= last_t:
                    # The last sample of a counter chunk repeats its time with the true last value.
                    if t == last_t:
                        last = v
                    continue
                if begun:
                    total += v - last if v >= last else v
                else:
                    total = v
                    begun = True
                last = v
                v = total
            elif begun and t <= last_t:
                continue
            begun = True
            last_t = t
            if mint <= t <= maxt:
                out_timestamps[n] = t
                out_values[n] = v
                n += 1
        out_offsets[lane + 1] = n
    return n


@device
def _level_time(state, timestamps, d):
    """Return the timestamp at which level d stands; level 0 is lane 0."""
    while d > 0:
        if state[d * _WIDTH + _USE_A] == 0:
            return timestamps[state[d * _WIDTH + _POS]]
        d -= 1
    return timestamps[state[_POS]]


@device
def _lane_value(state, values, lane, counter):
    value = values[state[lane * _WIDTH + _POS]]
    if counter == 1:
        return value + bits_float(np.uint64(state[lane * _WIDTH + _ADJUST]))
    return value


@device
def _level_value(state, values, d, counter):
    """Return the value that level d last chose."""
    while d > 0:
        if state[d * _WIDTH + _LAST_A] == 0:
            return _lane_value(state, values, d, counter)
        d -= 1
    return _lane_value(state, values, np.int64(0), counter)


@device
def _adjust_lane(state, values, lane, last):
    value = _lane_value(state, values, lane, 1)
    if last > value:
        adjust = bits_float(np.uint64(state[lane * _WIDTH + _ADJUST]))
        state[lane * _WIDTH + _ADJUST] = np.int64(float_bits(adjust + (last - value)))


@device
def _adjust_level(state, values, d, last):
    """Raise every live lane below level d so that a counter does not fall on a switch."""
    while d > 0:
        if state[d * _WIDTH + _B] == 1:
            _adjust_lane(state, values, d, last)
        if state[d * _WIDTH + _A] == 0:
            return
        d -= 1
    _adjust_lane(state, values, np.int64(0), last)


@device
def _seek_lane(state, timestamps, lane, t):
    """Move a lane forward to its first sample at or after t; return 1, or 0 at its end."""
    base = lane * _WIDTH
    p = state[base + _POS]
    end = state[base + _END]
    while p < end and timestamps[p] < t:
        p += 1
    state[base + _POS] = p
    return np.int64(1) if p < end else np.int64(0)


@device
def _next(state, timestamps, values, d, counter):
    """Advance level d by one sample, and the levels below; return 1, or 0 at its end."""
    base = d * _WIDTH
    if d == 0:
        state[base + _POS] += 1
        return np.int64(1) if state[base + _POS] < state[base + _END] else np.int64(0)
    used_a = state[base + _USE_A]
    alive = state[base + _A] if used_a == 1 else state[base + _B]
    last_value = _level_value(state, values, d, counter) if alive == 1 else 0.0
    target = state[base + _LAST] + 1
    if state[base + _A] == 1:
        goal = target + state[base + _PEN_A]
        if d == 1:
            state[base + _A] = _seek_lane(state, timestamps, np.int64(0), goal)
        else:
            while _level_time(state, timestamps, d - 1) < goal:
                if _next(state, timestamps, values, d - 1, counter) == 0:
                    state[base + _A] = 0
                    break
    if state[base + _B] == 1:
        state[base + _B] = _seek_lane(state, timestamps, d, target + state[base + _PEN_B])
    more = _choose(state, timestamps, d)
    if counter == 1 and alive == 1 and state[base + _USE_A] != used_a:
        _adjust_level(state, values, d, last_value)
    return more


@device
def _choose(state, timestamps, d):
    """Pick the side with the earlier sample and set the other's penalty; return 0 at the end."""
    base = d * _WIDTH
    if state[base + _A] == 0:
        state[base + _USE_A] = 0
        if state[base + _B] == 1:
            state[base + _LAST] = timestamps[state[base + _POS]]
            state[base + _LAST_A] = 0
            state[base + _PEN_B] = 0
        return state[base + _B]
    ta = _level_time(state, timestamps, d - 1)
    if state[base + _B] == 0:
        state[base + _USE_A] = 1
        state[base + _LAST] = ta
        state[base + _LAST_A] = 1
        state[base + _PEN_A] = 0
        return np.int64(1)
    tb = timestamps[state[base + _POS]]
    use_a = np.int64(1) if ta <= tb else np.int64(0)
    t = ta if use_a == 1 else tb
    last = state[base + _LAST]
    penalty = 2 * (t - last) if last != _START else _INITIAL_PENALTY
    state[base + _PEN_A] = 0 if use_a == 1 else penalty
    state[base + _PEN_B] = penalty if use_a == 1 else 0
    state[base + _USE_A] = use_a
    state[base + _LAST_A] = use_a
    state[base + _LAST] = t
    return np.int64(1)


@device
def _open(state, timestamps, values, offsets, first, lanes, counter):
    """Set up the tree over lanes [first, first + lanes): every side stands at its first sample."""
    for lane in range(lanes):
        base = lane * _WIDTH
        for k in range(_WIDTH):
            state[base + k] = 0
        state[base + _LAST] = _START
        state[base + _USE_A] = 1
        state[base + _LAST_A] = 1
        state[base + _POS] = offsets[first + lane] - 1
        state[base + _END] = offsets[first + lane + 1]
    for d in range(1, lanes):
        base = d * _WIDTH
        state[base + _A] = _next(state, timestamps, values, np.int64(d - 1), counter)
        state[base + _POS] += 1
        state[base + _B] = np.int64(1) if state[base + _POS] < state[base + _END] else np.int64(0)


@kernel(i64(I64, I64, I64, F64, i64, I64_OUT, I64_OUT, I64_OUT, F64_OUT))
def fold_penalty(
    series_lanes,
    offsets,
    timestamps,
    values,
    counter,
    state,
    out_offsets,
    out_timestamps,
    out_values,
):
    """Fold each series' lanes by the penalty rule; return the number of samples.

    Args:
        series_lanes: int64[S + 1]; the lanes of series s.
        offsets: int64[L + 1]; the samples of lane l.
        timestamps: int64[N], ms; strictly rising within a lane.
        values: float64[N].
        counter: 1 to keep values from falling when the side changes.
        state: int64[16 * most lanes of one series], scratch.
        out_offsets: int64[S + 1], out.
        out_timestamps, out_values: [N], out.
    """
    n = np.int64(0)
    out_offsets[0] = 0
    for s in range(series_lanes.shape[0] - 1):
        first = series_lanes[s]
        lanes = series_lanes[s + 1] - first
        if lanes == 1:
            for k in range(offsets[first], offsets[first + 1]):
                out_timestamps[n] = timestamps[k]
                out_values[n] = values[k]
                n += 1
        elif lanes > 1:
            _open(state, timestamps, values, offsets, first, lanes, counter)
            top = lanes - 1
            while _next(state, timestamps, values, top, counter) == 1:
                out_timestamps[n] = _level_time(state, timestamps, top)
                out_values[n] = _level_value(state, values, top, counter)
                n += 1
        out_offsets[s + 1] = n
    return n


@device
def _heap_up(heap, position, timestamps, j):
    while j > 0:
        parent = (j - 1) // 2
        if timestamps[position[heap[j]]] >= timestamps[position[heap[parent]]]:
            break
        heap[j], heap[parent] = heap[parent], heap[j]
        j = parent


@device
def _heap_pop(heap, size, position, timestamps):
    """Remove the top of a heap of `size` lanes, in the order of Go's container/heap; return it."""
    n = size - 1
    heap[0], heap[n] = heap[n], heap[0]
    i = np.int64(0)
    while True:
        j = 2 * i + 1
        if j >= n:
            break
        if j + 1 < n and timestamps[position[heap[j + 1]]] < timestamps[position[heap[j]]]:
            j += 1
        if timestamps[position[heap[j]]] >= timestamps[position[heap[i]]]:
            break
        heap[i], heap[j] = heap[j], heap[i]
        i = j
    return heap[n]


@device
def _chain(offsets, timestamps, values, first, lanes, state, out_timestamps, out_values, n):
    """Merge lanes as Prometheus chains iterators; return the next output index."""
    position = state[:lanes]
    heap = state[lanes : 2 * lanes]
    size = np.int64(0)
    position[0] = offsets[first] - 1
    for lane in range(1, lanes):
        position[lane] = offsets[first + lane]
        if position[lane] < offsets[first + lane + 1]:
            heap[size] = lane
            _heap_up(heap, position, timestamps, size)
            size += 1
    current = np.int64(0)
    last = _START
    while True:
        position[current] += 1
        if position[current] >= offsets[first + current + 1]:
            if size == 0:
                return n
        else:
            t = timestamps[position[current]]
            if t == last:
                continue
            if size == 0 or t < timestamps[position[heap[0]]]:
                out_timestamps[n] = t
                out_values[n] = values[position[current]]
                n += 1
                last = t
                continue
            heap[size] = current
            _heap_up(heap, position, timestamps, size)
            size += 1
        current = _heap_pop(heap, size, position, timestamps)
        size -= 1
        t = timestamps[position[current]]
        if t != last:
            out_timestamps[n] = t
            out_values[n] = values[position[current]]
            n += 1
            last = t


@device
def _first_wins(offsets, timestamps, values, first, lanes, position, out_timestamps, out_values, n):
    """Merge lanes by timestamp, the lowest lane winning a tie; return the next output index."""
    for lane in range(lanes):
        position[lane] = offsets[first + lane]
    while True:
        best = np.int64(-1)
        for lane in range(lanes):
            if position[lane] < offsets[first + lane + 1] and (
                best < 0 or timestamps[position[lane]] < timestamps[position[best]]
            ):
                best = lane
        if best < 0:
            return n
        t = timestamps[position[best]]
        out_timestamps[n] = t
        out_values[n] = values[position[best]]
        n += 1
        for lane in range(lanes):
            if position[lane] < offsets[first + lane + 1] and timestamps[position[lane]] == t:
                position[lane] += 1


@kernel(i64(I64, I64, I64, F64, i64, I64_OUT, I64_OUT, I64_OUT, F64_OUT))
def fold_chain(
    series_lanes, offsets, timestamps, values, mode, state, out_offsets, out_timestamps, out_values
):
    """Merge each series' lanes by timestamp, one sample a timestamp; return the number of samples.

    Args:
        series_lanes, offsets, timestamps, values: as `fold_penalty`.
        mode: CHAIN, or FIRST_WINS for overlapping chunks outside of deduplication.
        state: int64[16 * most lanes of one series], scratch.
        out_offsets: int64[S + 1], out.
        out_timestamps, out_values: [N], out.
    """
    n = np.int64(0)
    out_offsets[0] = 0
    for s in range(series_lanes.shape[0] - 1):
        first = series_lanes[s]
        lanes = series_lanes[s + 1] - first
        if lanes == 1:
            for k in range(offsets[first], offsets[first + 1]):
                out_timestamps[n] = timestamps[k]
                out_values[n] = values[k]
                n += 1
        elif lanes > 1 and mode == CHAIN:
            n = _chain(
                offsets, timestamps, values, first, lanes, state, out_timestamps, out_values, n
            )
        elif lanes > 1:
            n = _first_wins(
                offsets, timestamps, values, first, lanes, state, out_timestamps, out_values, n
            )
        out_offsets[s + 1] = n
    return n
