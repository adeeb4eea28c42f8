"""gRPC calls on a connection that is not grpcio's: our own HTTP/2 side.

    socket ── Http2Connection ── Calls of this connection ──┬── on the loop (inline, small)
                                                            ├── in the queue (writes)
                                                            └── in the thread pool (the others)

Serves unary and server-streaming methods; requests may be compressed with snappy (framed) or gzip,
or not at all; answers are not compressed. What only grpcio serves (client streaming and so
reflection, watching health, deflate) is given back: the client is asked to connect again, and told
that this call was not looked at. It repeats the call then, as clients of gRPC do by themselves and
once, and the next connections from its host are grpcio's, whatever they begin with (`grpc_front`).

What is bounded: a message (`message_bytes_max`, before and after decompression), all requests that
are held at once in the process (`ByteBudget`), the time in which a request must be complete, the
calls of a connection (its streams, and jobs whose stream is already gone), the writes that wait
(`CallQueue`), the answer bytes that wait for a slow reader, the time for which a client that may
still be speaking is listened to when its connection ends (`farewell`). Hostile bytes end the
connection and nothing else.

Sources: gRPC "PROTOCOL-HTTP2"; RFC 9113.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from thanostack.lib.foundation.errors import ThanostackError
from thanostack.runtime import grpc_messages as messages
from thanostack.runtime import http2_frames as h2
from thanostack.runtime.error_mapping import GrpcCode, GrpcFailure, error_text, grpc_code
from thanostack.runtime.farewell import Farewell
from thanostack.runtime.grpc_call import CallContext, FinishedCall, ServerStream, Unary
from thanostack.runtime.grpc_http2_call import Http2Call, Http2Service
from thanostack.runtime.http2_connection import STREAMS_MAX, Http2Connection
from thanostack.runtime.http2_frames import ConnectionFailed
from thanostack.runtime.http2_machine import Headers

# Up to here a compressed request is decoded on the loop: about a millisecond.
_INLINE_BYTES_MAX: Final = 1 << 20
# What a connection is worked on in one turn.
_PIECE_BYTES: Final = 1 << 14
_SWEEP_INTERVAL_S: Final = 5.0

_CONTENT: Final = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", messages.ACCEPTED_ENCODINGS.encode()),
)
_ANSWER_HEADERS: Final = h2.encode_headers(_CONTENT)
_NO_GRPC: Final = h2.encode_headers([(b":status", b"415")])
_TRANSPORT_FIELDS: Final = frozenset({b"te", b"content-type"})

Answer = tuple[bytes | None, BaseException | None]


class Http2ServerProtocol(asyncio.Protocol):
    """One connection's calls. It takes over a transport, with the bytes that were read from it.

    Args:
        service: what it shares with others.
        peer: the client's address.
        given_back: called when a call is.
    """

    def __init__(self, service: Http2Service, peer: str, given_back: Callable[[], None]) -> None:
        self._service, self._peer, self._given_back = service, peer, given_back
        self._loop = asyncio.get_running_loop()
        self._connection = Http2Connection(self)
        self._ok_trailers = h2.encode_headers([(b"grpc-status", b"0"), *service.trailers])
        self._calls: dict[int, Http2Call] = {}
        self._n_jobs = 0
        self._transport: asyncio.Transport | None = None
        self._farewell: Farewell | None = None
        self._born = time.monotonic()
        self._is_leaving = self._is_held_back = self._is_waiting = False
        self._rest, self._taken = b"", 0
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)
        self.closed = asyncio.Event()
        self._when_closed: Callable[[Http2ServerProtocol], None] | None = None

    # The transport's side.

    def when_closed(self, callback: Callable[[Http2ServerProtocol], None]) -> None:
        """Call back when the connection has ended."""
        self._when_closed = callback

    def take_over(self, transport: asyncio.Transport, received: bytes) -> None:
        """Serve a transport from here on.

        Args:
            transport: connected; its protocol is replaced.
            received: all that the client sent so far, from the preface on.
        """
        self._transport = transport
        transport.set_protocol(self)
        self.data_received(received)

    def data_received(self, data: bytes) -> None:
        """Feed the machine and write what it answers; much of it in turns with everything else."""
        is_first = not self._rest
        self._rest += data
        while is_first and self._rest and self._service.turns.is_free():
            self._take_piece()
        self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        if self._rest and not self._is_waiting and self._transport is not None:
            self._is_waiting = True
            self._transport.pause_reading()
            self._service.turns.wait(self._go_on)

    def _go_on(self) -> None:
        self._is_waiting = False
        if self._transport is None or self._transport.is_closing():
            return
        self._take_piece()
        self._wait_for_turn()
        self._read_on()

    def _read_on(self) -> None:
        if self._transport is not None and not self._is_waiting and not self._is_held_back:
            self._transport.resume_reading()

    def _take_piece(self) -> None:
        end = self._taken + _PIECE_BYTES
        piece, self._taken = self._rest[self._taken : end], end
        if end >= len(self._rest):
            self._rest, self._taken = b"", 0
        try:
            self._connection.receive(piece, time.monotonic())
        except ConnectionFailed as failure:
            self._fail(failure)
        else:
            self._write()

    def connection_lost(self, _error: Exception | None) -> None:
        """Cancel whatever was asked for."""
        self._detach()
        self.closed.set()
        if self._when_closed is not None:
            self._when_closed(self)

    def _part(self, transport: asyncio.Transport) -> None:
        """Take no more from the client, and close once it has heard all that was said."""
        self._detach()
        self._farewell = Farewell(transport, self.connection_lost)

    def _detach(self) -> None:
        self._sweeper.cancel()
        self._transport, self._rest, self._taken = None, b"", 0
        for stream_id in list(self._calls):
            self.on_reset(stream_id)

    def pause_writing(self) -> None:
        """Hold answers back, and questions too: they would only make more answers."""
        self._is_held_back = True
        if self._transport is not None:
            self._connection.cork(True)
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_held_back = False
        self._read_on()
        if self._transport is not None:
            self._connection.cork(False)
            self._write()

    def go_away(self) -> None:
        """Take no further calls, and close when the open ones are answered."""
        if self._transport is None or self._is_leaving:
            return
        self._is_leaving = True
        self._connection.go_away()
        self._write()

    def close(self) -> None:
        """Close at once."""
        ending = self._transport or self._farewell
        if ending is not None:
            ending.abort()

    def _fail(self, failure: ConnectionFailed) -> None:
        assert self._transport is not None
        self._connection.cork(True)
        self._transport.write(self._connection.take_output())
        self._transport.write(h2.pack_goaway(0, failure.code, str(failure)))
        self._part(self._transport)

    def _write(self) -> None:
        if self._transport is None:
            return
        output = self._connection.take_output()
        if output:
            self._transport.write(output)
        if self._is_leaving and self._connection.n_streams == 0:
            self._part(self._transport)

    def _sweep(self) -> None:
        """Give up on requests that never end, and on connections that are old."""
        now, service = time.monotonic(), self._service
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)
        for stream_id, call in list(self._calls.items()):
            if not call.is_answering and now - call.started > service.request_timeout_s:
                slow = GrpcFailure(GrpcCode.DEADLINE_EXCEEDED, "the request did not end in time")
                self._refuse(stream_id, call, slow)
        if service.connection_age_s and now - self._born > service.connection_age_s:
            self.go_away()
            if now - self._born > service.connection_age_s + service.age_grace_s:
                self.close()
        self._write()

    # The machine's side.

    def on_request(self, stream_id: int, headers: Headers) -> None:
        """Look the method up, or refuse at once."""
        fields = dict(headers)
        content_type = fields.get(b"content-type", b"")
        if fields.get(b":method") != b"POST" or not content_type.startswith(b"application/grpc"):
            self._connection.send_trailers(stream_id, _NO_GRPC)
            return
        timeout_s = messages.parse_timeout_s(fields.get(b"grpc-timeout", b""))
        context = CallContext(_metadata(headers), self._peer, timeout_s)
        method = fields.get(b":path", b"").decode("latin-1")
        encoding = fields.get(b"grpc-encoding", b"identity")
        if self._is_for_grpcio(method, encoding):
            self._is_leaving = True
            self._given_back()
            self._connection.give_back(stream_id)
            return
        call = Http2Call(method, context, encoding, time.monotonic())
        self._calls[stream_id] = call
        handler = self._service.handlers.get(method)
        if handler is not None:
            is_stream = isinstance(handler, ServerStream)
            self._service.observer.started(method, is_stream=is_stream)
        try:
            self._check_request(method, encoding)
        except GrpcFailure as failure:
            self._refuse(stream_id, call, failure)
            return
        if timeout_s is not None:
            call.deadline = self._loop.call_later(timeout_s, self._expire, stream_id)

    def _is_for_grpcio(self, method: str, encoding: bytes) -> bool:
        """Return whether grpcio would serve a call, and nobody here does."""
        is_ours = method not in self._service.elsewhere and encoding in messages.OWN_ENCODINGS
        return encoding in messages.GRPCIO_ENCODINGS and not is_ours

    def _check_request(self, method: str, encoding: bytes) -> None:
        if method not in self._service.handlers:
            is_known = method in self._service.elsewhere
            how = f" with {encoding.decode('latin-1')}" if is_known else ""
            raise GrpcFailure(GrpcCode.UNIMPLEMENTED, f"method {method} is not served here{how}")
        if encoding not in messages.OWN_ENCODINGS:
            raise GrpcFailure(
                GrpcCode.UNIMPLEMENTED,
                f"compression {encoding.decode('latin-1')} is not known; "
                f"use one of {messages.ACCEPTED_ENCODINGS}",
            )
        if self._n_jobs >= STREAMS_MAX:
            raise GrpcFailure(GrpcCode.UNAVAILABLE, "too many calls on this connection")
        if self._service.handlers[method].is_queued:
            self._service.threads.queue.require_room()

    def on_data(self, stream_id: int, data: bytes) -> None:
        """Collect the request, as far as it may go."""
        call = self._calls.get(stream_id)
        if call is None:
            return
        try:
            call.collect(data, self._service)
        except GrpcFailure as failure:
            self._refuse(stream_id, call, failure)

    def on_end(self, stream_id: int) -> None:
        """Run the method: the request is complete."""
        call = self._calls.get(stream_id)
        if call is None:
            return
        try:
            call.require_complete()
            if self._service.handlers[call.method].is_queued:
                self._service.threads.queue.require_room()  # others may have come since its headers
        except GrpcFailure as failure:
            self._refuse(stream_id, call, failure)
            return
        call.is_answering, call.started = True, time.monotonic()
        handler = self._service.handlers[call.method]
        if isinstance(handler, ServerStream):
            self._start_job(stream_id, call, lambda: self._run_stream(stream_id, call, handler))
        elif handler.inline and call.size <= _INLINE_BYTES_MAX:
            self._finish(stream_id, call, self._run_unary(call, handler))
        else:
            self._start_job(stream_id, call, lambda: self._run_unary(call, handler))

    def on_reset(self, stream_id: int) -> None:
        """Tell the handler, if it runs, that nobody waits."""
        call = self._calls.get(stream_id)
        if call is not None:
            self._abandon(stream_id, call, GrpcCode.CANCELLED)

    def on_sent(self, stream_id: int, n_bytes: int) -> None:
        """Let a streaming handler go on once the client has read enough."""
        call = self._calls.get(stream_id)
        if call is not None:
            call.outflow.sent(n_bytes)

    # Ends of a call.

    def _expire(self, stream_id: int) -> None:
        call = self._calls.get(stream_id)
        if call is not None:
            late = GrpcFailure(GrpcCode.DEADLINE_EXCEEDED, "the deadline passed")
            self._refuse(stream_id, call, late)
            self._write()

    def _refuse(self, stream_id: int, call: Http2Call, failure: GrpcFailure) -> None:
        """End a call that its handler has not ended."""
        self._abandon(stream_id, call, failure.code)
        self._send_failure(stream_id, call, failure)

    def _abandon(self, stream_id: int, call: Http2Call, code: GrpcCode) -> None:
        self._forget(stream_id, call, code)
        call.context.cancel()
        call.outflow.close()

    def _forget(self, stream_id: int, call: Http2Call, code: GrpcCode) -> None:
        del self._calls[stream_id]
        if call.deadline is not None:
            call.deadline.cancel()
        if not call.is_in_pool:
            call.release(self._service.budget)
        handler = self._service.handlers.get(call.method)
        if handler is not None:
            is_stream = isinstance(handler, ServerStream)
            duration_s = time.monotonic() - call.started
            finished = FinishedCall(
                call.method, is_stream, code, duration_s, int(call.is_answering), call.n_sent
            )
            self._service.observer.ended(finished)

    def _finish(self, stream_id: int, call: Http2Call, answer: Answer) -> None:
        """Send what a handler returned or raised."""
        body, error = answer
        if error is not None and not isinstance(error, ThanostackError | GrpcFailure):
            self._service.report(call.method, error)
        if self._calls.get(stream_id) is not call:  # nobody waits
            return
        call.context.finish()
        call.n_sent += body is not None
        self._forget(stream_id, call, GrpcCode.OK if error is None else grpc_code(error))
        if error is not None:
            self._send_failure(stream_id, call, error)
            return
        if body is not None:
            self._send_message(stream_id, call, messages.frame_message(body))
        elif not call.has_begun:
            self._connection.send_headers(stream_id, _ANSWER_HEADERS)
        self._connection.send_trailers(stream_id, self._ok_trailers)

    def _send_message(self, stream_id: int, call: Http2Call, message: bytes) -> None:
        if not call.has_begun:
            call.has_begun = True
            self._connection.send_headers(stream_id, _ANSWER_HEADERS)
        self._connection.send_data(stream_id, message)

    def _send_failure(self, stream_id: int, call: Http2Call, error: BaseException) -> None:
        status = (
            (b"grpc-status", b"%d" % grpc_code(error)),
            (b"grpc-message", messages.encode_status_text(error_text(error))),
            *self._service.trailers,
        )
        fields = status if call.has_begun else _CONTENT + status
        self._connection.send_trailers(stream_id, h2.encode_headers(fields))

    # Handlers, on the loop or in the pool.

    def _start_job(self, stream_id: int, call: Http2Call, job: Callable[[], Answer]) -> None:
        threads = self._service.threads
        is_queued = self._service.handlers[call.method].is_queued
        pool = threads.queue if is_queued else threads.others
        try:
            future = self._loop.run_in_executor(pool, job)
        except RuntimeError:  # the pool is shut down
            self._refuse(stream_id, call, GrpcFailure(GrpcCode.UNAVAILABLE, "shutting down"))
            return
        call.is_in_pool = True
        self._n_jobs += 1
        future.add_done_callback(lambda done: self._end_job(stream_id, call, done))

    def _end_job(self, stream_id: int, call: Http2Call, done: asyncio.Future[Answer]) -> None:
        self._n_jobs -= 1
        call.is_in_pool = False
        is_known = self._calls.get(stream_id) is call
        if done.cancelled():
            if is_known:
                self._refuse(stream_id, call, GrpcFailure(GrpcCode.UNAVAILABLE, "shutting down"))
        else:
            self._finish(stream_id, call, done.result())
        if not is_known:
            call.release(self._service.budget)
        self._write()

    def _run_unary(self, call: Http2Call, handler: Unary) -> Answer:
        if not call.context.is_active():  # nobody waits for it any more, and it may be sent anew
            return None, GrpcFailure(GrpcCode.CANCELLED, "given up before its turn came")
        try:
            with call.request(self._service) as request:
                return handler.handle(request, call.context), None
        except Exception as error:  # whatever a handler raises is an answer
            return None, error

    def _run_stream(self, stream_id: int, call: Http2Call, handler: ServerStream) -> Answer:
        try:
            with call.request(self._service) as request:
                answers = handler.handle(request, call.context)
                with contextlib.closing(answers):  # type: ignore[type-var]
                    for body in answers:
                        message = messages.frame_message(body)
                        if not call.outflow.add(len(message)):
                            break
                        self._loop.call_soon_threadsafe(self._push, stream_id, call, message)
        except Exception as error:  # whatever a handler raises is an answer
            return None, error
        return None, None

    def _push(self, stream_id: int, call: Http2Call, message: bytes) -> None:
        if self._calls.get(stream_id) is call:
            call.n_sent += 1
            self._send_message(stream_id, call, message)
            self._write()


def _metadata(headers: Headers) -> dict[str, str]:
    """Return the request's own metadata, without what belongs to the transport."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers
        if not name.startswith((b":", b"grpc-"))
        and not name.endswith(b"-bin")
        and name not in _TRANSPORT_FIELDS
    }
