"""Invocations: a handle of each, which waits, reads and shows what was printed."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from faas.blocking import Face, blocking, iterating
from faas.errors import (
    CallFailed,
    DeadlineExceeded,
    FunctionFailed,
    InvalidSettings,
    Unavailable,
    WaitTimeout,
)
from faas.json_values import is_json, loads, to_python
from faas.paging import pages
from faas.transport import FIRST_BACKOFF_S, MAX_BACKOFF_S, Transport
from faas.v1 import invocation_pb2
from faas.v1.explanation_pb2 import ExplainInvocationRequest, Explanation
from faas.v1.invocation_pb2 import InvocationEvent, LogLine
from faas.v1.invocation_service_pb2 import (
    CancelInvocationRequest,
    GetInvocationLogsRequest,
    GetInvocationPayloadRequest,
    GetInvocationRequest,
    GetInvocationResultRequest,
    WatchInvocationRequest,
)
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub
from faas.v1.replay_pb2 import CompareInvocationsRequest, Comparison, ReplayInvocationRequest

Record = invocation_pb2.Invocation

WAIT_S = 30.0
"""How long one call waits at most: a longer wait is several, so that no proxy cuts it."""
ANSWER_S = 10.0
"""What a call that waits has besides, to be answered."""
WATCH_S = 3600.0
"""How long one stream may last before the next one takes it up."""
SILENCE_S = 45.0
"""A stream without a sign of life, of which there is one every 15 s, is broken."""
DOWNLOAD_S = 900.0
"""How long reading a payload or a result may take."""
RESUME_S = 30.0
"""How long a stream that broke is tried to be taken up again."""

_UNENDED = (Record.STATUS_UNSPECIFIED, Record.PENDING, Record.RUNNING)


def status_of(name: str) -> Record.Status.ValueType:
    """A state by its name; empty: any. Raises InvalidSettings."""
    return Record.Status.Value(_known(name, Record.Status, "status")) if name else 0  # type: ignore[return-value]


def error_code_of(name: str) -> Record.ErrorCode.ValueType:
    """An error's code by its name; empty: any. Raises InvalidSettings."""
    return Record.ErrorCode.Value(_known(name, Record.ErrorCode, "code")) if name else 0  # type: ignore[return-value]


def _known(name: str, names: Any, what: str) -> str:
    if name.upper() in names.keys()[1:]:
        return name.upper()
    raise InvalidSettings(f"There is no {what} {name!r}. There are {', '.join(names.keys()[1:])}.")


def has_ended(record: Record) -> bool:
    """Whether its state is terminal; also one that this client does not know."""
    return record.status not in _UNENDED


def result_of(record: Record) -> Any:
    """What the function returned. Raises FunctionFailed where it did not."""
    if record.status != Record.COMPLETED:
        raise FunctionFailed(record)
    return to_python(record.result)


class InvocationView:
    """What a record says, as of when it was last read."""

    @property
    def record(self) -> Record:
        """The record itself; all but its id is empty before it is read."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """`inv-…`."""
        return self.record.id

    @property
    def status(self) -> str:
        """Where it stands: `PENDING`, `RUNNING`, `COMPLETED`, and so on."""
        status = self.record.status
        known = status in Record.Status.values()
        return Record.Status.Name(status) if known else str(status)

    @property
    def ended(self) -> bool:
        """Whether it has, and so never changes again."""
        return has_ended(self.record)

    @property
    def function_name(self) -> str:
        """The function's name when it was invoked."""
        return self.record.function_name

    @property
    def payload(self) -> Any:
        """What the function was given. Lists leave it out, and so do records of more than 1 MiB."""
        return to_python(self.record.payload)

    @property
    def created_at(self) -> datetime:
        """When it was accepted."""
        return moment(self.record.created_at)

    def __repr__(self) -> str:
        """Its id and where it stands."""
        return f"<{type(self).__name__} {self.id} {self.status}>"


