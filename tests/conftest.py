"""What holds for every test."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _logs_end_with_the_test():
    """A handler that a test has set up writes to its stream, which is closed once it is over."""
    before = list(logging.root.handlers)
    yield
    for handler in [handler for handler in logging.root.handlers if handler not in before]:
        logging.root.removeHandler(handler)
