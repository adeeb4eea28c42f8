"""A relay before one port: it passes everything on, or answers late, or says nothing any more.

    client ──requests──> relay ──at once──> port
    client <──answers, as much later as it was told── relay <── port

*Late* is a peer that works slowly: each of its bytes comes so much later, in order. *Silent* is one
whose host is gone: connections stay, and no byte passes either way. Both are there for those who
connect through the relay, and for nobody else.

One thread does everything. What it passes on waits for whoever reads it: a port that reads nothing
stops its relay, as it would stop its clients.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque
from typing import Final

_TICK_S: Final = 0.02
_READ_BYTES: Final = 1 << 18


class Relay:
    """Passes connections on to a port.

    Args:
        target: host and port.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._others: dict[socket.socket, socket.socket] = {}
        self._from_target: set[socket.socket] = set()
        self._held: deque[tuple[float, socket.socket, bytes]] = deque()
        self._delay_s, self._is_silent, self._ends = 0.0, False, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def set_delay(self, seconds: float) -> None:
        """Pass on what the port answers from now on so much later."""
        self._delay_s = seconds

    def set_silent(self, is_silent: bool) -> None:
        """Say nothing from now on, or begin anew: what was connected meanwhile is cut off."""
        self._is_silent = is_silent

    def close(self) -> None:
        """End."""
        self._ends = True
        self._thread.join()

    def _run(self) -> None:
        was_silent = False
        while not self._ends:
            if was_silent and not self._is_silent:
                for end in list(self._others):
                    self._drop(end)
            was_silent = self._is_silent
            if was_silent:
                time.sleep(_TICK_S)
                continue
            self._release()
            for key, _ in self._selector.select(self._wait_s()):
                self._serve(key.fileobj)  # type: ignore[arg-type]
        for end in (*self._others, self._listener):
            end.close()
        self._selector.close()

    def _wait_s(self) -> float:
        if not self._held:
            return _TICK_S
        return min(_TICK_S, max(0.0, self._held[0][0] - time.monotonic()))

    def _release(self) -> None:
        while self._held and self._held[0][0] <= time.monotonic():
            _, end, data = self._held.popleft()
            self._pass_on(end, data)

    def _serve(self, ready: socket.socket) -> None:
        if ready is self._listener:
            self._accept()
            return
        if ready not in self._others:
            return
        try:
            data = ready.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._drop(ready)
        elif ready in self._from_target and (self._held or self._delay_s):
            # Not before what is held already, should the delay have become shorter meanwhile.
            last_s = self._held[-1][0] if self._held else 0.0
            self._held.append((max(last_s, time.monotonic() + self._delay_s), ready, data))
        else:
            self._pass_on(ready, data)

    def _pass_on(self, end: socket.socket, data: bytes) -> None:
        """Send what came from one end to the other, if they are still connected."""
        other = self._others.get(end)
        if other is None:
            return
        try:
            other.sendall(data)
        except OSError:
            self._drop(end)

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        try:
            onward = socket.create_connection(self._target, timeout=5)
        except OSError:
            accepted.close()
            return
        onward.settimeout(None)
        self._from_target.add(onward)
        for one, other in ((accepted, onward), (onward, accepted)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._others[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _drop(self, end: socket.socket) -> None:
        for one in (end, self._others.get(end)):
            if one is not None and self._others.pop(one, None) is not None:
                self._from_target.discard(one)
                self._selector.unregister(one)
                one.close()
