"""Structured logs on standard error: one event a line, logfmt or JSON.

    ts=2026-11-22T09:44:43.739Z level=info component=receive msg="storage is open" tenants=3

Messages are constant and lower-case; facts are fields. Whatever libraries say through the standard
`logging` module at warning or above comes out in the same form, under the field `logger`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

from thanostack.runtime.lean_imports import structlog

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
Logger = structlog.typing.FilteringBoundLogger


def _short_level(
    _: Any, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    event["level"] = {"warning": "warn", "critical": "error", "exception": "error"}.get(name, name)
    return event


def _plain_values(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key, value in event.items():
        if not isinstance(value, str | int | float | bool | None):
            event[key] = str(value)
        if isinstance(value, float):
            event[key] = round(value, 6)
    return event


class _Forward(logging.Handler):
    """Brings records of libraries into our form."""

    def __init__(self, log: Logger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = {"logger": record.name, "text": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            facts["exc_info"] = record.exc_info
        level = logging.ERROR if record.levelno >= logging.ERROR else logging.WARNING
        self._log.log(level, "message from a library", **facts)


def configure(component: str, *, level: str, form: str, stream: TextIO | None = None) -> Logger:
    """Set up logs for this process and return the component's logger.

    Args:
        component: bound to every line.
        level: error, warn, info or debug.
        form: logfmt or json.
        stream: where lines go; standard error by default.
    """
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.processors.LogfmtRenderer(
            key_order=["ts", "level", "component", "msg"], drop_missing=True, bool_as_flag=False
        )
    )
    structlog.configure(
        processors=[
            _short_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.EventRenamer("msg"),
            _plain_values,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    log: Logger = structlog.get_logger().bind(component=component)
    logging.basicConfig(handlers=[_Forward(log)], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    return log
