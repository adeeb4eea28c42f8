"""One event a line, in logfmt or JSON, also for what libraries say."""

from __future__ import annotations

import io
import json
import logging
import warnings

import pytest
import structlog

from thanostack.runtime.logs import configure


@pytest.fixture
def stream():
    stream = io.StringIO()
    before = logging.getLogger().handlers[:]
    yield stream
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = before
    logging.captureWarnings(False)


def test_logfmt_begins_with_time_level_and_component(stream):
    """Order of the first fields is fixed, values are quoted where needed."""
    log = configure("receive", level="info", form="logfmt", stream=stream)
    log.warning(
        "write went wrong", tenant="a b", err=ValueError("x \n y"), duration_s=1 / 3, ok=True
    )
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert ' level=warn component=receive msg="write went wrong" ' in line
    assert line.startswith("ts=")
    assert 'tenant="a b"' in line
    assert r'err="x \n y"' in line
    assert "duration_s=0.333333 ok=true" in line


def test_json_has_the_same_fields(stream):
    """JSON lines parse, and carry an exception's text on one line."""
    log = configure("query", level="debug", form="json", stream=stream)
    log.error("task failed", task="x", exc_info=RuntimeError("bug"))
    event = json.loads(stream.getvalue())
    assert (event["msg"], event["level"], event["component"]) == ("task failed", "error", "query")
    assert "RuntimeError: bug" in event["exception"]


def test_levels_filter(stream):
    """Below the level nothing is written."""
    configure("x", level="error", form="logfmt", stream=stream).warning("quiet")
    assert stream.getvalue() == ""


def test_libraries_are_heard_in_our_form(stream):
    """Records of the logging module and warnings become events; chatter does not."""
    configure("x", level="info", form="logfmt", stream=stream)
    logging.getLogger("asyncio").error("Task %s was lost", 5)
    logging.getLogger("httpx").info("chatter")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert 'level=error component=x msg="message from a library" logger=asyncio' in lines[0]
    assert 'text="Task 5 was lost"' in lines[0]
    assert "logger=py.warnings" in lines[1]
