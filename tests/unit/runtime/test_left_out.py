"""Parts of libraries that are left out are missing only until somebody wants them."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from thanostack.runtime.left_out import Absent, hollow, standing_in


def ran(program: str) -> list[str]:
    """Run a program in a fresh interpreter and return the lines that it prints."""
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True, text=True)
    return done.stdout.splitlines()


def test_what_was_left_out_is_imported_by_whoever_asks_for_it():
    """Other libraries, such as those of a rare request, find the real modules."""
    program = """
import sys
from thanostack.runtime import process, settings
left_out = ("configparser", "http.server", "logging.config",
            "urllib.error", "urllib.request", "wsgiref.simple_server", "rich", "uvicorn.main")
print([name for name in left_out if name in sys.modules])
import configparser, http.server, logging.config, urllib.error, urllib.request
from wsgiref.simple_server import make_server
print(configparser.ConfigParser().sections(), issubclass(urllib.error.HTTPError, OSError))
print(callable(urllib.request.urlopen), callable(logging.config.dictConfig), callable(make_server))
print(http.server.HTTPServer.__mro__[1].__name__)
"""
    assert ran(program) == ["[]", "[] True", "True True True", "TCPServer"]


def test_the_library_of_metrics_exposes_them_without_its_servers():
    """Text and OpenMetrics come out; the push gateway's client says that it is not there."""
    program = """
from thanostack.runtime.lean_imports import prometheus_client
from thanostack.runtime import metrics
registry = metrics.new_registry("test")
for accept in ("", "application/openmetrics-text"):
    body, content_type = metrics.exposition(registry, accept)
    print(b"thanos_build_info{" in body, content_type.split(";")[0])
try:
    prometheus_client.push_to_gateway("http://127.0.0.1:1", "job", registry)
except NotImplementedError as error:
    print(type(error).__name__)
"""
    lines = ran(program)
    assert lines == [
        "True text/plain", "True application/openmetrics-text", "NotImplementedError"
    ]  # fmt: skip


def test_a_module_stands_in_for_the_time_of_a_block():
    """A module that was imported before stays what it is."""
    with standing_in("left_out_of_here", hollow()):
        from left_out_of_here import name
    with standing_in("sys", ModuleType("other")):
        assert sys.modules["sys"] is sys
    assert (name, "left_out_of_here" in sys.modules) == (Absent, False)
    with standing_in("left_out_of_here", None), pytest.raises(ImportError):
        import left_out_of_here  # noqa: F401


def test_what_was_left_out_says_so_when_it_is_used():
    """A class may be derived from; making one is a mistake of ours, and is told where to look."""

    class Derived(hollow().Server):
        """As libraries derive servers from it."""

    with pytest.raises(NotImplementedError, match="left_out"):
        Derived("127.0.0.1", port=1)
    with pytest.raises(AttributeError):
        hollow().__path__  # noqa: B018
