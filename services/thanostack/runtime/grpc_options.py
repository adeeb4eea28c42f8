"""Bounds and times of a gRPC port."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from thanostack.runtime.grpc_call import DEFAULT_THREADS, MESSAGE_BYTES_MAX
from thanostack.runtime.grpc_front import FrontLimits

# Clients of Thanos ping every 10 s. Go's timers and the network make that a little less at times,
# and grpcio cuts a client off at the third ping that comes too early.
PING_INTERVAL_S: Final = 9.0


@dataclass(frozen=True, slots=True)
class GrpcOptions:
    """Bounds and times of a gRPC server.

    Args:
        threads: calls that run at once, of each kind and on each side; the others wait.
        queued_threads: queued calls that run at once (`Unary.is_queued`).
        queued_max: how many of those may wait.
        message_bytes_max: of one request; 0 is not "no limit" but an error.
        requests_bytes_max: of all requests at once that our own HTTP/2 side holds.
        connection_age_s: after which a client is asked to connect again, so that it sees new
            addresses; 0 for never. `--grpc-server-max-connection-age`.
        ping_interval_s: clients that ping more often, and get no data, are cut off.
        front: bounds for connections that have not asked for anything yet.
        role: what the server says that it is, in every answer; empty for nothing.
        is_rarely_asked: whether grpcio, some 20 MiB, is started by the first client that needs it;
            that client waits for it.
    """

    threads: int = DEFAULT_THREADS
    queued_threads: int = DEFAULT_THREADS
    queued_max: int = 1000
    message_bytes_max: int = MESSAGE_BYTES_MAX
    requests_bytes_max: int = 1 << 30
    connection_age_s: float = 3600.0
    ping_interval_s: float = PING_INTERVAL_S
    front: FrontLimits = field(default_factory=FrontLimits)
    role: str = ""
    is_rarely_asked: bool = False

    def __post_init__(self) -> None:
        assert self.threads > 0
        assert 0 < self.message_bytes_max <= self.requests_bytes_max
