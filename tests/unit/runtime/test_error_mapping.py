"""Every error of the tree has a code in every protocol, and the codes are upstream's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest

from thanostack.lib.foundation import errors
from thanostack.runtime import error_mapping
from thanostack.runtime.error_mapping import GrpcCode


def tree(root: type[errors.ThanostackError]) -> Iterator[type[errors.ThanostackError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


ARGUMENTS: dict[type[errors.ThanostackError], tuple[object, ...]] = {
    errors.ReplicasExhausted: ("text",),
    errors.LimitExceeded: ("series", 1, 2),
    errors.Corruption: ("000001", 7, "bad checksum"),
    errors.Quarantined: ("team-a", "bad WAL"),
}


def make(kind: type[errors.ThanostackError]) -> errors.ThanostackError:
    arguments = next((ARGUMENTS[k] for k in kind.__mro__ if k in ARGUMENTS), ("text",))
    return kind(*arguments)


@pytest.mark.parametrize("kind", list(tree(errors.ThanostackError)), ids=lambda k: k.__name__)
def test_table_is_total(kind: type[errors.ThanostackError]) -> None:
    """Every class maps to valid codes, and every branch below the root has a row of its own."""
    error = make(kind)
    assert 400 <= error_mapping.http_status(error) <= 599
    assert error_mapping.grpc_code(error) in set(GrpcCode) - {GrpcCode.OK}
    assert error_mapping.prometheus_error_type(error)
    assert 400 <= error_mapping.remote_write_status(error, 2) <= 599
    if kind in errors.ThanostackError.__subclasses__():
        assert kind in error_mapping.CODES


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.ParseError("x", 1, 2), (400, GrpcCode.INVALID_ARGUMENT, "bad_data")),
        (errors.ConflictingSample("x"), (409, GrpcCode.ALREADY_EXISTS, "bad_data")),
        (errors.LimitExceeded("n", 1, 2), (422, GrpcCode.RESOURCE_EXHAUSTED, "execution")),
        (errors.TenantNotFound("x"), (404, GrpcCode.NOT_FOUND, "not_found")),
        (errors.ExecutionFailed("x"), (422, GrpcCode.ABORTED, "execution")),
        (errors.QueryTimeout("x"), (503, GrpcCode.DEADLINE_EXCEEDED, "timeout")),
        (errors.QueryCanceled("x"), (503, GrpcCode.CANCELLED, "canceled")),
        (errors.QuorumNotReached("x"), (503, GrpcCode.UNAVAILABLE, "unavailable")),
        (errors.WALCorrupt("f", 0, "x"), (500, GrpcCode.DATA_LOSS, "internal")),
        (KeyError("x"), (500, GrpcCode.INTERNAL, "internal")),
    ],
)
def test_codes(error: Exception, expected: tuple[int, GrpcCode, str]) -> None:
    """The codes that clients act upon are fixed."""
    assert expected == tuple(error_mapping.codes_of(error))


@pytest.mark.parametrize(
    ("error", "version", "status", "retry_after"),
    [
        (errors.OutOfOrder("x"), 1, 409, None),
        (errors.OutOfOrder("x"), 2, 400, None),
        (errors.InvalidLabels("x"), 1, 400, None),
        (errors.LimitExceeded("samples_limit", 1, 2), 1, 413, None),
        (errors.LimitExceeded("head_series_limit", 1, 2), 1, 429, 5),
        (errors.NotReady("x", retry_after_s=9), 1, 503, 9),
        (errors.Quarantined("t", "x"), 2, 503, 5),
    ],
)
def test_remote_write(error: Exception, version: int, status: int, retry_after: int | None) -> None:
    """Remote write tells a sender whether to resend, and 429 and 503 say when."""
    assert status == error_mapping.remote_write_status(error, version)
    assert retry_after == error_mapping.retry_after_s(error)


def test_a_failure_brings_its_own_code_and_a_bug_its_type() -> None:
    """An exact code passes through; an unexpected exception names itself."""
    failure = error_mapping.GrpcFailure(GrpcCode.FAILED_PRECONDITION, "cycle")
    assert error_mapping.grpc_code(failure) is GrpcCode.FAILED_PRECONDITION
    assert error_mapping.error_text(failure) == "cycle"
    assert error_mapping.error_text(ValueError("x")) == "internal error: ValueError: x"


def test_code_numbers_are_those_of_grpc() -> None:
    """Our enum and grpcio's agree in name and number."""
    assert {code.name: code.value[0] for code in grpc.StatusCode} == {c.name: c for c in GrpcCode}


def test_grpc_is_not_imported() -> None:
    """The table serves HTTP-only containers."""
    program = "import thanostack.runtime.error_mapping, sys; assert 'grpc' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
