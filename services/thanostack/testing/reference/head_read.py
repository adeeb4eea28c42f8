"""Snapshots and truncation, on a `HeadModel`."""

from thanostack.testing.reference.head_model import NEVER, NO_TIME, ClosedChunk

FULL = -1


def head_labels(head, rows, offsets, out):
    """Copy label runs; a freed row has none."""
    at = offsets[0] = 0
    for k, r in enumerate(rows.tolist()):
        run = head.rows[r].run or b""
        if at + len(run) <= len(out):
            out[at : at + len(run)] = list(run)
        at += len(run)
        offsets[k + 1] = at
    return at


def _closed(head, r, mint, maxt):
    """Return (mint, maxt, ref or -1, bytes or None, length) of closed chunks, newest first."""
    return [
        (chunk.mint, chunk.maxt, chunk.ref, None, chunk.length)
        if chunk.ref >= 0
        else (chunk.mint, chunk.maxt, -1, chunk.data, chunk.length)
        for chunk in reversed(head.chunks_of(r))
        if chunk.mint <= maxt and chunk.maxt >= mint
    ]


def _opened(row, mint, maxt):
    """Return the same of the open chunk, if it overlaps."""
    if row.open is None or row.open.mint > maxt or row.last_t < mint:
        return []
    data = row.open.encoded()
    return [(row.open.mint, row.last_t, -1, data, len(data))]


def head_snapshot(head, rows, mint, maxt, offsets, chunks, refs, out):
    """Describe the chunks of rows that overlap, in order, and copy what no file has."""
    at = n = offsets[0] = 0
    for k, r in enumerate(rows.tolist()):
        row, first = head.rows[r], n
        closed = _closed(head, r, mint, maxt) if row.run is not None else []
        opened = _opened(row, mint, maxt) if row.run is not None else []
        for low, high, ref, data, length in [*closed, *opened]:
            if n >= len(chunks) or at + length > len(out):
                return FULL
            chunks[n] = (low, high, -1 if data is None else at, length, 1)
            refs[n] = ref
            if data is not None:
                out[at : at + length] = list(data)
                at += length
            n += 1
            if n == first + len(closed):
                # They were found from the newest back.
                for column in (chunks, refs):
                    column[first:n] = column[first:n][::-1].copy()
        offsets[k + 1] = n
    return at


def head_place_closed(head, refs, first):
    """Note where chunks are now."""
    for k, ref in enumerate(refs.tolist()):
        head.closed[first + k].ref = ref
        head.closed[first + k].frame = b""
    head.closed_top = 0
    return len(refs)


def head_frame_lengths(head, first, lengths):
    """Measure pending frames."""
    pending = head.closed[first:]
    lengths[: len(pending)] = [len(chunk.frame) for chunk in pending]
    return len(pending)


def head_drop_before(head, mint):
    """Keep the chunks that reach mint."""
    before = len(head.closed)
    head.closed = [chunk for chunk in head.closed if chunk.maxt >= mint]
    head.chunks_removed += before - len(head.closed)
    starts, empty = [chunk.mint for chunk in head.closed], 0
    for r, row in enumerate(head.rows):
        if row.run is None:
            continue
        if row.open is not None and row.last_t < mint:
            row.open = None
            head.chunks_removed += 1
        if row.open is not None:
            starts.append(row.open.mint)
        elif not head.chunks_of(r):
            empty += 1
    head.mint = max(mint, min(starts, default=NO_TIME))
    return empty


def head_attach_chunks(head, rows, mints, maxts, refs, lengths):
    """Put chunks between the others of their rows where they overlap nothing."""
    columns = (column.tolist() for column in (rows, mints, maxts, refs, lengths))
    count = 0
    for r, mint, maxt, ref, length in zip(*columns, strict=True):
        if r < 0:
            continue
        row, others = head.rows[r], head.chunks_of(r)
        if any(chunk.mint <= maxt and chunk.maxt >= mint for chunk in others):
            continue
        is_newest = all(chunk.maxt < mint for chunk in others)
        if row.open is not None and row.open.mint <= maxt:
            continue
        if row.open is None and is_newest and row.last_t != NEVER and mint <= row.last_t:
            continue
        head.closed.append(ClosedChunk(r, mint, maxt, ref, length))
        # The row's places in the list stay; what is in them ascends.
        places = [i for i, chunk in enumerate(head.closed) if chunk.row == r]
        ascending = sorted(head.chunks_of(r), key=lambda chunk: chunk.mint)
        for place, chunk in zip(places, ascending, strict=True):
            head.closed[place] = chunk
        if is_newest and row.open is None:
            row.last_t = maxt
        count += 1
    head.chunks_made += count
    return count
