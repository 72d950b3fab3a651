"""What a call can be refused for. No module that raises these knows gRPC.

    MeshError
    ├── InvalidField            one or more fields break a rule
    │   ├── InvalidPageToken
    │   ├── InvalidFilter
    │   ├── InvalidArchive
    │   ├── UnknownRuntime
    │   ├── InvalidCode
    │   └── InvalidPayload
    ├── MalformedRequest
    ├── NotFound
    │   ├── FunctionNotFound
    │   ├── VersionNotFound
    │   ├── InvocationNotFound
    │   ├── WorkerNotFound
    │   ├── ScheduleNotFound
    │   ├── ResultNotFound
    │   └── UploadNotFound
    ├── FunctionExists
    ├── EtagMismatch
    ├── RequestIdReused
    ├── InvocationEnded
    ├── InvocationUnfinished
    ├── TooLarge
    ├── TooSlow
    ├── FunctionFailed          instead of a result, where a call can answer nothing else
    ├── FunctionTimedOut
    ├── InvocationDeadLettered
    ├── InvocationCancelled
    ├── StillRunning
    ├── DependencyUnavailable
    ├── OutcomeUnknown
    └── ShuttingDown

A failure of a user's function is a result, in the record. Only CallFunction, whose
answer is the function's own, has errors for it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from google.rpc import code_pb2

from faas.v1 import error_reason_pb2 as reasons


@dataclass(frozen=True)
class FieldViolation:
    """One field that breaks a rule: its path as in the proto, and the rule."""

    field: str
    description: str


class MeshError(Exception):
    """Something went wrong on our side."""

    code: ClassVar[int] = code_pb2.INTERNAL
    reason: ClassVar[reasons.ErrorReason.ValueType] = reasons.INTERNAL_ERROR

    def __init__(
        self,
        message: str | None = None,
        *,
        violations: Iterable[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})

    @property
    def message(self) -> str:
        """For people: what happened, and what to do where something can be done."""
        return str(self.args[0])


class InvalidField(MeshError):
    """A field of the request breaks a rule."""

    code = code_pb2.INVALID_ARGUMENT
    reason = reasons.INVALID_FIELD

    @classmethod
    def of(cls, field: str, description: str, **metadata: str) -> "InvalidField":
        """The error of one field; the message names it too."""
        violation = FieldViolation(field, description)
        return cls(f"{field}: {description}", violations=[violation], metadata=metadata)


class InvalidPageToken(InvalidField):
    """The page token or cursor was not made by this call."""

    reason = reasons.INVALID_PAGE_TOKEN


class InvalidFilter(InvalidField):
    """The filter or order does not parse."""

    reason = reasons.INVALID_FILTER


class InvalidArchive(InvalidField):
    """The archive cannot be used."""

    reason = reasons.INVALID_ARCHIVE


class UnknownRuntime(InvalidField):
    """This deployment has no such runtime."""

    reason = reasons.UNKNOWN_RUNTIME


class InvalidPayload(InvalidField):
    """No function could be given this payload."""

    reason = reasons.INVALID_PAYLOAD


class InvalidCode(InvalidField):
    """The code does not compile."""

    reason = reasons.INVALID_CODE


class MalformedRequest(MeshError):
    """The request cannot be read: text that is not UTF-8, nesting without end, or other bytes."""

    code = code_pb2.INVALID_ARGUMENT
    reason = reasons.MALFORMED_REQUEST


class NotFound(MeshError):
    """There is no such thing."""

    code = code_pb2.NOT_FOUND


class FunctionNotFound(NotFound):
    """There is no such function."""

    reason = reasons.FUNCTION_NOT_FOUND


class VersionNotFound(NotFound):
    """The function has no such version."""

    reason = reasons.VERSION_NOT_FOUND


class InvocationNotFound(NotFound):
    """There is no such invocation."""

    reason = reasons.INVOCATION_NOT_FOUND


class WorkerNotFound(NotFound):
    """There is no such worker."""

    reason = reasons.WORKER_NOT_FOUND


class ScheduleNotFound(NotFound):
    """There is no such schedule."""

    reason = reasons.SCHEDULE_NOT_FOUND


class ResultNotFound(NotFound):
    """The invocation has ended without a result."""

    reason = reasons.RESULT_NOT_FOUND


class UploadNotFound(NotFound):
    """There is no such upload, or it expired."""

    reason = reasons.UPLOAD_NOT_FOUND


class FunctionExists(MeshError):
    """Another function has this name."""

    code = code_pb2.ALREADY_EXISTS
    reason = reasons.FUNCTION_EXISTS


class EtagMismatch(MeshError):
    """The function has changed since the etag was read: read it again."""

    code = code_pb2.ABORTED
    reason = reasons.ETAG_MISMATCH


class RequestIdReused(MeshError):
    """This request_id was used within a day, with another payload."""

    code = code_pb2.ALREADY_EXISTS
    reason = reasons.REQUEST_ID_REUSED


class InvocationEnded(MeshError):
    """The invocation has ended, and stays as it is."""

    code = code_pb2.FAILED_PRECONDITION
    reason = reasons.INVOCATION_ENDED


class InvocationUnfinished(MeshError):
    """The invocation has not ended, so there is no end to compare with."""

    code = code_pb2.FAILED_PRECONDITION
    reason = reasons.INVOCATION_UNFINISHED


class TooLarge(MeshError):
    """Larger than this deployment takes."""

    code = code_pb2.RESOURCE_EXHAUSTED
    reason = reasons.TOO_LARGE


class TooSlow(MeshError):
    """The request did not come to its end in the time that there is."""

    code = code_pb2.DEADLINE_EXCEEDED
    reason = reasons.TOO_SLOW


class FunctionFailed(MeshError):
    """The function failed."""

    code = code_pb2.UNKNOWN
    reason = reasons.FUNCTION_FAILED


class FunctionTimedOut(MeshError):
    """The function was still running at its timeout."""

    code = code_pb2.DEADLINE_EXCEEDED
    reason = reasons.FUNCTION_TIMED_OUT


class InvocationDeadLettered(MeshError):
    """The platform could not run it, and gave it up."""

    code = code_pb2.UNAVAILABLE
    reason = reasons.INVOCATION_DEAD_LETTERED


class InvocationCancelled(MeshError):
    """It was cancelled before it ended."""

    code = code_pb2.ABORTED
    reason = reasons.INVOCATION_CANCELLED


class StillRunning(MeshError):
    """It has not ended yet, and goes on."""

    code = code_pb2.DEADLINE_EXCEEDED
    reason = reasons.STILL_RUNNING


class DependencyUnavailable(MeshError):
    """A part that this call needs does not answer. Nothing was changed; try again."""

    code = code_pb2.UNAVAILABLE
    reason = reasons.DEPENDENCY_UNAVAILABLE


class OutcomeUnknown(MeshError):
    """A part was lost during the call: whether it did it is not known. Look, or try again."""

    code = code_pb2.UNAVAILABLE
    reason = reasons.OUTCOME_UNKNOWN


class ShuttingDown(MeshError):
    """This server is shutting down. Try again."""

    code = code_pb2.UNAVAILABLE
    reason = reasons.SHUTTING_DOWN


def by_reason() -> dict[str, type[MeshError]]:
    """Every error above by its reason's name: the table that turns a status back."""
    table: dict[str, type[MeshError]] = {}
    pending: list[type[MeshError]] = [MeshError]
    while pending:
        error = pending.pop()
        pending.extend(error.__subclasses__())
        # A class without a reason of its own (NotFound) must not take its parent's.
        if "reason" in vars(error):
            table[reasons.ErrorReason.Name(error.reason)] = error
    return table
