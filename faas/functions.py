"""Functions: a handle of each, which is called, submitted to, changed and looked into."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Unpack
from uuid import uuid4

from google.api.httpbody_pb2 import HttpBody

from faas import schedules
from faas.blocking import Face, blocking, iterating, pulled
from faas.errors import (
    BuildFailed,
    FaasError,
    FunctionExists,
    FunctionNotFound,
    UnusableSource,
)
from faas.invocations import (
    ANSWER_S,
    WAIT_S,
    AsyncInvocation,
    Invocation,
    has_ended,
    status_of,
)
from faas.paging import pages
from faas.payloads import value_of
from faas.schedules import AsyncSchedule, Schedule
from faas.settings import Settings, fill
from faas.sources import Code, Source, prepared
from faas.transport import Transport, Whole
from faas.v1 import function_pb2
from faas.v1.function_pb2 import FunctionVersion
from faas.v1.function_service_pb2 import (
    CreateFunctionRequest,
    DeleteFunctionRequest,
    DownloadCodeRequest,
    GetFunctionRequest,
    GetFunctionVersionRequest,
    ListFunctionVersionsRequest,
    UpdateFunctionRequest,
    UploadCodeRequest,
)
from faas.v1.function_service_pb2_grpc import FunctionServiceStub
from faas.v1.invocation_service_pb2 import (
    CancelInvocationsRequest,
    InvokeRequest,
    StreamCallFunctionRequest,
)
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub
from faas.v1.lane_pb2 import Lane, PauseFunctionRequest, ResumeFunctionRequest

if TYPE_CHECKING:  # it is a type alone
    from faas.v1.function_service_pb2_grpc import FunctionServiceAsyncStub

Record = function_pb2.Function

MAX_INLINE_BYTES = 3 * 1024 * 1024
"""What an archive may have to travel inside a request; a larger one is uploaded first."""
CHUNK_BYTES = 512 * 1024
UPLOAD_TIMEOUT_S = 600.0
CALL_TIMEOUT_S = 960.0
"""How long a raw call waits: the longest timeout that a function can have, and a minute."""
BUILD_TIMEOUT_S = 300.0
"""How long a deployment waits until what it deployed is compiled."""
LOOK_S = (0.1, 1.0)
"""Between looks whether it is: at first, and in the end."""
CONCURRENCY = 16
"""How many invocations `map` has under way at once."""


@dataclass(frozen=True)
class Answer:
    """What a raw call answered."""

    data: bytes
    """Empty if it was written to a file."""
    content_type: str
    invocation_id: str
    size_bytes: int = 0


class FunctionView:
    """What is known of a function, as of when it was last read."""

    @property
    def record(self) -> Record:
        """Its settings; all empty before it is read."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Its name, or the id that it was asked for by."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Its name."""
        return f"<{type(self).__name__} {self.name}>"


class AsyncFunction(FunctionView):
    """One function. Call it as it were here: `await fn({"width": 10})`."""

    def __init__(
        self, transport: Transport, function_id: str, record: Record | None = None
    ) -> None:
        """The function of this name or id; nothing is asked of the server yet."""
        self._transport = transport
        self._function_id = function_id
        self._record = record or Record()

    @property
    def record(self) -> Record:
        """Its settings as they were last read."""
        return self._record

    @property
    def name(self) -> str:
        """Its name, or the id that it was asked for by."""
        return self._record.name or self._function_id

    async def __call__(
        self,
        payload: Any = None,
        *,
        timeout_s: float | None = None,
        version: int = 0,
        labels: Mapping[str, str] | None = None,
    ) -> Any:
        """What the function returns for `payload`.

        `timeout_s` is how long to wait, in seconds; None: until it ends, which is
        bounded by the function's own timeout. Raises FunctionFailed, WaitTimeout,
        CallFailed.
        """
        wait_s = WAIT_S if timeout_s is None else min(timeout_s, WAIT_S)
        invocation = await self._invoke(payload, wait_s, version=version, labels=labels)
        if has_ended(invocation.record):
            return await invocation.result()
        left_s = None if timeout_s is None else timeout_s - wait_s
        return await invocation.result(left_s)

    async def submit(
        self,
        payload: Any = None,
        *,
        version: int = 0,
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        not_before: datetime | None = None,
    ) -> AsyncInvocation:
        """Have it invoked, and do not wait; not before that moment.

        The same `request_id` gives the same invocation again, so that a caller who
        starts anew repeats nothing; without one, one is made.
        """
        return await self._invoke(
            payload,
            0,
            version=version,
            labels=labels,
            request_id=request_id,
            not_before=not_before,
        )

    async def map(
        self,
        payloads: Iterable[Any] | AsyncIterable[Any],
        *,
        concurrency: int = CONCURRENCY,
        version: int = 0,
        labels: Mapping[str, str] | None = None,
        return_exceptions: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> AsyncIterator[Any]:
        """The results for many payloads, in their order, `concurrency` at a time.

        A failure is raised in its place, which ends it all; with `return_exceptions` it
        is yielded instead. `progress` is told how many have ended.
        """
        ended = 0

        async def one(payload: Any) -> Any:
            nonlocal ended
            try:
                return await self(payload, version=version, labels=labels)
            except FaasError as error:
                if not return_exceptions:
                    raise
                return error
            finally:
                ended += 1
                if progress is not None:
                    progress(ended)

        waiting = _each(payloads)
        under_way: list[asyncio.Task[Any]] = []
        try:
            async for payload in waiting:
                under_way.append(asyncio.create_task(one(payload), name=f"map {self.name}"))
                if len(under_way) >= max(concurrency, 1):
                    yield await under_way.pop(0)
            while under_way:
                yield await under_way.pop(0)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def call(
        self,
        body: bytes | str | Path | IO[bytes] = b"",
        *,
        content_type: str = "",
        timeout_s: float = CALL_TIMEOUT_S,
        version: int = 0,
        to: IO[bytes] | None = None,
    ) -> Answer:
        """Bytes in, bytes out, each with its content type: exact where JSON is not.

        A path or an open file is sent as it is read, and the answer is written as it
        comes to the file `to`, if there is one: neither is in memory as a whole. Raises
        NoResult where the function has none. It is sent once: a failure on the way may
        mean that it ran.
        """
        if isinstance(body, str):
            content_type = content_type or "text/plain; charset=utf-8"
        first = StreamCallFunctionRequest(
            function_id=self._function_id,
            body=HttpBody(content_type=content_type),
            function_version=version,
        )
        answers = self._transport.exchange(
            InvocationServiceStub(self._transport.channel).StreamCallFunction,
            _body(first, body),
            timeout_s=timeout_s,
        )
        parts: list[bytes] = []
        whole, answer = None, Answer(b"", "", "")
        async for part, headers in answers:
            if whole is None:
                whole = Whole(headers)
                invocation_id = headers.get("x-faas-invocation-id", "")
                answer = Answer(b"", part.content_type, invocation_id)
            whole.add(part.data)
            answer = replace(answer, size_bytes=answer.size_bytes + len(part.data))
            if to is None:
                parts.append(part.data)
            else:
                await asyncio.to_thread(to.write, part.data)
        if whole is not None:
            whole.check()
        return replace(answer, data=b"".join(parts))

    async def cancel_all(self, *, status: str = "", created_before: datetime | None = None) -> int:
        """Cancel its invocations that have not ended: how many. `status`: only such."""
        request = CancelInvocationsRequest(function_id=self._function_id, status=status_of(status))
        if created_before is not None:
            request.created_before.FromDatetime(created_before)
        stub, cancelled, more = InvocationServiceStub(self._transport.channel), 0, True
        while more:
            response = await self._transport.call(stub.CancelInvocations, request, again=True)
            cancelled, more = cancelled + response.cancelled, response.more
        return cancelled

    async def schedule(
        self,
        cron: str,
        payload: Any = None,
        *,
        time_zone: str = "",
        version: int = 0,
        labels: Mapping[str, str] | None = None,
        overlap: str = "",
        misfire: str = "",
        paused: bool = False,
    ) -> AsyncSchedule:
        """Have it invoked at the times that `cron` names: see the proto's Schedule."""
        return await schedules.create(
            self._transport,
            self._function_id,
            cron,
            payload,
            time_zone=time_zone,
            version=version,
            labels=labels,
            overlap=overlap,
            misfire=misfire,
            paused=paused,
        )

    async def pause(self) -> Lane:
        """Start nothing of it until it is resumed: what is accepted waits."""
        stub = InvocationServiceStub(self._transport.channel)
        request = PauseFunctionRequest(function_id=self._function_id)
        return await self._transport.call(stub.PauseFunction, request, again=True)

    async def resume(self) -> Lane:
        """Start its invocations again."""
        stub = InvocationServiceStub(self._transport.channel)
        request = ResumeFunctionRequest(function_id=self._function_id)
        return await self._transport.call(stub.ResumeFunction, request, again=True)

    async def refresh(self) -> Record:
        """Read its settings anew."""
        request = GetFunctionRequest(function_id=self._function_id)
        self._record = await self._transport.read(self._stub.GetFunction, request)
        return self._record

    async def deploy(
        self,
        source: Source | None = None,
        *,
        runtime: str = "",
        etag: str = "",
        validate: bool = False,
        build_timeout_s: float = BUILD_TIMEOUT_S,
        **settings: Unpack[Settings],
    ) -> Record:
        """Create it with this code and these settings, or change what is there to them.

        Settings that are not named stay as they are; None or empty sets one back. What
        has to be compiled is waited for so long: `ready`. With `validate` code that
        does not compile is refused and nothing is changed: InvalidCode.
        """
        if source is None:
            await self._update(Code(runtime), settings, etag, validate=validate)
            return await self.ready(build_timeout_s)
        with prepared(source) as found:
            code = replace(found, runtime=runtime) if runtime else found
            await self._put(code, settings, etag, validate=validate)
        return await self.ready(build_timeout_s)

    async def ready(self, timeout_s: float = BUILD_TIMEOUT_S) -> Record:
        """Wait until it can run: its settings, READY, or still BUILDING after this time.

        Raises BuildFailed, with the compiler's words.
        """
        if not self._record.state:
            await self.refresh()
        look_s, longest_s = LOOK_S
        deadline = time.monotonic() + timeout_s
        while self._record.state == FunctionVersion.BUILDING and time.monotonic() < deadline:
            await asyncio.sleep(look_s)
            look_s = min(look_s * 2, longest_s)
            await self.refresh()
        if self._record.state == FunctionVersion.FAILED:
            raise BuildFailed(self._record)
        return self._record

    async def update(
        self, *, name: str = "", etag: str = "", **settings: Unpack[Settings]
    ) -> Record:
        """Change these settings, and no others; None or empty sets one back."""
        return await self._update(Code(""), settings, etag, name)

    async def delete(self, *, etag: str = "") -> None:
        """Delete it. What was accepted still runs."""
        request = DeleteFunctionRequest(function_id=self._function_id, etag=etag)
        await self._transport.call(self._stub.DeleteFunction, request)

    async def versions(self) -> AsyncIterator[FunctionVersion]:
        """Its versions, newest first."""
        request = ListFunctionVersionsRequest(function_id=self._function_id)
        async for page in pages(self._transport, self._stub.ListFunctionVersions, request):
            for version in page.versions:
                yield version

    async def version(self, version: int) -> FunctionVersion:
        """One version."""
        request = GetFunctionVersionRequest(function_id=self._function_id, version=version)
        return await self._transport.read(self._stub.GetFunctionVersion, request)

    async def download(self, version: int = 0) -> AsyncIterator[bytes]:
        """Its code as it was handed in, in chunks; 0: the latest."""
        request = DownloadCodeRequest(function_id=self._function_id, version=version)
        async for chunk in self._transport.receive(
            self._stub.DownloadCode, request, timeout_s=UPLOAD_TIMEOUT_S
        ):
            yield chunk.data

    @property
    def _stub(self) -> "FunctionServiceAsyncStub":
        return FunctionServiceStub(self._transport.channel)

    async def _invoke(
        self,
        payload: Any,
        wait_s: float,
        *,
        version: int,
        labels: Mapping[str, str] | None,
        request_id: str | None = None,
        not_before: datetime | None = None,
    ) -> AsyncInvocation:
        request = InvokeRequest(
            function_id=self._function_id,
            payload=value_of(payload),
            function_version=version,
            # What makes it safe to be sent twice.
            request_id=request_id or str(uuid4()),
        )
        request.labels.update(labels or {})
        request.wait.FromNanoseconds(int(wait_s * 1e9))
        if not_before is not None:
            request.not_before.FromDatetime(not_before)
        record = await self._transport.call(
            InvocationServiceStub(self._transport.channel).Invoke,
            request,
            timeout_s=max(wait_s + ANSWER_S, self._transport.timeout_s),
            again=True,
        )
        return AsyncInvocation(self._transport, record)

    async def _put(
        self, code: Code, settings: Mapping[str, Any], etag: str, *, validate: bool
    ) -> Record:
        try:
            return await self._update(code, settings, etag, validate=validate)
        except FunctionNotFound:
            if etag or self._function_id.startswith("func-"):
                raise
        try:
            return await self._create(code, settings, validate=validate)
        except FunctionExists:  # somebody was faster
            return await self._update(code, settings, etag, validate=validate)

    async def _create(self, code: Code, settings: Mapping[str, Any], *, validate: bool) -> Record:
        if not code.runtime:
            raise UnusableSource(
                "Which runtime the code is for cannot be told from it: say so, as runtime='python'."
            )
        request = CreateFunctionRequest(
            name=self._function_id, runtime=code.runtime, validate=validate
        )
        fill(request, {k: v for k, v in settings.items() if v is not None})
        await self._put_code(request, code)
        self._record = await self._transport.call(
            self._stub.CreateFunction, request, timeout_s=UPLOAD_TIMEOUT_S
        )
        return self._record

    async def _update(
        self,
        code: Code,
        settings: Mapping[str, Any],
        etag: str,
        name: str = "",
        *,
        validate: bool = False,
    ) -> Record:
        request = UpdateFunctionRequest(function_id=self._function_id, etag=etag, validate=validate)
        if name:
            request.name = name
        if code.runtime:
            request.runtime = code.runtime
        await self._put_code(request, code)
        fill(request, settings)
        self._record = await self._transport.call(
            self._stub.UpdateFunction, request, timeout_s=UPLOAD_TIMEOUT_S
        )
        return self._record

    async def _put_code(
        self, request: CreateFunctionRequest | UpdateFunctionRequest, code: Code
    ) -> None:
        if code.text is not None:
            request.code = code.text
        elif code.archive is not None and code.size_bytes <= MAX_INLINE_BYTES:
            with code.open() as file:
                request.archive = file.read()
        elif code.archive is not None:
            with code.open() as file:
                upload = await self._transport.send(
                    self._stub.UploadCode,
                    lambda: _chunks(file),
                    timeout_s=UPLOAD_TIMEOUT_S,
                )
            request.upload_id = upload.id


