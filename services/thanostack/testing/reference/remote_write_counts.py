"""Counting what a request carries, from the protobuf definitions."""

from thanostack.testing.reference.protobuf import Malformed, fields


def remote_write_counts(body, series_field, histogram_field, counts):
    """See the kernel."""
    series = 0
    try:
        for number, kind, _, content in fields(body, 0, len(body)):
            if (number, kind) != (series_field, 2):
                continue
            series += 1
            for inner, inner_kind, _, _ in fields(body, *content):
                if inner_kind == 2 and inner in (2, histogram_field):
                    counts[0 if inner == 2 else 1] += 1
    except Malformed:
        return -1
    return series
