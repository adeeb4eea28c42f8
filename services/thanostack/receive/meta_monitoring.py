"""Active series of all receivers together, as a meta-monitoring counts them.

Asked every 15 seconds. A tenant that it does not name, and every tenant while it does not answer,
passes: the count of this process still holds for each.

Source: Thanos `pkg/receive/head_series_limiter.go`, `pkg/promclient/promclient.go`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from thanostack.lib.foundation.errors import InvalidInput
from thanostack.receive.limits_file import HTTPClient, MetaMonitoring

if TYPE_CHECKING:  # heavy, and rarely needed
    import httpx

INTERVAL_S: Final = 15.0
_TIMEOUT_S: Final = 10.0
_TENANT: Final = "tenant"

Failed = Callable[[Exception], None]


class MetaMonitoringCounts:
    """Series by tenant, as of the last poll.

    Args:
        failed: told about each poll that failed.
    """

    def __init__(self, failed: Failed) -> None:
        self._failed = failed
        self._asked: MetaMonitoring | None = None
        self._client: httpx.AsyncClient | None = None
        self._replaced: list[httpx.AsyncClient] = []
        self._wake = asyncio.Event()
        self.series: Mapping[str, float] = {}

    def ask(self, asked: MetaMonitoring | None) -> None:
        """Poll this from now on, or nothing.

        Raises:
            InvalidInput: if its client's files or addresses cannot be used; what was asked stays.
        """
        if asked == self._asked:
            return
        client = None
        if asked is not None:
            _query_url(asked)
            client = make_client(asked.client)
        self._replace_client(client)
        self._asked, self.series = asked, {}
        self._wake.set()

    async def poll_forever(self) -> None:
        """Poll at once, then at intervals and when another place is to be asked."""
        try:
            while True:
                self._wake.clear()
                await self._close_replaced()
                await self.poll()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), INTERVAL_S)
        finally:
            self._replace_client(None)
            await self._close_replaced()

    def _replace_client(self, client: httpx.AsyncClient | None) -> None:
        if self._client is not None:
            # A poll may use it now; it is closed between two.
            self._replaced.append(self._client)
        self._client = client

    async def _close_replaced(self) -> None:
        while self._replaced:
            await self._replaced.pop().aclose()

    async def poll(self) -> None:
        """Ask once; a failure is reported and leaves nothing known."""
        asked, client = self._asked, self._client
        if asked is None or client is None:
            return
        try:
            series = await _ask(asked, client)
        except (InvalidInput, OSError, ValueError) as error:
            self.series = {}
            self._failed(error)
            return
        if asked is self._asked:
            self.series = series


def _query_url(asked: MetaMonitoring) -> httpx.URL:
    import httpx

    try:
        url = httpx.URL(asked.url)
        return url.copy_with(path=url.path.rstrip("/") + "/api/v1/query")
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidInput(f"{asked.url} is not a valid meta-monitoring URL: {error}") from error


async def _ask(asked: MetaMonitoring, client: httpx.AsyncClient) -> Mapping[str, float]:
    import httpx

    parameters = {
        "query": asked.query,
        "time": f"{time.time():.3f}",
        "dedup": "true",
        "partial_response": "false",
    }
    # Also what the certificate must bear.
    name = asked.client.server_name
    extensions = {"sni_hostname": name} if name else {}
    try:
        response = await client.get(_query_url(asked), params=parameters, extensions=extensions)
    except httpx.HTTPError as error:
        raise InvalidInput(f"{asked.url}: {str(error) or type(error).__name__}") from error
    if response.status_code != HTTPStatus.OK:
        raise InvalidInput(f"{asked.url} answered {response.status_code}: {response.text[:200]}")
    try:
        return _by_tenant(response.json())
    except (ValueError, LookupError, TypeError) as error:
        raise InvalidInput(f"{asked.url} did not answer with a vector: {error}") from error


def _by_tenant(answer: Any) -> Mapping[str, float]:
    if answer["data"]["resultType"] != "vector":
        raise InvalidInput(f"the query gives a {answer['data']['resultType']}, not a vector")
    return {
        entry["metric"][_TENANT]: float(entry["value"][1])
        for entry in answer["data"]["result"]
        if _TENANT in entry["metric"]
    }


def make_client(options: HTTPClient) -> httpx.AsyncClient:
    """Return a client for what the file says.

    Raises:
        InvalidInput: if a file cannot be read, or an address is none.
    """
    import httpx

    try:
        return httpx.AsyncClient(
            timeout=_TIMEOUT_S,
            trust_env=False,
            verify=_tls(options),
            proxy=options.proxy_url or None,
            auth=_credentials(options),
            headers=_bearer(options),
        )
    except (OSError, ValueError, httpx.InvalidURL) as error:
        raise InvalidInput(f"improper http client config: {error}") from error


def _tls(options: HTTPClient) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.ca_file or None)
    if options.cert_file:
        context.load_cert_chain(options.cert_file, options.key_file or None)
    if options.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _credentials(options: HTTPClient) -> tuple[str, str] | None:
    if not options.username:
        return None
    if options.password_file:
        return options.username, Path(options.password_file).read_text("utf-8").strip()
    return options.username, options.password


def _bearer(options: HTTPClient) -> dict[str, str]:
    token = options.bearer_token
    if options.bearer_token_file:
        token = Path(options.bearer_token_file).read_text("utf-8").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}
