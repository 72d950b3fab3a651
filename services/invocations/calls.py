"""CallFunction: raw bytes in, raw bytes out, and errors for whatever is no result.

Unlike Invoke it answers with the function's result, so a failure of the function is
an error here, told apart from the platform's by its reason and a header.
"""

from collections.abc import Iterator

from google.api.httpbody_pb2 import HttpBody

from faas.json_values import NotJson, check, is_json
from services import ids
from services.content_types import BYTES, JSON, is_content_type
from services.errors import (
    FunctionFailed,
    FunctionTimedOut,
    InvalidField,
    InvalidPayload,
    InvocationCancelled,
    InvocationDeadLettered,
    MeshError,
    StillRunning,
)
from services.invocations.records import Record

INVOCATION_ID_HEADER = "x-faas-invocation-id"
ERROR_HEADER = "x-faas-error"
"""Only with a failure of the function's own: the error's code, as the record has it."""

PART_BYTES = 256 * 1024

_FAILURES: dict[str, type[MeshError]] = {
    "failed": FunctionFailed,
    "timed_out": FunctionTimedOut,
    "dead_lettered": InvocationDeadLettered,
    "cancelled": InvocationCancelled,
}
_OF_THE_FUNCTION = ("failed", "timed_out")


def payload_of(body: HttpBody) -> tuple[bytes, str]:
    """What the function is given, and its content type.

    Nothing at all is JSON's null. Raises InvalidPayload, InvalidField.
    """
    content_type = body.content_type or (BYTES if body.data else JSON)
    if not is_content_type(content_type):
        raise InvalidField.of("body.content_type", "must be a content type, such as 'text/plain'")
    data = body.data or (b"null" if is_json(content_type) else b"")
    if is_json(content_type):
        try:
            check(data)
        except NotJson as error:
            raise InvalidPayload.of("body", str(error)) from error
    return data, content_type


def result_of(record: Record) -> HttpBody:
    """The result. Raises what stands for an end without one, or for no end yet."""
    if record.status == "completed":
        return HttpBody(content_type=record.result_type or JSON, data=record.result or b"")
    raise failure_of(record)


def in_parts(body: HttpBody) -> Iterator[HttpBody]:
    """`body` in messages of a size that streams well; the first has the content type."""
    yield HttpBody(content_type=body.content_type, data=body.data[:PART_BYTES])
    for start in range(PART_BYTES, len(body.data), PART_BYTES):
        yield HttpBody(data=body.data[start : start + PART_BYTES])


def headers_of(record: Record) -> dict[str, str]:
    """What is sent with any answer about this record."""
    headers = {INVOCATION_ID_HEADER: ids.show(ids.INVOCATION, record.id)}
    if record.status in _OF_THE_FUNCTION and record.error is not None:
        headers[ERROR_HEADER] = record.error["code"]
    return headers


def failure_of(record: Record) -> MeshError:
    """The error of a record that has no result."""
    known = {"invocation_id": ids.show(ids.INVOCATION, record.id)}
    error = record.error or {}
    if not record.ended:
        message = f"It has not ended yet, and goes on: ask for {known['invocation_id']}."
        return StillRunning(message, metadata=known)
    known |= {"code": error.get("code", ""), "type": error.get("type", "")}
    kind = _FAILURES[record.status]
    return kind(error.get("message"), metadata={k: v for k, v in known.items() if v})
