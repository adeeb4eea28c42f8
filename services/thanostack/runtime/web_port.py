"""An HTTP port as its flags and its web configuration file set it up.

    web_port(application, …) ──> HTTPServer ── WebGuard ── application

The file is looked at with every request and every connection; one that turned bad is told once, and
what it said before holds on. A port that began with TLS keeps it: a file without the TLS section
does not make it speak plain text.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.runtime.http_direct import Direct
from thanostack.runtime.http_server import HTTPServer
from thanostack.runtime.process import Process
from thanostack.runtime.reloading import Reloading
from thanostack.runtime.shared_flags import HTTPServerFlags
from thanostack.runtime.tls_options import HTTP_ALPN, ServerTLSOptions
from thanostack.runtime.tls_ports import ServerTLS

if TYPE_CHECKING:  # for ports that have such a file only
    from thanostack.runtime.web_config import WebConfig


def web_port(
    application: Any,
    bound: socket.socket,
    name: str,
    process: Process,
    *,
    grace_s: float,
    config: tuple[str, str] = ("", ""),
    tls: ServerTLSOptions | None = None,
    direct: Direct | None = None,
    last_requests_s: float = 0.0,
) -> HTTPServer:
    """Return a server of one port.

    Args:
        application: ASGI.
        bound: from `listen`.
        name: of the port, in metrics and logs.
        process: that it lives in.
        grace_s: for running requests once the stop begins.
        config: flag and path of a web configuration file; no path for none.
        tls: that flags ask for; it goes before the file's.
        direct: asked before the application, where nothing has to be known of the client.
        last_requests_s: how long idle connections have for one more request once the stop begins.

    Raises:
        SettingsInvalid: if a file is bad.
    """
    flag, path = config
    own = process.tls.server(tls, name, alpn=HTTP_ALPN)
    if not path:
        asked_first = direct if own is None else None
        return HTTPServer(
            application, bound, grace_s=grace_s, tls=own, direct=asked_first,
            last_requests_s=last_requests_s,
        )  # fmt: skip
    from thanostack.runtime.web_guard import WebGuard

    followed = _follow(path, flag, name, process)
    guard = WebGuard(application, followed.current, process.clock)
    if own is None and followed.current().tls is not None:
        own = _tls_of(followed, path, name, process)
    return HTTPServer(guard, bound, grace_s=grace_s, tls=own, last_requests_s=last_requests_s)


def pages_port(
    application: Any, bound: socket.socket, settings: HTTPServerFlags, process: Process
) -> HTTPServer:
    """Return the server of the HTTP port that every container has.

    Raises:
        SettingsInvalid: if `--http.config` or a file that it names is bad.
    """
    return web_port(
        application,
        bound,
        "http",
        process,
        grace_s=settings.http_grace_period / 1000,
        config=("http.config", settings.http_config),
    )


def _follow(path: str, flag: str, name: str, process: Process) -> Reloading[WebConfig]:
    from thanostack.runtime.web_config import read_web_config

    def told(error: SettingsInvalid | None) -> None:
        if error is None:
            process.log.info("web configuration reloaded", port=name)
        else:
            process.log.error(
                "web configuration is bad, keeping the one before", port=name, err=error
            )

    return Reloading(lambda: (path,), lambda: read_web_config(path, flag), told)


def _tls_of(followed: Reloading[WebConfig], path: str, name: str, process: Process) -> ServerTLS:
    last = followed.current().tls

    def options() -> ServerTLSOptions:
        nonlocal last
        last = followed.current().tls or last
        assert last is not None
        return last

    return ServerTLS(process.tls, name, alpn=HTTP_ALPN, options=options, files=(path,))
