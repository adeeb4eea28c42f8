"""Measuring label runs, from docs/formats/label-run.md."""

from thanostack.testing.reference.protobuf import fields


def label_measures(data, bounds, chosen, measures):
    """See the kernel."""
    for k, s in enumerate(chosen):
        names, values = [0], [0]
        for _, _, _, label in fields(data, int(bounds[2 * s]), int(bounds[2 * s + 1])):
            (_, _, _, name), (_, _, _, value) = fields(data, *label)
            names.append(name[1] - name[0])
            values.append(value[1] - value[0])
        measures[3 * k : 3 * k + 3] = len(names) - 1, max(names), max(values)
    return len(chosen)
