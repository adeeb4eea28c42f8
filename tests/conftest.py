"""What holds for every test."""

import logging

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logs_end_with_the_test():
    """What a test sets up for logs writes to its stream, which is closed once it is over."""
    handlers, configuration = list(logging.root.handlers), structlog.get_config()
    yield
    structlog.configure(**configuration)
    for handler in [handler for handler in logging.root.handlers if handler not in handlers]:
        logging.root.removeHandler(handler)
