"""What can go wrong for a caller, in one tree.

    FaasError
    ├── CallFailed                 a call was refused, or nobody answered it
    │   ├── InvalidRequest         fields break rules: `violations` names them
    │   │   ├── InvalidArchive
    │   │   ├── InvalidCode
    │   │   ├── InvalidFilter
    │   │   ├── InvalidPageToken
    │   │   ├── InvalidPayload
    │   │   └── UnknownRuntime
    │   ├── NotFound
    │   │   ├── FunctionNotFound
    │   │   ├── InvocationNotFound
    │   │   ├── ResultNotFound
    │   │   ├── ScheduleNotFound
    │   │   ├── UploadNotFound
    │   │   ├── VersionNotFound
    │   │   └── WorkerNotFound
    │   ├── Conflict
    │   │   ├── EtagMismatch
    │   │   ├── FunctionExists
    │   │   ├── InvocationEnded
    │   │   ├── InvocationUnfinished
    │   │   └── RequestIdReused
    │   ├── TooMuch                larger, or more, than the deployment takes
    │   │   └── TooLarge
    │   ├── NoResult               of CallFunction, which answers with nothing else
    │   ├── Unauthenticated
    │   ├── PermissionDenied
    │   ├── Unavailable            the server, or a part that it needs, does not answer
    │   ├── DeadlineExceeded
    │   ├── NotSupported           the server does not know this call
    │   └── ServerError
    ├── FunctionFailed             the invocation ended without a result: `record`
    ├── BuildFailed                what was deployed does not compile: `record`
    ├── WaitTimeout                it has not ended yet (a TimeoutError too)
    ├── UnusableSource             what is to be deployed cannot be (a ValueError too)
    └── InvalidSettings            an address, a context or a setting (a ValueError too)

A refused call carries the server's `reason`, a name of `faas.v1.ErrorReason`; which
class that becomes is written at the class, and `by_reason` is the table.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from faas.v1.function_pb2 import Function
from faas.v1.invocation_pb2 import Invocation

Code = grpc.StatusCode


class FaasError(Exception):
    """Anything that this package raises of itself."""


@dataclass(frozen=True)
class FieldViolation:
    """One field that breaks a rule: its path as in the proto, and the rule."""

    field: str
    description: str


class CallFailed(FaasError):
    """A call was refused, or nobody answered it."""

    codes: ClassVar[tuple[Code, ...]] = ()
    """Statuses that become this class where the reason says nothing more."""
    reasons: ClassVar[tuple[str, ...]] = ()
    """Reasons that become this class."""

    def __init__(
        self,
        message: str,
        *,
        code: Code = Code.UNKNOWN,
        reason: str = "",
        violations: Iterable[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s
        """How long the server asks to wait before the next try."""


class InvalidRequest(CallFailed):
    """Fields of the request break rules."""

    codes: ClassVar[tuple[Code, ...]] = (
        Code.INVALID_ARGUMENT,
        Code.OUT_OF_RANGE,
        Code.FAILED_PRECONDITION,
    )
    reasons: ClassVar[tuple[str, ...]] = (
        "INVALID_FIELD",
        "MALFORMED_REQUEST",
        "UNSUPPORTED_CONTENT_TYPE",
    )


class InvalidPageToken(InvalidRequest):
    """The page token is of another list."""

    reasons: ClassVar[tuple[str, ...]] = ("INVALID_PAGE_TOKEN",)


class InvalidCode(InvalidRequest):
    """The code does not compile: the message has the compiler's words."""

    reasons: ClassVar[tuple[str, ...]] = ("INVALID_CODE",)


class InvalidFilter(InvalidRequest):
    """The filter or the order does not parse."""

    reasons: ClassVar[tuple[str, ...]] = ("INVALID_FILTER",)


class InvalidArchive(InvalidRequest):
    """The archive cannot be used."""

    reasons: ClassVar[tuple[str, ...]] = ("INVALID_ARCHIVE",)


class UnknownRuntime(InvalidRequest):
    """The deployment has no such runtime."""

    reasons: ClassVar[tuple[str, ...]] = ("UNKNOWN_RUNTIME",)


