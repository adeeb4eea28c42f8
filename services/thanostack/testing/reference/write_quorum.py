"""Plain-Python twin of the kernel that counts answers."""


def quorum_count(series, first, needed, waited, counts):
    """See the kernel."""
    for s in series:
        waited[first + s] -= 1
        counts[first + s] += 1
    return sum(counts[first + s] == needed for s in series)
