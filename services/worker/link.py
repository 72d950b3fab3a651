"""The stream to InvocationService: one writer, batched, and back after every break.

Whatever awaits an answer is said again on the next stream, and so are the lines of
executions without a verdict; the service takes everything twice without harm.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import grpc
import grpc.aio
import structlog

from faas.v1.execution_pb2 import Directive, Report
from faas.v1.execution_service_pb2 import ReportExecutionsRequest, ReportExecutionsResponse
from faas.v1.worker_pb2 import Worker
from services.ids import new_uuid

if TYPE_CHECKING:
    from faas.v1.execution_service_pb2_grpc import ExecutionServiceAsyncStub

MAX_REPORTS = 100
RECONNECT_S = 0.2
RECONNECT_MAX_S = 2.0
# A stream on which no heartbeat is answered for so many intervals is given up.
SILENT_BEATS = 3
# Grants that are remembered: far more than come between two heartbeats.
MAX_GRANTS = 65_536

Key: TypeAlias = tuple[str, str | int]
Answer = TypeVar("Answer")

log = structlog.get_logger()


class _Awaited:
    """A report that awaits its answer, to be said again until it comes."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.answer: asyncio.Future[Directive] = asyncio.get_running_loop().create_future()


class Link:
    """What a worker says and is told."""

    def __init__(
        self,
        stub: "ExecutionServiceAsyncStub",
        *,
        describe: Callable[[], Worker],
        held: Callable[[], list[Report.Held]],
        on_directive: Callable[[Directive], None],
        heartbeat_interval_s: float,
    ) -> None:
        """Speak through `stub`; `describe` and `held` say what heartbeats carry.

        `on_directive` is called for each directive that answers no report.
        """
        self._stub = stub
        self._describe = describe
        self._held = held
        self._on_directive = on_directive
        self._interval_s = heartbeat_interval_s
        self._outbox: asyncio.Queue[Report] = asyncio.Queue()
        self._awaited: dict[Key, _Awaited] = {}
        self._logs: dict[str, list[Report]] = {}
        self._answered_at = float("-inf")
        self._unanswered = 0
        self._settled = asyncio.Event()
        # In the order in which they came: what came of each, None where it was not declined.
        self._grants: dict[str, Report | None] = {}

    def heartbeat_age_s(self) -> float:
        """Seconds since a heartbeat was last answered."""
        return time.monotonic() - self._answered_at

    async def start(self, invocation_id: str) -> Directive.Granted | Directive.Refused:
        """Ask for the start of an invocation."""
        grant = str(new_uuid())
        report = Report(start=Report.Start(invocation_id=invocation_id, grant_id=grant))
        answer = await self._ask((invocation_id, grant), report)
        return answer.granted if answer.HasField("granted") else answer.refused

    async def finish(self, report: Report.Finished) -> Directive.Recorded:
        """Report a verdict; returns when it is committed, or is found to change nothing."""
        answer = await self._ask((report.invocation_id, report.attempt), Report(finished=report))
        self._logs.pop(report.invocation_id, None)
        return answer.recorded

    async def abandon(self, report: Report.Abandoned) -> Directive.Recorded:
        """Give an execution back; returns when that is committed."""
        answer = await self._ask((report.invocation_id, report.attempt), Report(abandoned=report))
        self._logs.pop(report.invocation_id, None)
        return answer.recorded

    async def bury(self, boot_id: str) -> None:
        """Say that an earlier boot of this worker is over; returns when that is known."""
        await self._ask((boot_id, "buried"), Report(buried=Report.Buried(boot_id=boot_id)))

    def decline(self, invocation_id: str, reason: str, grant_id: str = "") -> None:
        """Let somebody else have an offer, or what was assigned under `grant_id`.

        Not answered: recovery, or the next heartbeat, finds what is lost. What was assigned
        is declined for good: told again, it is declined again.
        """
        decline = Report.Decline(invocation_id=invocation_id, reason=reason, grant_id=grant_id)
        report = Report(decline=decline)
        if grant_id:
            self._note(grant_id, report)
        self._outbox.put_nowait(report)

    def log_lines(self, logs: Report.Logs) -> None:
        """Send lines that were printed; kept, to be sent again, until the verdict."""
        report = Report(logs=logs)
        self._logs.setdefault(logs.invocation_id, []).append(report)
        self._outbox.put_nowait(report)

    def forget(self, invocation_id: str) -> None:
        """Drop what is kept of an execution that is no longer this worker's."""
        self._logs.pop(invocation_id, None)

    def beat(self) -> None:
        """Send a heartbeat now."""
        self._unanswered += 1
        self._settled.clear()
        beat = Report.Heartbeat(worker=self._describe(), held=self._held())
        self._outbox.put_nowait(Report(heartbeat=beat))

    async def settle(self, timeout_s: float) -> None:
        """Beat, and wait until that is answered, or so long.

        Then what was said before it is known, and what was told before has come.
        """
        self.beat()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()

    async def run(self) -> None:
        """Keep a stream until cancelled."""
        pause_s = RECONNECT_S
        while True:
            connected = time.monotonic()
            try:
                await self._stream()
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                text = error.details() if isinstance(error, grpc.aio.AioRpcError) else "silence"
                log.warning("the status stream broke", error=text)
            if time.monotonic() - connected > RECONNECT_MAX_S:
                pause_s = RECONNECT_S
            await asyncio.sleep(pause_s)
            pause_s = min(RECONNECT_MAX_S, pause_s * 2)

    async def goodbye(self, timeout_s: float) -> None:
        """Say that this boot holds nothing any more and will not return."""
        reports = [Report(hello=Report.Hello(worker=self._describe()))]
        reports.append(Report(goodbye=Report.Goodbye()))

        async def last() -> AsyncIterator[ReportExecutionsRequest]:
            yield ReportExecutionsRequest(reports=reports)

        try:
            async for _ in self._stub.ReportExecutions(last(), timeout=timeout_s):
                pass
        except grpc.aio.AioRpcError as error:
            log.info("could not say goodbye; the lease will end by itself", error=error.details())

    async def _ask(self, key: Key, report: Report) -> Directive:
        awaited = self._awaited[key] = _Awaited(report)
        self._outbox.put_nowait(report)
        try:
            return await awaited.answer
        finally:
            self._awaited.pop(key, None)

    async def _stream(self) -> None:
        self._outbox = asyncio.Queue()
        # Hello is answered like a heartbeat.
        self._unanswered = 1
        self._settled.clear()
        call = self._stub.ReportExecutions(self._requests(self._outbox))
        beating = asyncio.create_task(self._beat_on(self._outbox), name="heartbeats")
        try:
            silence_s = SILENT_BEATS * self._interval_s
            responses = aiter(call)
            while True:
                async with asyncio.timeout(silence_s):
                    response = await anext(responses, None)
                if response is None:
                    return
                self._receive(response)
        finally:
            beating.cancel()
            call.cancel()

    async def _requests(
        self, outbox: "asyncio.Queue[Report]"
    ) -> AsyncIterator[ReportExecutionsRequest]:
        hello = Report(hello=Report.Hello(worker=self._describe(), takes_assignments=True))
        again = [report for chunks in self._logs.values() for report in chunks]
        # Verdicts last: what was printed before them goes before them.
        again += [awaited.report for awaited in self._awaited.values()]
        yield ReportExecutionsRequest(reports=[hello])
        for start in range(0, len(again), MAX_REPORTS):
            yield ReportExecutionsRequest(reports=again[start : start + MAX_REPORTS])
        while True:
            batch = [await outbox.get()]
            while not outbox.empty() and len(batch) < MAX_REPORTS:
                batch.append(outbox.get_nowait())
            yield ReportExecutionsRequest(reports=batch)

    async def _beat_on(self, outbox: "asyncio.Queue[Report]") -> None:
        while outbox is self._outbox:
            await asyncio.sleep(self._interval_s)
            self.beat()

    def _receive(self, response: ReportExecutionsResponse) -> None:
        for directive in response.directives:
            kind = directive.WhichOneof("directive")
            if kind == "heartbeat_ack":
                self._answered_at = time.monotonic()
                self._unanswered -= 1
                if not self._unanswered:
                    self._settled.set()
            if kind in ("granted", "refused"):
                body = getattr(directive, kind)
                self._note(body.grant_id)
                self._answer((body.invocation_id, body.grant_id), directive)
            elif kind == "assigned":
                # The service says it again when it cannot know whether it has arrived.
                grant_id = directive.assigned.grant_id
                if grant_id not in self._grants:
                    self._note(grant_id)
                    self._on_directive(directive)
                elif (declined := self._grants[grant_id]) is not None:
                    self._outbox.put_nowait(declined)
            elif kind == "buried":
                self._answer((directive.buried.boot_id, "buried"), directive)
            elif kind == "recorded":
                recorded = directive.recorded
                self._answer((recorded.invocation_id, recorded.attempt), directive)
            else:
                self._on_directive(directive)

    def _note(self, grant_id: str, declined: Report | None = None) -> None:
        self._grants[grant_id] = declined
        if len(self._grants) > MAX_GRANTS:
            del self._grants[next(iter(self._grants))]

    def _answer(self, key: Key, directive: Directive) -> None:
        awaited = self._awaited.get(key)
        if awaited is not None and not awaited.answer.done():
            awaited.answer.set_result(directive)
