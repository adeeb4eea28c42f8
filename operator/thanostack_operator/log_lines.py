"""The operator's log: logfmt, a line an event, as the services have it.

    ts=2026-11-22T09:44:43.739Z level=info component=operator logger=… msg="lease acquired …"

What libraries say comes out in the same form. A traceback is one field, so a line stays one.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Final

_LEVELS: Final = {"WARNING": "warn", "CRITICAL": "error"}


class LogfmtFormatter(logging.Formatter):
    """Writes records as logfmt."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one record."""
        moment = datetime.fromtimestamp(record.created, UTC)
        level = _LEVELS.get(record.levelname, record.levelname.lower())
        fields = {
            "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "component": "operator",
            "logger": record.name,
            "msg": _quoted(record.getMessage()),
        }
        if record.exc_info:
            fields["exception"] = _quoted(self.formatException(record.exc_info))
        return " ".join(f"{name}={value}" for name, value in fields.items())


def _quoted(text: str) -> str:
    # JSON's escapes are those of Go's quotes, as far as log parsers care.
    return json.dumps(text, ensure_ascii=False)
