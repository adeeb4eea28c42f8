"""The one tree of errors, classified by what the caller should do.

    ThanostackError
    ├── InvalidInput                 fix the request
    │   ├── ParseError               …at a position
    │   ├── InvalidLabels
    │   ├── InvalidMatcher
    │   ├── InvalidTimeRange
    │   └── InvalidTenant
    ├── SampleRejected               do not resend
    │   ├── OutOfOrder
    │   ├── OutOfBounds
    │   ├── TooOld
    │   └── ConflictingSample
    ├── LimitExceeded                ask for less, or later
    │   └── ReplicasExhausted
    ├── NotFound                     accept absence
    │   ├── ObjectNotFound
    │   ├── TenantNotFound
    │   └── BlockNotFound
    ├── QueryFailed                  change the query or the deadline
    │   ├── ExecutionFailed
    │   ├── QueryTimeout
    │   └── QueryCanceled
    ├── Unavailable                  retry with back-off
    │   ├── NotReady
    │   ├── EndpointUnavailable
    │   ├── QuorumNotReached
    │   ├── StorageUnwritable
    │   └── ObjectStoreUnavailable
    ├── Corruption                   stop touching it; alert
    │   ├── ChunkCorrupt
    │   ├── IndexCorrupt
    │   ├── WALCorrupt
    │   └── BlockCorrupt
    ├── Quarantined                  know: the rest goes on
    ├── NoHashring                   have the hashrings configuration mended
    └── SettingsInvalid              mend the command line or the file it names

No HTTP or gRPC code appears here; `runtime/error_mapping.py` is one table for both.
"""

from __future__ import annotations


class ThanostackError(Exception):
    """The root: every error that we raise on purpose is one of these."""


class InvalidInput(ThanostackError):
    """The request is wrong; the same bytes will fail again."""


class ParseError(InvalidInput):
    """A text does not parse.

    Args:
        message: what is wrong, without position.
        line: from 1; 0 if the text is empty, where no position exists.
        column: from 1, in bytes as Prometheus counts.
    """

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        where = f"{line}:{column}" if line else "unknown position"
        super().__init__(f"{where}: parse error: {message}")
        self.message, self.line, self.column = message, line, column


class InvalidLabels(InvalidInput):
    """A label set is empty, unsorted where order is promised, duplicate or not UTF-8."""


class InvalidMatcher(InvalidInput):
    """A label matcher is unusable, such as a regular expression that RE2 refuses."""


class InvalidTimeRange(InvalidInput):
    """A time or step parameter is malformed or contradicts another."""


class InvalidTenant(InvalidInput):
    """A tenant name that could leave its directory, or none where one is required."""


class SampleRejected(ThanostackError):
    """A well-formed sample that storage will never take."""


class OutOfOrder(SampleRejected):
    """Older than the newest sample of its series."""


class OutOfBounds(SampleRejected):
    """Outside of the time that the head accepts, past or future."""


class TooOld(SampleRejected):
    """Older than the out-of-order window."""


class ConflictingSample(SampleRejected):
    """Another value for a timestamp that is already stored."""


class LimitExceeded(ThanostackError):
    """A stated bound was reached.

    Args:
        name: the limit's name, as its setting is called.
        limit: the bound.
        actual: what was asked for.
        text: what is said in place of the name.
        detail: what is said beside.
    """

    def __init__(
        self, name: str, limit: float, actual: float, *, text: str = "", detail: str = ""
    ) -> None:
        message = f"{text or name}: {actual:.15g} exceeds the limit of {limit:.15g}"
        super().__init__(f"{message}; {detail}" if detail else message)
        self.name, self.limit, self.actual = name, limit, actual


class ReplicasExhausted(LimitExceeded):
    """Too few replicas took a write, as the others reached a bound of theirs.

    Args:
        message: which of them, and what they said.
    """

    def __init__(self, message: str) -> None:
        ThanostackError.__init__(self, message)
        self.name, self.limit, self.actual = "replicas", 0, 0


class NotFound(ThanostackError):
    """What was asked for is not there."""


class ObjectNotFound(NotFound):
    """No such object in the bucket."""


class TenantNotFound(NotFound):
    """No such tenant."""


class BlockNotFound(NotFound):
    """No such block."""


class QueryFailed(ThanostackError):
    """A query that parsed could not be answered."""


class ExecutionFailed(QueryFailed):
    """Evaluation ended in an error that the query's author can mend."""


class QueryTimeout(QueryFailed):
    """The deadline passed."""


class QueryCanceled(QueryFailed):
    """The client went away."""


class Unavailable(ThanostackError):
    """Not now; the same request may succeed later.

    Args:
        message: what is not available.
        retry_after_s: seconds after which a retry makes sense.
    """

    def __init__(self, message: str, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(Unavailable):
    """Still starting, or already stopping."""


class EndpointUnavailable(Unavailable):
    """A StoreAPI endpoint does not answer."""


class QuorumNotReached(Unavailable):
    """Too few replicas took the write."""


class StorageUnwritable(Unavailable):
    """The disk refuses writes: full, read-only, or failing."""


class DirectoryLocked(StorageUnwritable):
    """Another process uses this data directory."""


class ObjectStoreUnavailable(Unavailable):
    """The bucket does not answer."""


class Corruption(ThanostackError):
    """Bytes on disk are not what their format promises.

    Args:
        file: the file's path.
        offset: where in it, in bytes.
        message: what was expected and what was found.
    """

    def __init__(self, file: str, offset: int, message: str) -> None:
        super().__init__(f"{file}: offset {offset}: {message}")
        self.file, self.offset, self.message = file, offset, message


class ChunkCorrupt(Corruption):
    """A chunk, or a file of chunks."""


class IndexCorrupt(Corruption):
    """A block's index."""


class WALCorrupt(Corruption):
    """A write-ahead log segment or checkpoint."""


class BlockCorrupt(Corruption):
    """A block's meta.json or tombstones, or its folder."""


class Quarantined(ThanostackError):
    """One tenant or block is set aside; the others go on.

    Args:
        what: the tenant or block.
        reason: why.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what} is quarantined: {reason}")
        self.what, self.reason = what, reason


class NoHashring(ThanostackError):
    """No hashring takes this tenant.

    Args:
        tenant: whose write it was.
    """

    def __init__(self, tenant: str) -> None:
        super().__init__(
            f"no matching hashring to handle tenant {tenant!r}: add it to the tenants of a "
            "hashring, or end the list with a hashring without tenants, which takes all others"
        )
        self.tenant = tenant


class SettingsInvalid(ThanostackError):
    """A flag, variable or configuration file that cannot be used; the text says what to do."""