class AsyncInvocation(InvocationView):
    """One invocation."""

    def __init__(self, transport: Transport, record: Record) -> None:
        """The invocation of `record`, of which the id is enough."""
        self._transport = transport
        self._record = record

    @property
    def record(self) -> Record:
        """The record as it was last read."""
        return self._record

    async def refresh(self) -> Record:
        """Read the record anew."""
        return await self._read(0)

    async def wait(self, timeout_s: float | None = None) -> Record:
        """The record when the invocation has ended. Raises WaitTimeout."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not has_ended(self._record):
            left_s = WAIT_S if deadline is None else min(WAIT_S, deadline - time.monotonic())
            if left_s <= 0 and timeout_s is not None:
                raise WaitTimeout(self.id, timeout_s)
            await self._read(left_s)
        return self._record

    async def wait_in_turn(self, gate: asyncio.Semaphore, turn_s: float) -> None:
        """Wait until it has ended, `turn_s` at a time, whenever `gate` lets it."""
        while not has_ended(self._record):
            async with gate:
                await self._read(turn_s)

    async def result(self, timeout_s: float | None = None) -> Any:
        """What the function returned, when it has. Raises FunctionFailed, WaitTimeout."""
        record = await self.wait(timeout_s)
        if not record.HasField("large_result") or not is_json(record.result_type):
            return result_of(record)
        return loads(b"".join([chunk async for chunk in self.read_result()]))

    async def read_payload(self) -> AsyncIterator[bytes]:
        """The payload's bytes as they came, in chunks."""
        stub = InvocationServiceStub(self._transport.channel)
        request = GetInvocationPayloadRequest(invocation_id=self.id)
        async for chunk in self._transport.download(
            stub.GetInvocationPayload, request, timeout_s=DOWNLOAD_S
        ):
            yield chunk

    async def read_result(self) -> AsyncIterator[bytes]:
        """The result's bytes as the function gave them, in chunks. Raises ResultNotFound."""
        stub = InvocationServiceStub(self._transport.channel)
        request = GetInvocationResultRequest(invocation_id=self.id)
        async for chunk in self._transport.download(
            stub.GetInvocationResult, request, timeout_s=DOWNLOAD_S
        ):
            yield chunk

    async def cancel(self) -> Record:
        """End it: what runs is killed. Raises InvocationEnded where it has ended before."""
        stub = InvocationServiceStub(self._transport.channel)
        request = CancelInvocationRequest(invocation_id=self.id)
        self._record = await self._transport.call(stub.CancelInvocation, request, again=True)
        return self._record

    async def explain(self) -> Explanation:
        """What happened to it and why, and what it cost."""
        stub = InvocationServiceStub(self._transport.channel)
        request = ExplainInvocationRequest(invocation_id=self.id)
        return await self._transport.read(stub.ExplainInvocation, request)

    async def replay(self, *, version: int | None = None) -> "AsyncInvocation":
        """Invoke its function again with its payload; `version` 0: the latest, None: its own."""
        stub = InvocationServiceStub(self._transport.channel)
        request = ReplayInvocationRequest(invocation_id=self.id, function_version=version)
        replay = await self._transport.call(stub.ReplayInvocation, request)
        return AsyncInvocation(self._transport, replay.invocation)

    async def compare(self, other: str = "") -> Comparison:
        """How its end differs from another's; of a replay, from what it replays."""
        stub = InvocationServiceStub(self._transport.channel)
        # The field has a name that Python has taken.
        request = CompareInvocationsRequest(invocation_id=self.id, **{"with": other})
        return await self._transport.read(stub.CompareInvocations, request)

    async def logs(
        self, *, follow: bool = False, timeout_s: float | None = None
    ) -> AsyncIterator[LogLine]:
        """What it has printed; with `follow`, until it ends. Raises WaitTimeout."""
        if follow:
            async for event in self.watch(timeout_s=timeout_s):
                for line in event.lines:
                    yield line
            return
        stub = InvocationServiceStub(self._transport.channel)
        request = GetInvocationLogsRequest(invocation_id=self.id)
        async for page in pages(self._transport, stub.GetInvocationLogs, request):
            for line in page.lines:
                yield line

    async def watch(
        self, cursor: str = "", *, timeout_s: float | None = None
    ) -> AsyncIterator[InvocationEvent]:
        """What happens to it, as it happens, until it has ended: states and lines.

        A stream that breaks is taken up again where it was; `cursor`, from an event,
        takes one up that was left. Raises WaitTimeout where it has not ended by then.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        stub = InvocationServiceStub(self._transport.channel)
        request = WatchInvocationRequest(invocation_id=self.id, cursor=cursor)
        heard, broken = time.monotonic(), 0
        while True:
            left_s = WATCH_S if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                raise WaitTimeout(self.id, timeout_s or 0)
            try:
                async for event in self._transport.receive(
                    stub.WatchInvocation,
                    request,
                    timeout_s=min(left_s, WATCH_S),
                    silence_s=SILENCE_S,
                ):
                    heard, broken = time.monotonic(), 0
                    request.cursor = event.cursor or request.cursor
                    if event.HasField("invocation"):
                        self._record = _with_payload_of(self._record, event.invocation)
                    if event.lines or event.HasField("invocation"):
                        yield event
                    if event.last:
                        return
                failure: CallFailed = Unavailable("The stream ended before the invocation did.")
            except (Unavailable, DeadlineExceeded) as error:
                failure = error
            if time.monotonic() - heard > RESUME_S and broken:
                raise failure
            broken += 1
            await asyncio.sleep(min(FIRST_BACKOFF_S * 2**broken, MAX_BACKOFF_S))

    async def _read(self, wait_s: float) -> Record:
        stub = InvocationServiceStub(self._transport.channel)
        request = GetInvocationRequest(invocation_id=self.id)
        request.wait.FromNanoseconds(int(wait_s * 1e9))
        timeout_s = max(wait_s + ANSWER_S, self._transport.timeout_s)
        self._record = await self._transport.read(stub.GetInvocation, request, timeout_s=timeout_s)
        return self._record


class Invocation(InvocationView, Face[AsyncInvocation]):
    """One invocation."""

    @property
    def record(self) -> Record:
        """The record as it was last read."""
        return self._core.record

    refresh = blocking(AsyncInvocation.refresh)
    wait = blocking(AsyncInvocation.wait)
    result = blocking(AsyncInvocation.result)
    cancel = blocking(AsyncInvocation.cancel)
    explain = blocking(AsyncInvocation.explain)
    compare = blocking(AsyncInvocation.compare)
    read_payload = iterating(AsyncInvocation.read_payload)
    read_result = iterating(AsyncInvocation.read_result)
    logs = iterating(AsyncInvocation.logs)
    watch = iterating(AsyncInvocation.watch)

    def replay(self, *, version: int | None = None) -> "Invocation":
        """Invoke its function again with its payload; `version` 0: the latest, None: its own."""
        return Invocation(self._portal, self._portal.run(self._core.replay(version=version)))


def _with_payload_of(known: Record, seen: Record) -> Record:
    """A watch tells no payload; what was known of it stays."""
    if known.HasField("payload") and not seen.HasField("payload"):
        seen.payload.CopyFrom(known.payload)
    return seen


def moment(timestamp: Timestamp) -> datetime:
    """A timestamp as Python has it, in UTC."""
    return timestamp.ToDatetime(tzinfo=UTC)
