"""Large payloads in, large results out: streams beside the status stream, file to file.

Both are checked by checksum where they arrive. Whatever is no answer of the service
is tried again for as long as it takes: the worker's slot is taken meanwhile, and its
heartbeats say so.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from faas.v1.execution_pb2 import Directive, Report
from faas.v1.execution_service_pb2 import FetchPayloadRequest, Start, StoreResultRequest
from faas.v1.invocation_pb2 import Invocation, LargeContent
from services.channels import mesh_errors
from services.errors import InvalidField, InvocationNotFound, MeshError, TooLarge
from services.worker.runtime import FileContent

if TYPE_CHECKING:
    from faas.v1.execution_service_pb2_grpc import ExecutionServiceAsyncStub

PIECE_BYTES = 256 * 1024
AGAIN_S = 0.5
AGAIN_MOST_S = 5.0
# A transfer that takes longer does not move.
TRANSFER_S = 600.0
# An execution whose payload does not come is given back, for another worker to take.
FETCH_TRIES = 8

log = structlog.get_logger()


class NotFetched(Exception):
    """The payload cannot be had; the text says why."""


class Transfers:
    """What one boot of a worker fetches and stores."""

    def __init__(self, stub: "ExecutionServiceAsyncStub", *, boot_id: str) -> None:
        """Speak through `stub`."""
        self._stub = stub
        self._boot_id = boot_id

    async def fetch(self, granted: Directive.Granted, file: Path) -> FileContent:
        """The payload of what was granted, in `file`. Raises NotFetched."""
        wanted = granted.large_payload
        start = self._start(granted.invocation_id, granted.attempt, "")
        pause_s, tries = AGAIN_S, 0
        while True:
            tries += 1
            try:
                async with mesh_errors("InvocationService"):
                    came = await self._fetch(start, file)
                if came == (wanted.size_bytes, wanted.sha256):
                    return FileContent(file, wanted.size_bytes, wanted.sha256)
                reason = "what came is not what was accepted"
            except InvocationNotFound as error:
                raise NotFetched(f"its payload could not be fetched: {error.message}") from error
            except MeshError as error:
                reason = error.message
            except OSError as error:
                reason = str(error)
            log.warning("a payload has to be fetched again", reason=reason)
            if tries >= FETCH_TRIES:
                raise NotFetched(f"its payload could not be fetched: {reason}")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, AGAIN_MOST_S)

    async def settle(self, report: Report.Finished, content: FileContent) -> None:
        """Have the large result of a verdict stored, however long that takes.

        Where the service refuses it for good the verdict becomes a failure. One that is
        no longer this worker's to tell is told all the same: the record knows.
        """
        start = self._start(report.invocation_id, report.attempt, report.boot_id)
        pause_s = AGAIN_S
        while True:
            if not await asyncio.to_thread(content.file.exists):
                _fail(report, InvalidField("The worker does not have the result any more."))
                return
            try:
                async with mesh_errors("InvocationService"):
                    messages = _messages(start, content)
                    await self._stub.StoreResult(messages, timeout=TRANSFER_S)
                return
            except InvocationNotFound:
                return
            except (TooLarge, InvalidField) as error:
                _fail(report, error)
                return
            except MeshError as error:
                log.warning(
                    "a result has to be stored again",
                    invocation_id=report.invocation_id,
                    reason=error.message,
                )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, AGAIN_MOST_S)

    async def _fetch(self, start: Start, file: Path) -> tuple[int, str]:
        """Write what comes; its size and checksum."""
        digest, size = hashlib.sha256(), 0
        call = self._stub.FetchPayload(FetchPayloadRequest(start=start), timeout=TRANSFER_S)
        try:
            with file.open("wb", buffering=0) as output:

                def keep(piece: bytes) -> None:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[output.write(rest) :]
                    digest.update(piece)

                async for response in call:
                    await asyncio.to_thread(keep, response.chunk)
                    size += len(response.chunk)
        finally:
            call.cancel()
        return size, digest.hexdigest()

    def _start(self, invocation_id: str, attempt: int, boot_id: str) -> Start:
        boot_id = boot_id or self._boot_id
        return Start(invocation_id=invocation_id, attempt=attempt, boot_id=boot_id)


def _fail(report: Report.Finished, failure: MeshError) -> None:
    """Make a failure of a verdict whose result nobody takes."""
    report.ClearField("large_result")
    report.status = Invocation.FAILED
    too_large = isinstance(failure, TooLarge)
    code = Invocation.OUTPUT_TOO_LARGE if too_large else Invocation.BAD_OUTPUT
    report.error.CopyFrom(Invocation.Error(code=code, message=failure.message))


async def _messages(start: Start, content: FileContent) -> AsyncIterator[StoreResultRequest]:
    """The messages that carry a file."""
    described = LargeContent(size_bytes=content.size_bytes, sha256=content.sha256)
    yield StoreResultRequest(start=start, content=described)
    with content.file.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield StoreResultRequest(chunk=piece)
