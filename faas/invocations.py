"""Invocations: a handle of each, which waits, reads and shows what was printed."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from faas.blocking import Face, blocking, iterating
from faas.errors import FunctionFailed, WaitTimeout
from faas.json_values import to_python
from faas.transport import Transport
from faas.v1 import invocation_pb2
from faas.v1.invocation_pb2 import LogLine
from faas.v1.invocation_service_pb2 import GetInvocationLogsRequest, GetInvocationRequest
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub

Record = invocation_pb2.Invocation

WAIT_S = 30.0
"""How long one call waits at most: a longer wait is several, so that no proxy cuts it."""
ANSWER_S = 10.0
"""What a call that waits has besides, to be answered."""
FOLLOW_S = 0.5
"""How often new lines are looked for while a function runs."""

_UNENDED = (Record.STATUS_UNSPECIFIED, Record.PENDING, Record.RUNNING)


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
        """What the function was given. Lists leave it out."""
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

    async def result(self, timeout_s: float | None = None) -> Any:
        """What the function returned, when it has. Raises FunctionFailed, WaitTimeout."""
        return result_of(await self.wait(timeout_s))

    async def logs(self, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """What it has printed; with `follow`, until it ends."""
        stub = InvocationServiceStub(self._transport.channel)
        request = GetInvocationLogsRequest(invocation_id=self.id)
        seen = 0
        while True:
            # Read before the lines: what is printed in between is not missed.
            ended = not follow or has_ended(await self._read(0))
            while True:
                page = await self._transport.read(stub.GetInvocationLogs, request)
                for line in page.lines[seen:]:
                    yield line
                seen = len(page.lines)
                if not page.next_page_token:
                    break
                request.page_token, seen = page.next_page_token, 0
            if ended:
                return
            await asyncio.sleep(FOLLOW_S)

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
    logs = iterating(AsyncInvocation.logs)


def moment(timestamp: Timestamp) -> datetime:
    """A timestamp as Python has it, in UTC."""
    return timestamp.ToDatetime(tzinfo=UTC)
