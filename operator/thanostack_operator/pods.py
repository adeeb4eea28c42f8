"""What pods themselves say: a router's ring hash, an ingestor's drain. Plain HTTP on port 10902.

Not knowing is an answer: a pod that does not answer within `TIMEOUT_S` gives None, or `unknown`,
with the reason. Answers are bounded, whoever sends them.
"""

from __future__ import annotations

import json
from typing import cast, get_args

import aiohttp

from .manifests.names import HTTP_PORT
from .plan.observed import Drain, DrainState

TIMEOUT_S = 3.0
ANSWER_BYTES_MAX = 4 << 20
HASH_METRIC = "thanos_receive_config_hash "
# The last two: it answers something else than what was asked for, at any depth.
_NO_ANSWER = (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError)


class PodClient:
    """Asks pods by address; one connection pool."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def config_hash(self, address: str) -> tuple[float | None, str]:
        """Return a router's `thanos_receive_config_hash`, or None and why."""
        try:
            text = (await self._ask("GET", address, "/metrics")).decode()
            for line in text.splitlines():
                if line.startswith(HASH_METRIC):
                    return float(line[len(HASH_METRIC) :]), ""
        except _NO_ANSWER as error:
            return None, _reason(error)
        return None, "it has no thanos_receive_config_hash: it is no router"

    async def drain(self, address: str) -> Drain:
        """Return what an ingestor says of its drain."""
        try:
            answer = await self._ask("GET", address, "/-/drain")
            return _parse_drain(answer)
        except _NO_ANSWER as error:
            return Drain("unknown", _reason(error))

    async def start_drain(self, address: str) -> None:
        """Ask an ingestor to drain.

        Raises:
            aiohttp.ClientError, OSError, TimeoutError: if it does not take the request.
        """
        await self._ask("POST", address, "/-/drain")

    async def cancel_drain(self, address: str) -> None:
        """Ask an ingestor to serve again; raises as `start_drain`."""
        await self._ask("DELETE", address, "/-/drain")

    async def _ask(self, method: str, address: str, path: str) -> bytes:
        host = f"[{address}]" if ":" in address else address
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        url = f"http://{host}:{HTTP_PORT}{path}"
        async with self._session.request(method, url, timeout=timeout) as response:
            response.raise_for_status()
            body = bytearray()
            async for piece in response.content.iter_chunked(1 << 16):
                body += piece
                if len(body) > ANSWER_BYTES_MAX:
                    raise ValueError(f"its answer is longer than {ANSWER_BYTES_MAX} bytes")
            return bytes(body)


def _parse_drain(answer: bytes) -> Drain:
    body = json.loads(answer)
    state = body.get("state") if isinstance(body, dict) else None
    if state not in get_args(DrainState):
        raise ValueError(f"it answers {answer[:100]!r} to /-/drain")
    return Drain(cast("DrainState", state), str(body.get("error") or ""))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s"
    return str(error) or type(error).__name__