class InvalidPayload(InvalidRequest):
    """No function could be given this payload."""

    reasons: ClassVar[tuple[str, ...]] = ("INVALID_PAYLOAD",)


class NotFound(CallFailed):
    """There is no such thing."""

    codes: ClassVar[tuple[Code, ...]] = (Code.NOT_FOUND,)


class FunctionNotFound(NotFound):
    """There is no such function."""

    reasons: ClassVar[tuple[str, ...]] = ("FUNCTION_NOT_FOUND",)


class VersionNotFound(NotFound):
    """The function has no such version."""

    reasons: ClassVar[tuple[str, ...]] = ("VERSION_NOT_FOUND",)


class InvocationNotFound(NotFound):
    """There is no such invocation."""

    reasons: ClassVar[tuple[str, ...]] = ("INVOCATION_NOT_FOUND",)


class ResultNotFound(NotFound):
    """The invocation has ended without a result: `metadata` says how and why."""

    reasons: ClassVar[tuple[str, ...]] = ("RESULT_NOT_FOUND",)


class ScheduleNotFound(NotFound):
    """There is no such schedule."""

    reasons: ClassVar[tuple[str, ...]] = ("SCHEDULE_NOT_FOUND",)


class WorkerNotFound(NotFound):
    """There is no such worker."""

    reasons: ClassVar[tuple[str, ...]] = ("WORKER_NOT_FOUND",)


class UploadNotFound(NotFound):
    """There is no such upload, or it expired."""

    reasons: ClassVar[tuple[str, ...]] = ("UPLOAD_NOT_FOUND",)


class Conflict(CallFailed):
    """It is not as the call supposes."""

    codes: ClassVar[tuple[Code, ...]] = (Code.ALREADY_EXISTS, Code.ABORTED)


class FunctionExists(Conflict):
    """Another function has this name."""

    reasons: ClassVar[tuple[str, ...]] = ("FUNCTION_EXISTS",)


class EtagMismatch(Conflict):
    """It was changed since it was read: read it again, decide again."""

    reasons: ClassVar[tuple[str, ...]] = ("ETAG_MISMATCH",)


class InvocationEnded(Conflict):
    """It has ended, and stays as it is: it can no longer be cancelled."""

    reasons: ClassVar[tuple[str, ...]] = ("INVOCATION_ENDED",)


class InvocationUnfinished(Conflict):
    """It has not ended, so there is no end to compare with."""

    reasons: ClassVar[tuple[str, ...]] = ("INVOCATION_UNFINISHED",)


class RequestIdReused(Conflict):
    """The `request_id` was used with another payload: `metadata` names what it made."""

    reasons: ClassVar[tuple[str, ...]] = ("REQUEST_ID_REUSED",)


class TooMuch(CallFailed):
    """More than the deployment takes."""

    codes: ClassVar[tuple[Code, ...]] = (Code.RESOURCE_EXHAUSTED,)


class TooLarge(TooMuch):
    """Larger than the deployment takes."""

    reasons: ClassVar[tuple[str, ...]] = ("TOO_LARGE",)


class NoResult(CallFailed):
    """A raw call has no result to answer with: `metadata` names the invocation."""

    reasons: ClassVar[tuple[str, ...]] = (
        "FUNCTION_FAILED",
        "FUNCTION_TIMED_OUT",
        "INVOCATION_DEAD_LETTERED",
        "INVOCATION_CANCELLED",
        "STILL_RUNNING",
    )


class Unauthenticated(CallFailed):
    """The server wants a credential, or refuses this one."""

    codes: ClassVar[tuple[Code, ...]] = (Code.UNAUTHENTICATED,)


class PermissionDenied(CallFailed):
    """The credential, or this machine, may not do that."""

    codes: ClassVar[tuple[Code, ...]] = (Code.PERMISSION_DENIED,)
    reasons: ClassVar[tuple[str, ...]] = ("ORIGIN_NOT_ALLOWED", "HOST_NOT_ALLOWED")


class Unavailable(CallFailed):
    """The server, or a part that it needs, does not answer."""

    codes: ClassVar[tuple[Code, ...]] = (Code.UNAVAILABLE,)
    reasons: ClassVar[tuple[str, ...]] = (
        "DEPENDENCY_UNAVAILABLE",
        "SHUTTING_DOWN",
        "OUTCOME_UNKNOWN",
    )


