"""The RPCs of InvocationService and ExecutionService."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

import structlog
from google.api.httpbody_pb2 import HttpBody

from faas.json_values import NotJson, to_json
from faas.v1.execution_pb2 import Directive
from faas.v1.execution_service_pb2 import ReportExecutionsRequest, ReportExecutionsResponse
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
    WatchInvocationRequest,
)
from faas.v1.worker_pb2 import DrainWorkerRequest, GetWorkerRequest, ResumeWorkerRequest, Worker
from services import ids
from services.errors import InvalidField, InvalidPayload, InvocationNotFound, TooLarge
from services.invocations import calls
from services.invocations.acceptance import Acceptance
from services.invocations.database import UNAVAILABLE
from services.invocations.filters import where
from services.invocations.history import History
from services.invocations.logs import Logs, Position
from services.invocations.messages import event_to_proto, to_proto
from services.invocations.records import Record, Records
from services.invocations.reports import Desk, Session
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
        max_payload_bytes: int,
    ) -> None:
        """Serve by these; refuse payloads larger than `max_payload_bytes`."""
        self._acceptance = acceptance
        self._records = records
        self._history = history
        self._logs = logs
        self._workers = workers
        self._waiters = waiters
        self._watches = watches
        self._desk = desk
        self._max_payload_bytes = max_payload_bytes

    async def Invoke(self, request: InvokeRequest, call: Call) -> Invocation:
        """Accept; answer at once, or when it ends."""
        payload = self._payload(request)
        wait_s = waiting_s(request, call)
        key = ids.new_uuid()
        # Registered before it is offered: it may end before this call goes on.
        async with self._waiters.waiter(key) as waiter:
            record = await self._acceptance.accept(key, request, payload, call, waits=wait_s > 0)
            if record.id == key and wait_s > 0:
                record = await waiter.wait(wait_s) or await self._as_it_is(record)
        if record.id != key:
            record = await self._ended(record.id, wait_s)
        return to_proto(record)

    async def CallFunction(self, request: CallFunctionRequest, call: Call) -> HttpBody:
        """Accept raw bytes, wait, and answer with the result's."""
        payload, payload_type = calls.payload_of(request.body)
        self._check_size("body", payload)
        asked = InvokeRequest(
            function_id=request.function_id, function_version=request.function_version
        )
        key = ids.new_uuid()
        async with self._waiters.waiter(key) as waiter:
            record = await self._acceptance.accept(
                key, asked, payload, call, payload_type=payload_type, waits=True
            )
            call.answer_metadata.update(calls.headers_of(record))
            wait_s = _patience_s(record, call)
            if record.id == key:
                record = await waiter.wait(wait_s) or await self._as_it_is(record)
        if record.id != key:
            record = await self._ended(record.id, wait_s)
        call.answer_metadata.update(calls.headers_of(record))
        return calls.result_of(record)

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

    def _payload(self, request: InvokeRequest) -> bytes:
        try:
            payload = to_json(request.payload)
        except NotJson as error:
            raise InvalidPayload.of("payload", str(error)) from error
        self._check_size("payload", payload)
        return payload

    def _check_size(self, field: str, payload: bytes) -> None:
        most = self._max_payload_bytes
        if len(payload) > most:
            raise TooLarge(
                f"{field}: is {len(payload)} bytes; at most {most} are taken.",
                metadata={"limit_bytes": str(most)},
            )


class ExecutionServicer:
    """faas.v1.ExecutionService."""

    def __init__(self, desk: Desk) -> None:
        """Deal with reports at `desk`."""
        self._desk = desk

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
