"""What holds for every test."""

import logging

import pytest
import structlog

# As it is before any test module is imported, as some set up logs for all their tests.
_CONFIGURATION = structlog.get_config()


@pytest.fixture(autouse=True)
def _logs_end_with_the_test():
    """What a test sets up for logs writes to its stream, which is closed once it is over.

    Nor does it hold for others what a module set up when it was imported: its level hid lines that
    other tests look for.
    """
    handlers = list(logging.root.handlers)
    structlog.configure(**_CONFIGURATION)
    yield
    structlog.configure(**_CONFIGURATION)
    for handler in [handler for handler in logging.root.handlers if handler not in handlers]:
        logging.root.removeHandler(handler)
