"""The open loop's senders as other receivers are: over gRPC, many calls on few connections.

    sender ──RemoteWrite──> one of CHANNELS connections ──> receiver

OK counts as 200, UNAVAILABLE as 503, any other code as itself; there is no `Retry-After` that could
be missing.
"""

from __future__ import annotations

import asyncio
from typing import Final

from thanostack.lib.model.label_runs import uvarint
from thanostack.runtime.error_mapping import GrpcCode
from thanostack.runtime.grpc_client import UnaryChannel
from thanostack.runtime.http2_client import CallEnd
from thanostack.testing.h2_client import plain_message, snappy_message
from thanostack.testing.open_loop import PATIENCE_S, Sender, Senders

CHANNELS: Final = 16
REMOTE_WRITE: Final = "/thanos.WriteableStore/RemoteWrite"
LABEL_NAMES: Final = "/thanos.Store/LabelNames"
_STATUSES: Final = {GrpcCode.OK: 200, GrpcCode.UNAVAILABLE: 503}
_GIVEN_UP: Final = CallEnd(GrpcCode.CANCELLED, "no patience left")
# What this side says of a connection, not the receiver of a call.
_BROKEN: Final = ("cannot connect", "the connection", "keepalive", "the peer")


async def ask(channel: UnaryChannel, message: bytes) -> CallEnd:
    """Make a call and return how it ended; cancelling gives it up.

    Raises:
        ConnectionError: if the connection broke.
    """
    ended: asyncio.Future[CallEnd] = asyncio.get_running_loop().create_future()

    def end(how: CallEnd) -> None:
        if not ended.done():
            ended.set_result(how)

    call = channel.call(memoryview(message), end)
    try:
        how = await ended
    except asyncio.CancelledError:
        call.cancel(_GIVEN_UP)
        raise
    if how.code is GrpcCode.UNAVAILABLE and how.text.startswith(_BROKEN):
        raise ConnectionError(how.text)
    return how


class GrpcSender(Sender):
    """One writer, one call at a time.

    Args:
        number: of the sender.
        n_series: in each request.
        channel: shared with others.
        end: what follows the series in a request.
        is_compressed: with snappy.
    """

    def __init__(
        self, number: int, n_series: int, channel: UnaryChannel, end: bytes, *, is_compressed: bool
    ) -> None:
        super().__init__(number, n_series, b"")
        self._channel, self._end = channel, end
        self._message = snappy_message if is_compressed else plain_message

    async def ask(self, port: int, t: int) -> tuple[int, bool]:
        """Send the samples of a time; return how that is counted."""
        del port
        end = await ask(self._channel, self._message(self.template.plain(t) + self._end))
        return _STATUSES.get(end.code, end.code.value), True

    def close(self) -> None:
        """Do nothing: the connection is others' too, and a call that was given up has ended."""


class GrpcSenders(Senders):
    """All senders of one receiver.

    Args:
        port: of its gRPC endpoint.
        count: how many.
        n_series: of each.
        tenant: whose data it is.
        encoding: `snappy` or `identity`.
    """

    def __init__(self, port: int, count: int, n_series: int, *, tenant: str, encoding: str) -> None:
        self.port, self.n_series = port, n_series
        self.channels = [
            UnaryChannel(f"127.0.0.1:{port}", REMOTE_WRITE, timeout_s=PATIENCE_S, encoding=encoding)
            for _ in range(CHANNELS)
        ]
        name = tenant.encode()
        end = b"\x12" + uvarint(len(name)) + name + b"\x18\x01"  # and the first replica
        self.all = [
            GrpcSender(
                n, n_series, self.channels[n % CHANNELS], end, is_compressed=encoding == "snappy"
            )
            for n in range(count)
        ]

    async def close(self) -> None:
        """Close all connections."""
        for channel in self.channels:
            await channel.close()
