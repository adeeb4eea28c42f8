"""Imports of libraries without the parts of them that nothing here uses.

    prometheus_client   servers of its own, and a client of the push gateway             2.5 MiB
    structlog           its coloured console imports `rich` where that is installed      4
    uvicorn             its command line imports `click` and `multiprocessing`           4
                        what it would read the configuration of logs with                0.5

A process keeps what it imports. Whoever starts one imports this before all else that needs these
libraries, so that they are imported in this way the first time.
"""

from __future__ import annotations

from thanostack.runtime.left_out import hollow, standing_in

with (
    standing_in("http.server", hollow()),
    standing_in("urllib.error", hollow()),
    standing_in("urllib.request", hollow()),
    standing_in("wsgiref.simple_server", hollow()),
):
    import prometheus_client

with standing_in("rich", None):
    import structlog

with (
    standing_in("configparser", hollow()),
    standing_in("logging.config", hollow()),
    standing_in("uvicorn.main", hollow()),
):
    import uvicorn.config
    import uvicorn.server
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

__all__ = ["STATUS_LINE", "HttpToolsProtocol", "prometheus_client", "structlog", "uvicorn"]
