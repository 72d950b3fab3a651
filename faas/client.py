"""The client: where all else begins.

    client = faas.Client()                      # or "https://faas.example", token="…"
    hello = client.deploy("hello.py")
    hello({"name": "World"})                    # waits for the result
    invocation = hello.submit({"name": "you"})  # does not
    invocation.result(timeout_s=60)

`AsyncClient` is the same with `await`, and is where it is all done: `Client` is a
face of it (see `faas.blocking`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from faas import contexts
from faas.address import Address
from faas.blocking import Face, Portal, blocking, iterating
from faas.errors import InvalidSettings, UnusableSource, WaitTimeout
from faas.functions import BUILD_TIMEOUT_S, AsyncFunction, Function
from faas.invocations import WAIT_S, AsyncInvocation, Invocation, error_code_of, status_of
from faas.local import LocalFunction
from faas.paging import pages
from faas.schedules import AsyncSchedule, Schedule
from faas.settings import Settings
from faas.sources import Source, prepared
from faas.transport import Transport
from faas.v1 import invocation_pb2, schedule_pb2
from faas.v1.dead_letter_pb2 import (
    DeadMessage,
    ListDeadLettersRequest,
    ListDeadMessagesRequest,
    Redrive,
    RedriveInvocationsRequest,
)
from faas.v1.function_service_pb2 import ListFunctionsRequest
from faas.v1.function_service_pb2_grpc import FunctionServiceStub
from faas.v1.invocation_service_pb2 import ListInvocationsRequest, ListWorkersRequest
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub
from faas.v1.schedule_pb2 import ListSchedulesRequest
from faas.v1.stats_pb2 import GetStatsRequest, Stats
from faas.v1.worker_pb2 import DrainWorkerRequest, GetWorkerRequest, ResumeWorkerRequest, Worker

TIMEOUT_S = 30.0
MOST_AT_ONCE = 1000
"""Ids that one call takes."""
WAITS_AT_ONCE = 100
"""Calls that wait at once: a connection has only so many streams."""


class AsyncClient:
    """A connection to a platform, for coroutines. Close it, or use `async with`."""

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        context: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Talk to `address`, such as `http://localhost:8080` or `https://faas.example`.

        Without one, to where the command `faas` does: see `faas.contexts`. `token` is
        sent as bearer credential. A call may take `timeout_s` seconds, its retries
        included; waiting for a function is not counted. Raises InvalidSettings.
        """
        server = contexts.choose(address, token, context)
        self.address = Address.parse(server.address)
        self._transport = Transport(
            self.address,
            token=server.token,
            timeout_s=timeout_s,
            root_certificates=_read(server.certificate),
        )

    async def __aenter__(self) -> Self:
        """The client."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._transport.close()

    def function(self, function_id: str) -> AsyncFunction:
        """The function of this name or id. Nothing is asked yet."""
        return AsyncFunction(self._transport, function_id)

    def invocation(self, invocation_id: str) -> AsyncInvocation:
        """The invocation of this id. Nothing is asked yet."""
        return AsyncInvocation(self._transport, invocation_pb2.Invocation(id=invocation_id))

    def schedule(self, schedule_id: str) -> AsyncSchedule:
        """The schedule of this id. Nothing is asked yet."""
        return AsyncSchedule(self._transport, schedule_pb2.Schedule(id=schedule_id))

    async def deploy(
        self,
        source: Source,
        *,
        name: str = "",
        runtime: str = "",
        validate: bool = False,
        build_timeout_s: float = BUILD_TIMEOUT_S,
        **settings: Unpack[Settings],
    ) -> AsyncFunction:
        """Create a function of this code, or change the one of its name to it.

        `source` is source text; a path (`pathlib.Path`, or text that ends as a path
        does) of a file, a folder or an archive; an archive's bytes; or a Python
        function of this program, whose text is taken with what it uses of its module.
        `name` and `runtime` are found from a path or a function where they can be.
        What has to be compiled is waited for; with `validate` it is refused where it
        does not compile: see `AsyncFunction.deploy`. Raises UnusableSource,
        InvalidRequest, BuildFailed.
        """
        with prepared(source) as code:
            name = name or code.name
            if not name:
                raise UnusableSource("What is the function to be called? Say so, as name='hello'.")
            function = self.function(name)
            chosen: Settings = {"handler": code.handler} if code.handler else {}
            if isinstance(source, LocalFunction):
                chosen |= source.settings
            chosen |= settings
            await function.deploy(
                code,
                runtime=runtime,
                validate=validate,
                build_timeout_s=build_timeout_s,
                **chosen,
            )
        return function

    async def functions(
        self,
        *,
        filter: str = "",  # noqa: A002 - the API's name for it
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncIterator[AsyncFunction]:
        """Functions, newest first; `filter` and `order_by` as in docs/reference/filters.md."""
        stub = FunctionServiceStub(self._transport.channel)
        request = ListFunctionsRequest(filter=filter, order_by=order_by, page_size=page_size)
        async for page in pages(self._transport, stub.ListFunctions, request):
            for record in page.functions:
                yield AsyncFunction(self._transport, record.id, record)

    async def invocations(
        self,
        *,
        filter: str = "",  # noqa: A002 - the API's name for it
        function_id: str = "",
        status: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[AsyncInvocation]:
        """Invocations, newest first, without payload and result."""
        stub = InvocationServiceStub(self._transport.channel)
        request = ListInvocationsRequest(
            function_id=function_id, status=status_of(status), filter=filter, page_size=page_size
        )
        _between(request, created_after, created_before)
        async for page in pages(self._transport, stub.ListInvocations, request):
            for record in page.invocations:
                yield AsyncInvocation(self._transport, record)

    async def as_completed(
        self, invocations: Iterable[AsyncInvocation], *, timeout_s: float | None = None
    ) -> AsyncIterator[AsyncInvocation]:
        """The invocations in the order in which they end. Raises WaitTimeout."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        waited, gate = list(invocations), asyncio.Semaphore(WAITS_AT_ONCE)
        # Where not all can wait at once they take turns, or the last would wait for the first.
        turn_s = WAIT_S if len(waited) <= WAITS_AT_ONCE else 1.0
        tasks = {
            asyncio.create_task(i.wait_in_turn(gate, turn_s), name=f"wait {i.id}"): i
            for i in waited
        }
        try:
            while tasks:
                left_s = None if deadline is None else max(deadline - time.monotonic(), 0)
                done, _ = await asyncio.wait(
                    tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    raise WaitTimeout(next(iter(tasks.values())).id, timeout_s or 0)
                for task in done:
                    invocation = tasks.pop(task)
                    task.result()
                    yield invocation
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def dead_letters(
        self,
        *,
        function_id: str = "",
        code: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[AsyncInvocation]:
        """What the platform gave up on, newest first; `code` is one of Invocation.ErrorCode."""
        stub = InvocationServiceStub(self._transport.channel)
        request = ListDeadLettersRequest(
            function_id=function_id, code=error_code_of(code), page_size=page_size
        )
        _between(request, created_after, created_before)
        async for page in pages(self._transport, stub.ListDeadLetters, request):
            for record in page.invocations:
                yield AsyncInvocation(self._transport, record)

    async def dead_messages(self) -> list[DeadMessage]:
        """The latest messages from the queue that belong to no invocation."""
        stub = InvocationServiceStub(self._transport.channel)
        request = ListDeadMessagesRequest(page_size=1000)
        return list((await self._transport.read(stub.ListDeadMessages, request)).messages)

    async def redrive(
        self,
        invocation_ids: Iterable[str] = (),
        *,
        function_id: str = "",
        status: str = "",
        code: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        latest_version: bool = False,
    ) -> AsyncIterator[Redrive]:
        """Take up again what failed, each with a new invocation, once however often asked.

        These ids; or, without any, what the rest says and was not taken up before:
        DEAD_LETTERED unless `status` is FAILED or TIMED_OUT.
        """
        stub = InvocationServiceStub(self._transport.channel)
        ids = list(invocation_ids)
        for start in range(0, max(len(ids), 1), MOST_AT_ONCE):
            request = RedriveInvocationsRequest(
                invocation_ids=ids[start : start + MOST_AT_ONCE],
                function_id=function_id,
                status=status_of(status),
                code=error_code_of(code),
                latest_version=latest_version,
            )
            _between(request, created_after, created_before)
            async for page in pages(self._transport, stub.RedriveInvocations, request):
                for redrive in page.redrives:
                    yield redrive

    async def schedules(
        self, *, function_id: str = "", page_size: int = 0
    ) -> AsyncIterator[AsyncSchedule]:
        """Schedules, newest first."""
        stub = InvocationServiceStub(self._transport.channel)
        request = ListSchedulesRequest(function_id=function_id, page_size=page_size)
        async for page in pages(self._transport, stub.ListSchedules, request):
            for record in page.schedules:
                yield AsyncSchedule(self._transport, record)

    async def stats(self, function_id: str = "", *, window_s: float = 3600.0) -> Stats:
        """How many ended how, and how long it took them; of one function, or of all."""
        stub = InvocationServiceStub(self._transport.channel)
        request = GetStatsRequest(function_id=function_id)
        request.window.FromNanoseconds(int(window_s * 1e9))
        return await self._transport.read(stub.GetStats, request)

    async def workers(self) -> AsyncIterator[Worker]:
        """Workers that were seen within the last hour."""
        stub = InvocationServiceStub(self._transport.channel)
        async for page in pages(self._transport, stub.ListWorkers, ListWorkersRequest()):
            for worker in page.workers:
                yield worker

    async def worker(self, worker_id: str) -> Worker:
        """One worker."""
        stub = InvocationServiceStub(self._transport.channel)
        return await self._transport.read(stub.GetWorker, GetWorkerRequest(worker_id=worker_id))

    async def drain_worker(self, worker_id: str) -> Worker:
        """Let a worker finish what it runs and take nothing new."""
        stub = InvocationServiceStub(self._transport.channel)
        request = DrainWorkerRequest(worker_id=worker_id)
        return await self._transport.call(stub.DrainWorker, request, again=True)

    async def resume_worker(self, worker_id: str) -> Worker:
        """Let a drained worker take work again."""
        stub = InvocationServiceStub(self._transport.channel)
        request = ResumeWorkerRequest(worker_id=worker_id)
        return await self._transport.call(stub.ResumeWorker, request, again=True)


class Client(Face[AsyncClient]):
    """A connection to a platform. Close it, or use `with`."""

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        context: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """As `AsyncClient` takes them."""
        core = AsyncClient(address, token=token, context=context, timeout_s=timeout_s)
        super().__init__(Portal(), core)

    def __enter__(self) -> Self:
        """The client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._portal.close(self._core.close)

    @property
    def address(self) -> Address:
        """Where it talks to."""
        return self._core.address

    def function(self, function_id: str) -> Function:
        """The function of this name or id. Nothing is asked yet."""
        return Function(self._portal, self._core.function(function_id))

    def invocation(self, invocation_id: str) -> Invocation:
        """The invocation of this id. Nothing is asked yet."""
        return Invocation(self._portal, self._core.invocation(invocation_id))

    def schedule(self, schedule_id: str) -> Schedule:
        """The schedule of this id. Nothing is asked yet."""
        return Schedule(self._portal, self._core.schedule(schedule_id))

    def as_completed(
        self, invocations: Iterable[Invocation], *, timeout_s: float | None = None
    ) -> Iterator[Invocation]:
        """The invocations in the order in which they end. Raises WaitTimeout."""
        mine = {invocation._core: invocation for invocation in invocations}
        for core in self._portal.iterate(self._core.as_completed(mine, timeout_s=timeout_s)):
            yield mine[core]

    deploy = blocking(AsyncClient.deploy, Function)
    functions = iterating(AsyncClient.functions, Function)
    invocations = iterating(AsyncClient.invocations, Invocation)
    dead_letters = iterating(AsyncClient.dead_letters, Invocation)
    dead_messages = blocking(AsyncClient.dead_messages)
    redrive = iterating(AsyncClient.redrive)
    schedules = iterating(AsyncClient.schedules, Schedule)
    stats = blocking(AsyncClient.stats)
    workers = iterating(AsyncClient.workers)
    worker = blocking(AsyncClient.worker)
    drain_worker = blocking(AsyncClient.drain_worker)
    resume_worker = blocking(AsyncClient.resume_worker)


def _between(request: Any, after: datetime | None, before: datetime | None) -> None:
    if after is not None:
        request.created_after.FromDatetime(after)
    if before is not None:
        request.created_before.FromDatetime(before)


def _read(file: str | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InvalidSettings(
            f"The certificate {file} cannot be read: {error.strerror}."
        ) from error
