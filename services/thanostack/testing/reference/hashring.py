"""Placing series on a ring, as one would say it, with XXH64 from its library.

Nothing is prepared: the hash of a series is that of its joined labels, a section's replicas are
walked for where they are asked, and a lookup goes through all sections.
"""

import xxhash

from thanostack.testing.reference.protobuf import Malformed, fields

MALFORMED = -1


def _label(body, start, stop):
    texts = {1: b"", 2: b""}
    for number, kind, _, content in fields(body, start, stop):
        if number in texts and kind == 2:
            texts[number] = bytes(body[content[0] : content[1]])
    return texts[1] + b"\xff" + texts[2] + b"\xff"


def hashring_series_hashes(body, bounds, prefix, _packed, hashes):
    """See the kernel."""
    try:
        for s in range(len(hashes)):
            start, stop = bounds[2 * s], bounds[2 * s + 1]
            start = -1 - start if start < 0 else start
            labels = [
                _label(body, *content)
                for number, kind, _, content in fields(body, start, stop)
                if (number, kind) == (1, 2)
            ]
            hashes[s] = xxhash.xxh64(bytes(prefix) + b"".join(labels)).intdigest()
    except Malformed:
        return MALFORMED
    return len(hashes)


def hashring_sections(addresses, offsets, _text, positions):
    """See the kernel."""
    for node in range(len(offsets) - 1):
        address = bytes(addresses[offsets[node] : offsets[node + 1]])
        for i in range(1, 1001):
            section = address + b":" + str(i).encode()
            positions[node * 1000 + i - 1] = xxhash.xxh64(section).intdigest()
    return len(positions)


def hashring_replicas(owners, zones, room, _counts, replicas):
    """See the kernel."""
    for s in range(len(owners)):
        row = []
        spread = dict.fromkeys(range(len(room)), 0)
        for step in range(len(owners) * len(replicas[s])):
            node = int(owners[(s + step) % len(owners)])
            open_zones = [zone for zone in spread if spread[zone] < room[zone]]
            fewest = min((spread[zone] for zone in open_zones), default=1 << 62)
            if node in row or spread[int(zones[node])] > fewest:
                continue
            row.append(node)
            spread[int(zones[node])] += 1
            if len(row) == len(replicas[s]):
                break
        replicas[s, : len(row)] = row
        if len(row) < len(replicas[s]):
            return s
    return len(owners)


def hashring_place_hashmod(hashes, n_nodes, out):
    """See the kernel."""
    for s, value in enumerate(hashes):
        for r in range(len(out[s])):
            out[s, r] = (int(value) + r) % (1 << 64) % n_nodes
    return len(hashes)


def hashring_place_ketama(hashes, positions, _buckets, replicas, out):
    """See the kernel."""
    for s, value in enumerate(hashes):
        later = [i for i, position in enumerate(positions) if int(position) >= int(value)]
        out[s] = replicas[later[0] if later else 0][: len(out[s])]
    return len(hashes)
