"""One table from our errors to the codes of the three protocols that carry them.

    error class  →  HTTP status, gRPC code, Prometheus errorType

A class without a row of its own has that of its nearest ancestor; what is no error of ours is a
bug: 500, INTERNAL, internal. Where one error means different things to different callers, the
difference is a function here and not a second table: remote write answers by
`remote_write_status`.

This module does not import grpc: HTTP-only containers use it too. `GrpcCode` has the numbers of
the wire.

Sources: STYLE.md "Errors"; Thanos `pkg/receive/handler.go` and `writer.go` (conflict, unavailable
and validation sets); Prometheus `web/api/v1` (errorType); gRPC status codes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, NamedTuple

from thanostack.lib.foundation import errors


class GrpcCode(IntEnum):
    """The gRPC status codes, by their numbers on the wire."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class GrpcFailure(Exception):
    """A gRPC answer with exactly this code, where the table's would say too little.

    Only `grpc_api` modules raise it: for instance FAILED_PRECONDITION for a cycle of queriers, or
    ABORTED for a failed store under the ABORT strategy.

    Args:
        code: the status to answer with.
        message: its text, as the client sees it.
    """

    def __init__(self, code: GrpcCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Codes(NamedTuple):
    """What each protocol says about one class of errors."""

    http: int
    grpc: GrpcCode
    prometheus: str


BUG = Codes(500, GrpcCode.INTERNAL, "internal")

# In the order of the tree. Upstream: a PromQL engine's failure is ABORTED on the Query API.
CODES: dict[type[errors.ThanostackError], Codes] = {
    errors.ThanostackError: BUG,
    errors.InvalidInput: Codes(400, GrpcCode.INVALID_ARGUMENT, "bad_data"),
    errors.SampleRejected: Codes(409, GrpcCode.ALREADY_EXISTS, "bad_data"),
    errors.LimitExceeded: Codes(422, GrpcCode.RESOURCE_EXHAUSTED, "execution"),
    errors.NotFound: Codes(404, GrpcCode.NOT_FOUND, "not_found"),
    errors.QueryFailed: Codes(422, GrpcCode.ABORTED, "execution"),
    errors.QueryTimeout: Codes(503, GrpcCode.DEADLINE_EXCEEDED, "timeout"),
    errors.QueryCanceled: Codes(503, GrpcCode.CANCELLED, "canceled"),
    errors.Unavailable: Codes(503, GrpcCode.UNAVAILABLE, "unavailable"),
    errors.Corruption: Codes(500, GrpcCode.DATA_LOSS, "internal"),
    # Waiting is right for the sender: the tenant or block comes back once someone has acted.
    errors.Quarantined: Codes(503, GrpcCode.UNAVAILABLE, "unavailable"),
    # 500 as upstream: the sender keeps the data and tries again, until someone mends the file.
    errors.NoHashring: Codes(500, GrpcCode.INTERNAL, "internal"),
    errors.SettingsInvalid: Codes(500, GrpcCode.FAILED_PRECONDITION, "internal"),
}

# Limits of one request: sending the same one later is no use, so they are not 429.
REQUEST_LIMITS = frozenset({"size_bytes_limit", "series_limit", "samples_limit"})
LIMIT_RETRY_AFTER_S = 5


def codes_of(error: BaseException) -> Codes:
    """Return the row of the nearest class in the table."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return BUG


def http_status(error: BaseException) -> int:
    """Return the HTTP status of the query and administration routes."""
    return codes_of(error).http


def grpc_code(error: BaseException) -> GrpcCode:
    """Return the gRPC status code; a `GrpcFailure` brings its own."""
    return error.code if isinstance(error, GrpcFailure) else codes_of(error).grpc


def prometheus_error_type(error: BaseException) -> str:
    """Return the `errorType` of Prometheus's JSON envelope."""
    return codes_of(error).prometheus


def remote_write_status(error: BaseException, version: Literal[1, 2] = 1) -> int:
    """Return the HTTP status with which remote write answers.

    Args:
        error: what the write ended in.
        version: of the protocol; 2.0 answers every fault of the sender with 400.
    """
    if isinstance(error, errors.LimitExceeded):
        return 413 if error.name in REQUEST_LIMITS else 429
    if isinstance(error, errors.SampleRejected) and version == 2:
        return 400
    return codes_of(error).http


def retry_after_s(error: BaseException) -> int | None:
    """Return the seconds for a `Retry-After` header, or None where a retry is no use."""
    if isinstance(error, errors.Unavailable):
        return error.retry_after_s
    if isinstance(error, errors.Quarantined):
        return LIMIT_RETRY_AFTER_S
    if isinstance(error, errors.LimitExceeded) and error.name not in REQUEST_LIMITS:
        return LIMIT_RETRY_AFTER_S
    return None


def error_text(error: BaseException) -> str:
    """Return what a client is told: our own message, or the type as well if it is a bug."""
    if isinstance(error, errors.ThanostackError | GrpcFailure):
        return str(error)
    return f"internal error: {type(error).__name__}: {error}"