class Function(FunctionView, Face[AsyncFunction]):
    """One function. Call it as it were here: `fn({"width": 10})`."""

    @property
    def record(self) -> Record:
        """Its settings as they were last read."""
        return self._core.record

    @property
    def name(self) -> str:
        """Its name, or the id that it was asked for by."""
        return self._core.name

    __call__ = blocking(AsyncFunction.__call__)
    submit = blocking(AsyncFunction.submit, Invocation)
    map = iterating(AsyncFunction.map, first=pulled)
    call = blocking(AsyncFunction.call)
    cancel_all = blocking(AsyncFunction.cancel_all)
    schedule = blocking(AsyncFunction.schedule, Schedule)
    pause = blocking(AsyncFunction.pause)
    resume = blocking(AsyncFunction.resume)
    refresh = blocking(AsyncFunction.refresh)
    deploy = blocking(AsyncFunction.deploy)
    ready = blocking(AsyncFunction.ready)
    update = blocking(AsyncFunction.update)
    delete = blocking(AsyncFunction.delete)
    versions = iterating(AsyncFunction.versions)
    version = blocking(AsyncFunction.version)
    download = iterating(AsyncFunction.download)


async def _body(
    first: StreamCallFunctionRequest, body: bytes | str | Path | IO[bytes]
) -> AsyncIterator[StreamCallFunctionRequest]:
    """The messages of a raw call; `first` has all but the body."""
    if isinstance(body, bytes | str):
        body = bytes(body, "utf-8") if isinstance(body, str) else body
        first.body.data = body[:CHUNK_BYTES]
        yield first
        for start in range(CHUNK_BYTES, len(body), CHUNK_BYTES):
            chunk = HttpBody(data=body[start : start + CHUNK_BYTES])
            yield StreamCallFunctionRequest(body=chunk)
        return
    with body.open("rb") if isinstance(body, Path) else nullcontext(body) as file:
        first.body.data = await asyncio.to_thread(file.read, CHUNK_BYTES)
        yield first
        while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield StreamCallFunctionRequest(body=HttpBody(data=data))


def _chunks(file: IO[bytes]) -> Iterator[UploadCodeRequest]:
    file.seek(0)
    while data := file.read(CHUNK_BYTES):
        yield UploadCodeRequest(chunk=HttpBody(data=data))


async def _each(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
