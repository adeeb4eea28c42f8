"""The operator's log is logfmt, as that of the services: one line an event, whatever is said."""

from __future__ import annotations

import logging
import sys

from thanostack_operator.log_lines import LogfmtFormatter


def line(level, message, *arguments, exc_info=None):
    record = logging.LogRecord("kopf", level, "", 0, message, arguments, exc_info)
    record.created = 1_700_000_000.5
    return LogfmtFormatter().format(record)


def test_a_line_has_fields_that_can_be_taken_apart():
    """It had a space in the time and no quotes around the message."""
    start = "ts=2023-11-14T22:13:20.500Z level=warn component=operator logger=kopf "
    assert f'{start}msg="a \\"b\\" x=1"' == line(logging.WARNING, 'a "b" x=%d', 1)


def test_an_event_is_one_line():
    """Line breaks of messages and tracebacks are escaped."""
    try:
        {}["x"]
    except KeyError:
        text = line(logging.ERROR, "it\nbroke", exc_info=sys.exc_info())
    assert "\n" not in text
    assert " level=error " in text
    assert 'msg="it\\nbroke" exception="Traceback' in text
