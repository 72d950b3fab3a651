"""The RPCs of InvocationService and ExecutionService."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

import structlog
from google.api.httpbody_pb2 import HttpBody

from faas.json_values import NotJson, to_json
from faas.v1.execution_pb2 import Directive
from faas.v1.execution_service_pb2 import (
    FetchPayloadRequest,
    FetchPayloadResponse,
    ReportExecutionsRequest,
    ReportExecutionsResponse,
    Start,
    StoreResultRequest,
    StoreResultResponse,
)
from faas.v1.invocation_pb2 import Invocation, InvocationEvent
from faas.v1.invocation_service_pb2 import (
    CallFunctionRequest,
    GetInvocationLogsRequest,
    GetInvocationLogsResponse,
    GetInvocationRequest,
    InvokeRequest,
    ListInvocationsRequest,
    ListInvocationsResponse,
    ListWorkersRequest,
    ListWorkersResponse,
    StreamCallFunctionRequest,
    WatchInvocationRequest,
)
from faas.v1.worker_pb2 import DrainWorkerRequest, GetWorkerRequest, ResumeWorkerRequest, Worker
from services import ids
from services.errors import (
    InvalidField,
    InvalidPayload,
    InvocationNotFound,
    MeshError,
    TooLarge,
)
from services.invocations import calls
from services.invocations.acceptance import Acceptance
from services.invocations.blobs import Blob, Blobs, one, result_blob
from services.invocations.calls import Payload
from services.invocations.database import UNAVAILABLE
from services.invocations.filters import where
from services.invocations.history import History
from services.invocations.logs import Logs, Position
from services.invocations.messages import event_to_proto, to_proto
from services.invocations.records import Record, Records
from services.invocations.reports import Desk, Session, read_uuid
from services.invocations.requests import ANSWER_S, MAX_WAIT_S, invocation_key, moment, waiting_s
from services.invocations.waiters import Waiters
from services.invocations.watches import Watches, make_cursor, read_cursor
from services.invocations.workers import Workers
from services.pages import make_token, page_size, read_token
from services.server import Call

log = structlog.get_logger()

# What is allowed for waiting for a worker, where a caller does not say how long it waits.
QUEUE_S = 30.0


class InvocationServicer:
    """faas.v1.InvocationService."""

    def __init__(
        self,
        *,
        acceptance: Acceptance,
        records: Records,
        history: History,
        logs: Logs,
        workers: Workers,
        waiters: Waiters,
        watches: Watches,
        desk: Desk,
        blobs: Blobs,
    ) -> None:
        """Serve by these."""
        self._acceptance = acceptance
        self._records = records
        self._history = history
        self._logs = logs
        self._workers = workers
        self._waiters = waiters
        self._watches = watches
        self._desk = desk
        self._blobs = blobs

    async def Invoke(self, request: InvokeRequest, call: Call) -> Invocation:
        """Accept; answer at once, or when it ends."""
        payload = Payload(await self._payload(request))
        wait_s = waiting_s(request, call)
        key = ids.new_uuid()
        # Registered before it is offered: it may end before this call goes on.
        async with self._waiters.waiter(key) as waiter:
            record = await self._accept(key, request, payload, call, waits=wait_s > 0)
            if record.id == key and wait_s > 0:
                record = await waiter.wait(wait_s) or await self._as_it_is(record)
        if record.id != key:
            record = await self._ended(record.id, wait_s)
        return to_proto(record)

    async def CallFunction(self, request: CallFunctionRequest, call: Call) -> HttpBody:
        """Accept raw bytes, wait, and answer with the result's."""
        payload = calls.payload_of(request.body)
        self._check_size("body", payload.data)
        record = await self._called(ids.new_uuid(), request, payload, call)
        return await calls.result_in_one(record, self._blobs)

    async def StreamCallFunction(
        self, requests: AsyncIterator[StreamCallFunctionRequest], call: Call
    ) -> AsyncIterator[HttpBody]:
        """The same in chunks: what is too large for a row goes by, and never is in memory."""
        key = ids.new_uuid()
        first = await anext(requests, None)
        if first is None or not first.function_id:
            raise InvalidField.of("function_id", "must be in the first message")
        payload = await self._received(key, first, requests, call)
        record = await self._called(key, first, payload, call)
        call.answer_metadata.update(calls.content_headers(calls.result_blob_of(record)))
        parts = calls.answer_of(record, self._blobs)
        async with aclosing(parts):  # type: ignore[type-var]
            async for part in parts:
                yield part

    async def _received(
        self,
        key: UUID,
        first: StreamCallFunctionRequest,
        requests: AsyncIterator[StreamCallFunctionRequest],
        call: Call,
    ) -> Payload:
        """The payload of a raw call that comes in chunks."""
        data, more = await calls.beginning_of(first, requests, self._blobs.inline_bytes)
        if more:
            content_type = calls.type_of(first.body.content_type, data)
            # Before all of it has come for nothing.
            await self._acceptance.function(first.function_id, call)
            chunks = calls.whole(data, requests, content_type)
            blob = await self._blobs.keep_payload(key, chunks, "body")
            return Payload(b"", content_type, blob)
        self._check_size("body", data)
        return calls.payload_of(HttpBody(content_type=first.body.content_type, data=data))

    async def _called(
        self,
        key: UUID,
        request: CallFunctionRequest | StreamCallFunctionRequest,
        payload: Payload,
        call: Call,
    ) -> Record:
        """The record of a raw call, when it has ended or the call waits no longer."""
        asked = InvokeRequest(
            function_id=request.function_id, function_version=request.function_version
        )
        async with self._waiters.waiter(key) as waiter:
            record = await self._accept(key, asked, payload, call, waits=True)
            call.answer_metadata.update(calls.headers_of(record))
            wait_s = _patience_s(record, call)
            if record.id == key:
                record = await waiter.wait(wait_s) or await self._as_it_is(record)
        if record.id != key:
            record = await self._ended(record.id, wait_s)
        call.answer_metadata.update(calls.headers_of(record))
        return record

    async def _accept(
        self, key: UUID, asked: InvokeRequest, payload: Payload, call: Call, *, waits: bool
    ) -> Record:
        """Accept it, with its payload in the row or, where that is too large, beside it."""
        if payload.blob is None and len(payload.data) > self._blobs.inline_bytes:
            field = "payload" if asked.HasField("payload") else "body"
            blob = await self._blobs.keep_payload(key, one(payload.data), field)
            payload = Payload(b"", payload.content_type, blob)
        try:
            return await self._acceptance.accept(
                key,
                asked,
                payload.data,
                call,
                payload_type=payload.content_type,
                blob=payload.blob,
                waits=waits,
            )
        except MeshError:
            # Nothing was accepted. Of other errors that is not sure.
            await self._blobs.discard(payload.blob)
            raise

    async def GetInvocation(self, request: GetInvocationRequest, call: Call) -> Invocation:
        """One record, now or when it has ended."""
        key = invocation_key(request.invocation_id)
        return to_proto(await self._ended(key, waiting_s(request, call)))

    async def ListInvocations(
        self, request: ListInvocationsRequest, call: Call
    ) -> ListInvocationsResponse:
        """Records, newest first."""
        position = read_token(request, UUID)
        size = page_size(request.page_size)
        page = await self._history.page(
            limit=size + 1,
            before=position[0] if position else None,
            function_id=await self._acceptance.function_id(request.function_id, call),
            status=_status_filter(request),
            created_after=moment(request, "created_after"),
            created_before=moment(request, "created_before"),
            where=where(request.filter),
        )
        response = ListInvocationsResponse()
        response.invocations.extend(to_proto(record, listed=True) for record in page[:size])
        if len(page) > size:
            response.next_page_token = make_token(request, [str(page[size - 1].id)])
        return response

    async def GetInvocationLogs(
        self, request: GetInvocationLogsRequest, _call: Call
    ) -> GetInvocationLogsResponse:
        """What the function printed."""
        key = invocation_key(request.invocation_id)
        position = read_token(request, int, int, int)
        await self._find(key)
        size = page_size(request.page_size, default=1000, most=10_000)
        lines, following = await self._logs.read(key, Position(*position or ()), size)
        response = GetInvocationLogsResponse(lines=lines)
        if following is not None:
            parts = [following.attempt, following.sequence, following.line]
            response.next_page_token = make_token(request, parts)
        return response

    async def WatchInvocation(
        self, request: WatchInvocationRequest, _call: Call
    ) -> AsyncIterator[InvocationEvent]:
        """What happens to an invocation, as it happens."""
        key = invocation_key(request.invocation_id)
        seen = read_cursor(request)
        async with aclosing(self._watches.follow(key, seen)) as events:
            async for event in events:
                yield event_to_proto(event, cursor=make_cursor(request, event.seen))

    async def ListWorkers(self, request: ListWorkersRequest, _call: Call) -> ListWorkersResponse:
        """The workers."""
        position = read_token(request, str)
        size = page_size(request.page_size)
        workers = [w for w in await self._workers.all() if not position or w.id > position[0]]
        response = ListWorkersResponse(workers=workers[:size])
        if len(workers) > size:
            response.next_page_token = make_token(request, [workers[size - 1].id])
        return response

    async def GetWorker(self, request: GetWorkerRequest, _call: Call) -> Worker:
        """One worker."""
        return await self._workers.get(request.worker_id)

    async def DrainWorker(self, request: DrainWorkerRequest, _call: Call) -> Worker:
        """Let a worker take nothing new."""
        return await self._set_drain(request.worker_id, True)

    async def ResumeWorker(self, request: ResumeWorkerRequest, _call: Call) -> Worker:
        """Let a worker take work again."""
        return await self._set_drain(request.worker_id, False)

    async def _set_drain(self, worker_id: str, drain: bool) -> Worker:
        worker = await self._workers.set_drain(worker_id, drain)
        directive = (
            Directive(drain=Directive.Drain()) if drain else Directive(resume=Directive.Resume())
        )
        # At another replica it is told with the next heartbeat.
        key = ids.parse(ids.WORKER, worker_id)
        if key is not None:
            self._desk.tell(key, directive)
        return worker

    async def _ended(self, key: UUID, wait_s: float) -> Record:
        """The record when it has ended, or the wait has."""
        async with self._waiters.waiter(key) as waiter:
            record = await self._find(key)
            if not record.ended and wait_s > 0:
                record = await waiter.wait(wait_s) or await self._as_it_is(record)
        return record

    async def _as_it_is(self, accepted: Record) -> Record:
        """The record now; as it was accepted, where PostgreSQL does not answer any more."""
        try:
            return await self._find(accepted.id)
        except UNAVAILABLE as error:
            # Not an error to the caller: that would say that nothing was accepted.
            log.warning("the record cannot be read", error=str(error))
            return accepted

    async def _find(self, key: UUID) -> Record:
        record = await self._records.find(key)
        if record is None:
            raise InvocationNotFound(f"There is no invocation {ids.show(ids.INVOCATION, key)}.")
        return record

    async def _payload(self, request: InvokeRequest) -> bytes:
        try:
            if request.ByteSize() > self._blobs.inline_bytes:
                # So long that other calls would feel it.
                payload = await asyncio.to_thread(to_json, request.payload)
            else:
                payload = to_json(request.payload)
        except NotJson as error:
            raise InvalidPayload.of("payload", str(error)) from error
        self._check_size("payload", payload)
        return payload

    def _check_size(self, field: str, payload: bytes) -> None:
        most = self._blobs.max_payload_bytes
        if len(payload) > most:
            raise TooLarge(
                f"{field}: is {len(payload)} bytes; at most {most} are taken.",
                metadata={"limit_bytes": str(most)},
            )


