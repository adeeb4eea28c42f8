"""Break a receive cluster under load, run after run, and prove what it promises.

Replication factor 3, four senders without retries. A run draws three to five faults by its seed;
each prints a line. While a quorum lives no write is refused, all that is acknowledged is readable,
and nothing is readable that was never sent.

    plain      two routers and five ingestors, three or five of which are in the ring
    hostile    the same with a link that is cut and a disk that is full; needs root
    sloppy     the same as plain with --receive.sloppy-quorum
    nodes      three or five nodes, each a router and an ingestor

Run it by hand or by `make soak`. The cluster lives through all runs; `--fault` chooses the faults.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from thanostack.testing.receive_cluster import log_tails
from thanostack.testing.receive_faults import CLUSTERS, drawn
from thanostack.testing.receive_trial import END, Trial
from thanostack.testing.write_senders import Senders

SUMMED = ("sent", "acknowledged", "cut", "readable", "lost", "invented")


def parse():
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--fault", action="append", help="in this order, in each run")
    parser.add_argument("--cluster", choices=CLUSTERS, default="plain")
    parser.add_argument("--ring", type=int, choices=(3, 5), default=3, help="its size at first")
    parser.add_argument("--folder", type=Path, help="a temporary one if not given")
    return parser.parse_args()


def run(cluster, faults, seed, names):
    """Return the tallies of one run."""
    source, tallies = random.Random(seed), []
    chosen = (
        [(name, faults[name]) for name in names]
        if names
        else drawn(source, cluster.ring_size, faults)
    )
    for tally in Trial(cluster, Senders(seed, cluster.service), source).run(chosen):
        print(tally, *tally.details[:10], sep="\n    ", flush=True)
        tallies.append(tally)
    return tallies


def show_sum(tallies, seconds):
    """Print what all runs came to."""
    total = Counter({name: sum(getattr(tally, name) for tally in tallies) for name in SUMMED})
    total["refused"] = sum(tally.refused.total() for tally in tallies)
    faults = Counter(f"{t.fault} (ring of {t.ring})" for t in tallies if t.fault != END)
    for name, n in sorted(faults.items()):
        print(f"{name:36} {n}")
    for name in ("sent", "acknowledged", "refused", *SUMMED[2:]):
        print(f"{name:36} {total[name]}")
    print(f"{'seconds':36} {seconds:.0f}")


def main():
    """Run; the exit code is 1 when a write was refused or a sample lost or invented."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # and end what runs
    folder = Path(tempfile.mkdtemp(prefix="receive-faults-", dir=options.folder))
    print(f"seeds from {options.seed}, cluster in {folder}", flush=True)
    tallies, begun_s = [], time.monotonic()
    with CLUSTERS[options.cluster](folder, options.ring) as (cluster, faults):
        for seed in range(options.seed, options.seed + options.runs):
            tallies += run(cluster, faults, seed, options.fault)
            if not all(tally.is_good for tally in tallies):
                print(log_tails(cluster))
                break
    show_sum(tallies, time.monotonic() - begun_s)
    if not all(tally.is_good for tally in tallies):
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
