"""Raw calls: bytes in, bytes out, and errors for whatever is no result.

Unlike Invoke it answers with the function's result, so a failure of the function is
an error here, told apart from the platform's by its reason and a header.
"""

import codecs
from collections.abc import AsyncIterator
from dataclasses import dataclass

from google.api.httpbody_pb2 import HttpBody

from faas.json_values import NotJson, check, is_json
from faas.v1.invocation_service_pb2 import StreamCallFunctionRequest
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
    OutcomeUnknown,
    StillRunning,
    TooLarge,
)
from services.invocations.blobs import Blob, Blobs
from services.invocations.records import Record
from services.storage import StorageUnavailable

INVOCATION_ID_HEADER = "x-faas-invocation-id"
ERROR_HEADER = "x-faas-error"
"""Only with a failure of the function's own: the error's code, as the record has it."""

SIZE_HEADER = "x-faas-size-bytes"
SHA256_HEADER = "x-faas-sha256"
"""Only with large content: what a reader has in hands when it has all."""

PART_BYTES = 256 * 1024
MAX_MESSAGE_RESULT = 15 * 1024 * 1024
"""What an answer in one message holds, with all that is beside it."""

_FAILURES: dict[str, type[MeshError]] = {
    "failed": FunctionFailed,
    "timed_out": FunctionTimedOut,
    "dead_lettered": InvocationDeadLettered,
    "cancelled": InvocationCancelled,
}
_OF_THE_FUNCTION = ("failed", "timed_out")


@dataclass(frozen=True)
class Payload:
    """What a function is given."""

    data: bytes
    content_type: str = JSON
    blob: Blob | None = None
    """Instead of `data`, where that is too large for a row."""


def payload_of(body: HttpBody) -> Payload:
    """What the function is given.

    Nothing at all is JSON's null. Raises InvalidPayload, InvalidField.
    """
    content_type = type_of(body.content_type, body.data)
    data = body.data or (b"null" if is_json(content_type) else b"")
    if is_json(content_type):
        try:
            check(data)
        except NotJson as error:
            raise InvalidPayload.of("body", str(error)) from error
    return Payload(data, content_type)


def type_of(content_type: str, data: bytes) -> str:
    """The content type of what was sent with this one, or none. Raises InvalidField."""
    content_type = content_type or (BYTES if data else JSON)
    if not is_content_type(content_type):
        raise InvalidField.of("body.content_type", "must be a content type, such as 'text/plain'")
    return content_type


async def beginning_of(
    first: StreamCallFunctionRequest,
    requests: AsyncIterator[StreamCallFunctionRequest],
    most_bytes: int,
) -> tuple[bytes, bool]:
    """The body as far as it is read until more than `most_bytes` are there, and whether they are.

    What follows is still in `requests`.
    """
    parts, size = [first.body.data], len(first.body.data)
    while size <= most_bytes:
        request = await anext(requests, None)
        if request is None:
            return b"".join(parts), False
        parts.append(request.body.data)
        size += len(request.body.data)
    return b"".join(parts), True


async def whole(
    beginning: bytes, requests: AsyncIterator[StreamCallFunctionRequest], content_type: str
) -> AsyncIterator[bytes]:
    """A large body from its beginning on. Raises InvalidPayload.

    It is too large to be read as JSON; what is not even text is found.
    """
    check = codecs.getincrementaldecoder("utf-8")() if is_json(content_type) else None
    try:
        if check:
            check.decode(beginning)
        yield beginning
        async for request in requests:
            if check:
                check.decode(request.body.data)
            yield request.body.data
        if check:
            check.decode(b"", True)
    except UnicodeDecodeError as error:
        raise InvalidPayload.of("body", "it is not UTF-8") from error


async def answer_of(record: Record, blobs: Blobs) -> AsyncIterator[HttpBody]:
    """The result in parts, of a call that has completed. Raises OutcomeUnknown."""
    blob = Blob.of(record.result_blob)
    try:
        async for part in in_parts(blobs, record.result_type, record.result or b"", blob):
            yield part
    except StorageUnavailable as error:
        # Not that nothing was accepted.
        known = ids.show(ids.INVOCATION, record.id)
        raise OutcomeUnknown(
            f"It has completed, and its result cannot be read now: GetInvocationResult has it"
            f" later, of {known}.",
            metadata={"invocation_id": known},
        ) from error


async def result_in_one(record: Record, blobs: Blobs) -> HttpBody:
    """The result in one message. Raises what stands for an end without one, and TooLarge."""
    blob = result_blob_of(record)
    if blob is None:
        return HttpBody(content_type=record.result_type or JSON, data=record.result or b"")
    if blob.size_bytes > MAX_MESSAGE_RESULT:
        known = ids.show(ids.INVOCATION, record.id)
        raise TooLarge(
            f"result: is {blob.size_bytes} bytes, more than one message holds:"
            f" GetInvocationResult has it, and StreamCallFunction would. It is that of {known}.",
            metadata={"limit_bytes": str(MAX_MESSAGE_RESULT), "invocation_id": known},
        )
    data = b"".join([part.data async for part in answer_of(record, blobs)])
    return HttpBody(content_type=record.result_type or JSON, data=data)


def result_blob_of(record: Record) -> Blob | None:
    """Where a large result is. Raises what stands for an end without one, or for no end yet."""
    if record.status != "completed":
        raise failure_of(record)
    return Blob.of(record.result_blob)


async def in_parts(
    blobs: Blobs, content_type: str | None, data: bytes, blob: Blob | None
) -> AsyncIterator[HttpBody]:
    """Content in messages of a size that streams well; the first has the content type."""
    content_type = content_type or JSON
    if blob is not None:
        async for chunk in blobs.read(blob):
            yield HttpBody(content_type=content_type, data=chunk)
            content_type = ""
        return
    yield HttpBody(content_type=content_type, data=data[:PART_BYTES])
    for start in range(PART_BYTES, len(data), PART_BYTES):
        yield HttpBody(data=data[start : start + PART_BYTES])


def content_headers(blob: Blob | None) -> dict[str, str]:
    """What is sent ahead of large content, by which a reader knows that all has come."""
    return {} if blob is None else {SIZE_HEADER: str(blob.size_bytes), SHA256_HEADER: blob.sha256}


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