class ExecutionServicer:
    """faas.v1.ExecutionService."""

    def __init__(self, desk: Desk, blobs: Blobs) -> None:
        """Deal with reports at `desk`, and with large content in `blobs`."""
        self._desk = desk
        self._blobs = blobs

    async def FetchPayload(
        self, request: FetchPayloadRequest, _call: Call
    ) -> AsyncIterator[FetchPayloadResponse]:
        """A large payload, for the boot that was granted the start."""
        record, _ = await self._held(request.start)
        blob = Blob.of(record.payload_blob)
        if blob is None:
            raise InvalidField.of("start", "has no large payload")
        chunks = self._blobs.read(blob, for_worker=True)
        async with aclosing(chunks):  # type: ignore[type-var]
            async for chunk in chunks:
                yield FetchPayloadResponse(chunk=chunk)

    async def StoreResult(
        self, requests: AsyncIterator[StoreResultRequest], _call: Call
    ) -> StoreResultResponse:
        """Keep a large result, ahead of the verdict that names it."""
        first = await anext(requests, None)
        if first is None:
            raise InvalidField.of("start", "must be in the first message")
        content = first.content

        async def chunks() -> AsyncIterator[bytes]:
            yield first.chunk
            async for request in requests:
                yield request.chunk

        record, boot = await self._held(first.start)
        size, sha256 = content.size_bytes, content.sha256
        blob = result_blob(record.id, record.attempt, boot, size, sha256)
        await self._blobs.keep_result(blob, chunks())
        return StoreResultResponse()

    async def _held(self, start: Start) -> tuple[Record, UUID]:
        """The record of a start, and the boot that has it. Raises InvocationNotFound."""
        key = ids.parse(ids.INVOCATION, start.invocation_id)
        boot = read_uuid("start.boot_id", start.boot_id)
        record = key and await self._desk.records.holds(key, start.attempt, boot)
        if not record:
            raise InvocationNotFound(f"{start.invocation_id} is no longer this worker's.")
        return record, boot

    async def ReportExecutions(
        self, requests: AsyncIterator[ReportExecutionsRequest], _call: Call
    ) -> AsyncIterator[ReportExecutionsResponse]:
        """One worker's stream, until it ends."""
        first = await anext(requests, None)
        if first is None:
            return
        if not first.reports or not first.reports[0].HasField("hello"):
            raise InvalidField.of("reports[0]", "must be hello")
        hello = first.reports[0].hello
        session = Session(self._desk, hello)
        await session.beat(hello.worker, None)
        self._desk.sessions[session.worker] = session
        if session.takes_assignments:
            self._desk.assignments.add(session.slots)
        listening = asyncio.create_task(
            session.listen(_with_first(first, requests)), name=f"reports of {hello.worker.id}"
        )
        listening.add_done_callback(lambda _: session.close())
        try:
            async for response in session.directives():
                yield response
            if listening.done():
                _raise_first(listening)
        finally:
            listening.cancel()
            self._desk.assignments.remove(session.slots)
            if self._desk.sessions.get(session.worker) is session:
                del self._desk.sessions[session.worker]


async def _with_first(
    first: ReportExecutionsRequest, requests: AsyncIterator[ReportExecutionsRequest]
) -> AsyncIterator[ReportExecutionsRequest]:
    # What comes after hello in the first message counts too.
    yield ReportExecutionsRequest(reports=first.reports[1:])
    async for request in requests:
        yield request


def _raise_first(listening: "asyncio.Task[None]") -> None:
    try:
        listening.result()
    except ExceptionGroup as group:
        raise group.exceptions[0] from group


def _patience_s(record: Record, call: Call) -> float:
    """How long a call without a `wait` of its own waits."""
    left = call.time_left_s()
    most = record.timeout_ms / 1000 + QUEUE_S if left is None else left - ANSWER_S
    return min(most, MAX_WAIT_S)


def _status_filter(request: ListInvocationsRequest) -> str | None:
    if request.status == Invocation.STATUS_UNSPECIFIED:
        return None
    return Invocation.Status.Name(request.status).lower()
