"""Stands before an HTTP port's application as its web configuration says.

    rate limit ──429──> headers ──> user and password ──401──> application

Order and texts are upstream's; its configuration holds for the whole port, probes and metrics too.

A password costs a bcrypt comparison, tens of milliseconds on purpose. One runs at a time, in a
thread; what was compared is remembered for a bounded number of passwords, as a keyed digest and
never as it is. An unknown user costs the same comparison, so that names cannot be found by timing.

Bounds: passwords remembered; requests that wait for a comparison, beyond which 503 is answered.
Source: Prometheus exporter-toolkit v0.17.1, `web/handler.go`, `web/cache.go`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from thanostack.lib.foundation.clock import Clock
from thanostack.runtime.http_common import (
    ASGI,
    Answer,
    Message,
    Receive,
    Scope,
    Send,
    error_answer,
    send_answer,
)
from thanostack.runtime.web_config import WebConfig

PASSWORDS_KEPT: Final = 100
WAITING_MAX: Final = 32
# Upstream: the hash of "fakepassword", which unknown users are compared with.
_NOBODY: Final = b"$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
_PASSWORD_BYTES: Final = 72
_RETRY: Final = (b"retry-after", b"1")
_UNAUTHORIZED: Final = error_answer(401, "Unauthorized", (b"www-authenticate", b"Basic"))
_TOO_MANY: Final = error_answer(429, "Too Many Requests", _RETRY)
_BUSY: Final = error_answer(503, "Service Unavailable", _RETRY)


class WebGuard:
    """An ASGI application around another.

    Args:
        application: what is guarded.
        config: returns what the file says now.
        clock: for the rate limit.
    """

    def __init__(self, application: ASGI, config: Callable[[], WebConfig], clock: Clock) -> None:
        self._application, self._config, self._clock = application, config, clock
        self._passwords = Passwords()
        self._tokens, self._filled_s = -1.0, 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let it through."""
        config = self._config()
        if not self._has_token(config):
            await send_answer(send, _TOO_MANY)
            return
        guarded = _with_headers(send, config.headers) if config.headers else send
        refusal = await self._refusal(scope, config) if config.users else None
        if refusal is None:
            await self._application(scope, receive, guarded)
        else:
            await send_answer(guarded, refusal)

    def _has_token(self, config: WebConfig) -> bool:
        """Take one of the tokens that come back one an interval, up to the burst."""
        if not config.interval_s:
            return True
        now_s = self._clock.monotonic_s()
        grown = self._tokens + (now_s - self._filled_s) / config.interval_s
        self._tokens = config.burst if self._tokens < 0 else min(config.burst, grown)
        self._filled_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def _refusal(self, scope: Scope, config: WebConfig) -> Answer | None:
        given = _credentials(scope)
        if given is None:
            return _UNAUTHORIZED
        name, password = given
        hashed = config.users.get(name, _NOBODY)
        is_right = self._passwords.known(name, hashed, password)
        if is_right is None:
            if self._passwords.n_waiting >= WAITING_MAX:
                return _BUSY
            is_right = await self._passwords.compare(name, hashed, password)
        return None if is_right and name in config.users else _UNAUTHORIZED


class Passwords:
    """Compares passwords with hashes, and remembers what was compared."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        self._secret = secrets.token_bytes(32)
        self._one_at_a_time = asyncio.Lock()
        self.n_waiting = 0

    def known(self, name: str, hashed: bytes, password: bytes) -> bool | None:
        """Return what a comparison gave; None if it was not made, or is forgotten."""
        key = self._key(name, hashed, password)
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    async def compare(self, name: str, hashed: bytes, password: bytes) -> bool:
        """Return whether a password is the hash's; remember it."""
        self.n_waiting += 1
        try:
            async with self._one_at_a_time:
                known = self.known(name, hashed, password)
                if known is not None:  # compared while this one waited
                    return known
                is_right = await asyncio.to_thread(_is_right, password, hashed)
        finally:
            self.n_waiting -= 1
        while len(self._known) >= PASSWORDS_KEPT:
            self._known.popitem(last=False)
        self._known[self._key(name, hashed, password)] = is_right
        return is_right

    def _key(self, name: str, hashed: bytes, password: bytes) -> bytes:
        parts = (name.encode(), hashed, password)
        joined = b"".join(b"%d:%s" % (len(part), part) for part in parts)
        return hashlib.blake2b(joined, key=self._secret, digest_size=32).digest()


def _is_right(password: bytes, hashed: bytes) -> bool:
    import bcrypt  # for ports with passwords only

    # As Go's, which looks at no more of a password; the library refuses more.
    return bcrypt.checkpw(password[:_PASSWORD_BYTES], hashed)


def _credentials(scope: Scope) -> tuple[str, bytes] | None:
    """Return the name and password of a request, None if it has none that can be read."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, encoded = value.partition(b" ")
            if scheme.lower() != b"basic":
                return None
            try:
                user, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
                return (user.decode(), password) if colon else None
            except (binascii.Error, UnicodeDecodeError):
                return None
    return None


def _with_headers(send: Send, headers: tuple[tuple[bytes, bytes], ...]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = message.get("headers", ())
            names = {name.lower() for name, _ in own}
            message["headers"] = [*own, *(h for h in headers if h[0] not in names)]
        await send(message)

    return sending
