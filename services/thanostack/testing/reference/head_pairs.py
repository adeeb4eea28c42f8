"""Records of label pairs and names with dictionaries, on a `HeadModel`."""

import xxhash

PAIRS_FULL, POSTINGS_FULL = -5, -6


def fill(table, entries):
    """Enter (hash, low bits, index) into an empty table, probing linearly."""
    for hashed, low, index in entries:
        slot = low % len(table)
        while table[slot]:
            slot = (slot + 1) % len(table)
        table[slot] = hashed << 32 | index + 1
    return len(entries)


def head_rehash_pairs(head, table):
    """Enter every record: the hash's low half is tag and place."""
    hashes = [xxhash.xxh64_intdigest(record.data) & 0xFFFFFFFF for record in head.records]
    return fill(table, [(hashed, hashed, p) for p, hashed in enumerate(hashes)])


def head_find_pair(head, pair):
    """Look a record up."""
    return head.by_record.get(pair.tobytes(), -1)


def _newest(numbers):
    return max(numbers, default=-1)


def head_next_pair(head, kind, index):
    """Give the newest name, the name before, or the pair before (of a name: its newest pair)."""
    records = list(enumerate(head.records))
    if kind == 0:
        return _newest(p for p, record in records if record.name < 0)
    if kind == 1:
        return _newest(p for p, record in records[:index] if record.name < 0)
    if head.records[index].name < 0:
        return _newest(p for p, record in records if record.name == index)
    name = head.records[index].name
    return _newest(p for p, record in records[:index] if record.name == name)


def head_name_pairs(head, name, out):
    """List the pairs of a name, newest first."""
    found = [p for p, record in enumerate(head.records) if record.name == name][::-1]
    out[: len(found)] = found[: len(out)]
    return len(found)


def head_pair_values(head, records, offsets, out):
    """Copy the values of pairs."""
    at = offsets[0] = 0
    for k, p in enumerate(records.tolist()):
        data = head.records[p].data
        owner = head.records[head.records[p].name].data
        size = len(data) - len(owner)
        # What follows the name: 12, a length of one to ten bytes, the value.
        width = next(w for w in range(1, 11) if data[len(owner) + w] < 128)
        value = data[len(owner) + 1 + width :]
        assert len(value) == size - 1 - width
        if at + len(value) <= len(out):
            out[at : at + len(value)] = list(value)
        at += len(value)
        offsets[k + 1] = at
    return at
