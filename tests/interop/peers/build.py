"""Build the real peers (Prometheus, promtool, Thanos) from the Go module proxy.

python tests/interop/peers/build.py            # build what is missing, print where each is
"""

from __future__ import annotations

from pathlib import Path

from thanostack.testing.go_programs import GoProgram, build

_PROMETHEUS = "github.com/prometheus/prometheus"
_PROMETHEUS_VERSION = "v0.314.0"
_THANOS = "github.com/thanos-io/thanos"
_THANOS_VERSION = "v0.42.4"
# Without slicelabels Thanos v0.42.4 starts but panics on the first write.
_TAGS = "slicelabels"

PEERS = (
    GoProgram("prometheus", _PROMETHEUS, _PROMETHEUS_VERSION, f"{_PROMETHEUS}/cmd/prometheus"),
    GoProgram("promtool", _PROMETHEUS, _PROMETHEUS_VERSION, f"{_PROMETHEUS}/cmd/promtool"),
    GoProgram("thanos", _THANOS, _THANOS_VERSION, f"{_THANOS}/cmd/thanos", tags=_TAGS),
    GoProgram(
        "hashring-vectors",
        _THANOS,
        _THANOS_VERSION,
        tags=_TAGS,
        source=Path(__file__).parent / "vectors",
    ),
)


def main() -> None:
    """Build every missing peer and print where each is."""
    for peer in PEERS:
        print(build(peer))


if __name__ == "__main__":
    main()