class DeadlineExceeded(CallFailed):
    """No answer within the time there was. What the call did is not known."""

    codes: ClassVar[tuple[Code, ...]] = (Code.DEADLINE_EXCEEDED,)
    reasons: ClassVar[tuple[str, ...]] = ("TOO_SLOW",)


class NotSupported(CallFailed):
    """The server does not know this call: it is older, or no faas-mesh."""

    codes: ClassVar[tuple[Code, ...]] = (Code.UNIMPLEMENTED,)
    reasons: ClassVar[tuple[str, ...]] = ("UNKNOWN_PATH",)


class ServerError(CallFailed):
    """A mistake of the server. The message has an id to find in its log."""

    codes: ClassVar[tuple[Code, ...]] = (Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS)
    reasons: ClassVar[tuple[str, ...]] = ("INTERNAL_ERROR",)


class FunctionFailed(FaasError):
    """The invocation ended without a result; its record says why.

    The message has the function's own stack.
    """

    def __init__(self, record: Invocation) -> None:
        super().__init__(record)
        self.record = record
        """The whole record: payload, error, metrics."""

    @property
    def code(self) -> str:
        """A name of `Invocation.ErrorCode`, such as `OUT_OF_MEMORY`; the status without one."""
        if self.record.HasField("error"):
            return Invocation.ErrorCode.Name(self.record.error.code)
        return Invocation.Status.Name(self.record.status)

    @property
    def stack(self) -> str:
        """The stack in the function's own lines; empty where there is none."""
        return self.record.error.stack

    def __str__(self) -> str:
        """What failed and how, with the function's own stack."""
        record = self.record
        what = f"{record.error.type}: {record.error.message}".removeprefix(": ").rstrip(": ")
        text = f"{record.function_name} ({record.id}): {self.code}"
        return "\n".join(filter(None, (f"{text}: {what}" if what else text, self.stack)))


class BuildFailed(FaasError):
    """What was deployed does not compile, and is there all the same: calls of it fail.

    The message has the compiler's words.
    """

    def __init__(self, record: Function) -> None:
        super().__init__(record)
        self.record = record
        """The function, whose latest version it is."""

    def __str__(self) -> str:
        """What the compiler said."""
        record = self.record
        return f"{record.name}, version {record.version}, does not compile:\n{record.state_reason}"


class WaitTimeout(FaasError, TimeoutError):
    """The invocation has not ended within the time that was waited. It goes on."""

    def __init__(self, invocation_id: str, timeout_s: float) -> None:
        super().__init__(f"{invocation_id} has not ended within {timeout_s:g} s; it goes on.")
        self.invocation_id = invocation_id


class UnusableSource(FaasError, ValueError):
    """What is to be deployed cannot be."""


class InvalidSettings(FaasError, ValueError):
    """An address, a context or a setting that cannot be."""


def from_rpc_error(error: grpc.aio.AioRpcError) -> CallFailed:
    """The error that a status stands for."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:
        status = None  # of another error than this: something between has its own
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in () if status is None else status.details:
        detail.Unpack(info) or detail.Unpack(bad) or detail.Unpack(retry)
    kind = by_reason().get(info.reason) or by_code().get(error.code(), CallFailed)
    message = error.details() if status is None else status.message
    return kind(
        message or error.code().name,
        code=error.code(),
        reason=info.reason,
        violations=[FieldViolation(v.field, v.description) for v in bad.field_violations],
        metadata=dict(info.metadata),
        retry_after_s=retry.retry_delay.ToNanoseconds() / 1e9 or None,
    )


def by_reason() -> dict[str, type[CallFailed]]:
    """The class of each reason."""
    return {reason: kind for kind in _kinds(CallFailed) for reason in vars(kind).get("reasons", ())}


def by_code() -> dict[Code, type[CallFailed]]:
    """The class of each status, where no reason says more."""
    return {code: kind for kind in _kinds(CallFailed) for code in vars(kind).get("codes", ())}


def _kinds(kind: type[CallFailed]) -> Iterator[type[CallFailed]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)
