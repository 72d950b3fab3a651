"""One invocation in a worker's hands, from the offer to the committed verdict."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from faas.v1.execution_pb2 import Directive, Report
from faas.v1.invocation_pb2 import Invocation, LargeContent, LogLine
from faas.v1.worker_pb2 import Execution as ExecutionMessage
from services.errors import MeshError
from services.worker.binaries import Binaries
from services.worker.code_cache import CodeCache
from services.worker.intake import Intake, Offer
from services.worker.link import Link
from services.worker.output import LINE_BYTES
from services.worker.pauses import Pauses
from services.worker.runtime import (
    Assignment,
    FileContent,
    FunctionFailure,
    FunctionSpec,
    Line,
    Runtime,
    RuntimeUnavailable,
    Stream,
    Verdict,
)
from services.worker.spool import Spool
from services.worker.transfers import NotFetched, Transfers

# Lines wait so long for company, and a chunk is sent when it has so much text.
FLUSH_S = 0.2
CHUNK_CHARACTERS = 48 * 1024

State = ExecutionMessage.State
_STREAMS = {Stream.STDOUT: LogLine.STDOUT, Stream.STDERR: LogLine.STDERR}

log = structlog.get_logger()


class Declined(Exception):
    """This worker cannot run the offer; the text says why. Nothing was started."""


class Execution:
    """An invocation from the offer on. `run` it in a task; cancel that to kill it."""

    def __init__(
        self,
        offer: Offer,
        *,
        runtime: Runtime,
        cache: CodeCache,
        binaries: Binaries,
        link: Link,
        intake: Intake,
        spool: Spool,
        transfers: Transfers,
        pauses: Pauses,
        alone: "Callable[[Execution], AbstractAsyncContextManager[None]]",
        seat: "Callable[[Execution], Awaitable[bool]]",
        assigned: Directive.Granted | None = None,
    ) -> None:
        """Take `offer`; run it by these. In `alone`, nothing else runs on this worker.

        What is `assigned` is granted already; it waits until it has a `seat`, which may
        be that there is none.
        """
        self.offer = offer
        self.attempt = 0
        """0 before the grant."""
        self._runtime = runtime
        self._cache = cache
        self._binaries = binaries
        self._link = link
        self._intake = intake
        self._spool = spool
        self._transfers = transfers
        self._pauses = pauses
        self._alone = alone
        self._seat = seat
        self._assigned = assigned
        if assigned is not None:
            self.attempt = assigned.attempt
        self._state = State.PREPARING
        self._since = datetime.now(UTC)
        # By the monotonic clock.
        self._taken = self._granted = time.monotonic()
        self._lines = _LineBuffer(self._send_lines)
        self._sequence = 0
        self._task: asyncio.Task[None] | None = None
        self._dropped = False
        self._dead: str | None = None
        self._spooled = False
        self.storing = False
        """It has ended, and its large result is on its way to the storage."""

    @property
    def has_verdict(self) -> bool:
        """Whether it has ended, and is only to be reported."""
        return self._state == State.REPORTING

    def begin(self) -> "asyncio.Task[None]":
        """Do all of it, in a task. Cancelled: it is killed and nothing is reported."""
        self._task = asyncio.create_task(self._run(), name=f"run {self.offer.invocation_id}")
        return self._task

    def drop(self) -> bool:
        """It is no longer this worker's: kill it, report nothing, let the message go.

        A verdict that is on its way is let through: the record knows what to do with it.
        Whether there was anything to kill.
        """
        if self._task is None or self._state == State.REPORTING or self._dropped:
            # Once: to be cancelled again would break off the cleaning up.
            return False
        self._dropped = True
        self._task.cancel()
        return True

    async def _run(self) -> None:
        with structlog.contextvars.bound_contextvars(
            invocation_id=self.offer.invocation_id, function_id=self.offer.function_id
        ):
            try:
                await self._from_offer_to_verdict()
            except Declined as error:
                grant = self._assigned.grant_id if self._assigned is not None else ""
                self._link.decline(self.offer.invocation_id, str(error), grant)
            except asyncio.CancelledError:
                if not self._dropped or self._task is None:
                    raise
                self._task.uncancel()
                self._link.forget(self.offer.invocation_id)
            if self._assigned is None:
                # The order matters: whatever was to be committed is, before the message goes.
                await self._intake.acknowledge(self.offer, self._dead)

    def to_proto(self) -> ExecutionMessage:
        """What operators see of it."""
        since = Timestamp()
        since.FromDatetime(self._since)
        return ExecutionMessage(
            invocation_id=self.offer.invocation_id,
            function_id=self.offer.function_id,
            function_version=self.offer.function_version,
            attempt=self.attempt,
            state=self._state,
            since=since,
        )

    async def _run_assigned(self, granted: Directive.Granted) -> None:
        if not await self._seat(self):
            raise Declined("nothing that runs here ended in time")
        spec = await self._spec(granted.function_id, granted.function_version)
        await self._run_granted(granted, spec, await self._prepared(spec))

    async def _from_offer_to_verdict(self) -> None:
        if self._assigned is not None:
            await self._run_assigned(self._assigned)
            return
        spec = await self._spec(self.offer.function_id, self.offer.function_version)
        # Builds are outside of the function's time, so they come before the grant.
        failure = await self._prepared(spec)
        async with AsyncExitStack() as stack:
            if self.offer.alone:
                await stack.enter_async_context(self._alone(self))
            self._enter(State.ASKING)
            granted = await self._link.start(self.offer.invocation_id)
            if isinstance(granted, Directive.Refused):
                log.info("the start was refused", reason=granted.reason)
                if granted.unknown:
                    self._dead = "there is no such invocation"
                return
            self.attempt = granted.attempt
            self._granted = time.monotonic()
            if granted.alone and not self.offer.alone:
                await stack.enter_async_context(self._alone(self))
            await self._run_granted(granted, spec, failure)

    async def _run_granted(
        self, granted: Directive.Granted, spec: FunctionSpec, failure: FunctionFailure | None
    ) -> None:
        key = (granted.invocation_id, granted.attempt)
        payload, result = self._spool.payload_file(*key), self._spool.result_file(*key)
        try:
            await self._run_with_files(granted, spec, failure, payload, result)
        finally:
            if granted.HasField("large_payload"):
                payload.unlink(missing_ok=True)
            if not self._spooled:
                result.unlink(missing_ok=True)

    async def _run_with_files(
        self,
        granted: Directive.Granted,
        spec: FunctionSpec,
        failure: FunctionFailure | None,
        payload_file: Path,
        result_file: Path,
    ) -> None:
        self._enter(State.RUNNING)
        try:
            if (granted.function_id, granted.function_version) != (spec.function_id, spec.version):
                # The message lied; the grant does not.
                spec = await self._spec(granted.function_id, granted.function_version)
                failure = await self._prepared(spec)
            if failure:
                verdict = Verdict(failure=failure)
            else:
                large = None
                if granted.HasField("large_payload"):
                    large = await self._transfers.fetch(granted, payload_file)
                verdict = await self._execute(granted, spec, large, result_file)
        except (Declined, NotFetched, RuntimeUnavailable) as error:
            await self.give_back(str(error))
            return
        self._lines.flush()
        self._enter(State.REPORTING)
        report = self._finished(verdict)
        entry = self._spool.append(report)
        self._spooled = entry is not None
        if verdict.large_result is not None:
            self.storing = True
            await self._transfers.settle(report, verdict.large_result)
            self.storing = False
        recorded = await self._link.finish(report)
        if entry is not None:
            self._spool.release(entry)
            self._spooled = False
        log.debug(
            "ended",
            attempt=self.attempt,
            code=Invocation.ErrorCode.Name(verdict.failure.code) if verdict.failure else "OK",
            recorded=Directive.Recorded.Outcome.Name(recorded.outcome),
        )

    async def give_back(self, reason: str) -> None:
        """Say that this worker cannot finish what it was granted."""
        log.warning("gave an execution back", attempt=self.attempt, reason=reason)
        self._lines.flush()
        self._enter(State.REPORTING)
        await self._link.abandon(
            Report.Abandoned(
                invocation_id=self.offer.invocation_id, attempt=self.attempt, reason=reason
            )
        )

    async def _spec(self, function_id: str, version: int) -> FunctionSpec:
        try:
            return await self._cache.get(function_id, version)
        except (MeshError, OSError) as error:
            raise Declined(f"its code could not be fetched: {error}") from error

    async def _prepared(self, spec: FunctionSpec) -> FunctionFailure | None:
        if reason := self._pauses.reason(spec.runtime):
            raise Declined(reason)
        try:
            if spec.runtime not in self._runtime.images():
                raise RuntimeUnavailable(f"this worker has no runtime {spec.runtime}")
            failure = await self._binaries.get(spec) if spec.is_compiled else None
            if failure is None:
                await self._runtime.prepare(spec)
            return failure
        except RuntimeUnavailable as error:
            self._pauses.pause(spec.runtime, str(error))
            raise Declined(str(error)) from error
        except (MeshError, OSError) as error:
            raise Declined(f"its binary could not be fetched: {error}") from error

    async def _execute(
        self,
        granted: Directive.Granted,
        spec: FunctionSpec,
        large_payload: FileContent | None,
        large_result_file: Path,
    ) -> Verdict:
        assignment = Assignment(
            invocation_id=granted.invocation_id,
            attempt=granted.attempt,
            spec=spec,
            function_name=granted.function_name,
            payload=granted.payload,
            payload_type=granted.payload_type,
            timeout_s=granted.timeout.ToTimedelta().total_seconds(),
            large_payload=large_payload,
            large_result_file=large_result_file,
        )
        began = time.monotonic()
        try:
            verdict = await self._runtime.execute(assignment, self._lines.add)
        except RuntimeUnavailable as error:
            self._pauses.pause(spec.runtime, str(error))
            raise
        self._pauses.worked(spec.runtime)
        return replace(verdict, startup_s=began - self._granted + verdict.startup_s)

    def _enter(self, state: State.ValueType) -> None:
        self._state = state
        self._since = datetime.now(UTC)

    def _send_lines(self, lines: list[Line]) -> None:
        logs = Report.Logs(
            invocation_id=self.offer.invocation_id,
            attempt=self.attempt,
            sequence=self._sequence,
            lines=_to_protos(lines),
        )
        self._sequence += 1
        self._link.log_lines(logs)

    def _finished(self, verdict: Verdict) -> Report.Finished:
        report = Report.Finished(
            invocation_id=self.offer.invocation_id,
            attempt=self.attempt,
            status=_status(verdict),
            result=verdict.result,
            result_type=verdict.result_type,
            runtime_image=verdict.image,
            logs_truncated=verdict.logs_truncated,
            metrics=Invocation.Metrics(
                assigned=_duration(self._granted - self._taken),
                load=None if verdict.load_s is None else _duration(verdict.load_s),
                startup=_duration(verdict.startup_s),
                run=_duration(verdict.run_s),
                cpu_time=None if verdict.cpu_time_s is None else _duration(verdict.cpu_time_s),
                peak_memory_bytes=verdict.peak_memory_bytes,
                start_kind=verdict.start_kind,
            ),
        )
        if verdict.large_result is not None:
            large = verdict.large_result
            report.large_result.CopyFrom(
                LargeContent(size_bytes=large.size_bytes, sha256=large.sha256)
            )
        if verdict.failure is not None:
            failure = verdict.failure
            report.error.CopyFrom(
                Invocation.Error(
                    code=failure.code,
                    message=failure.message,
                    type=failure.type,
                    stack=failure.stack,
                    exit_code=failure.exit_code,
                )
            )
        return report


class _LineBuffer:
    """Lines on their way: sent in chunks, soon."""

    def __init__(self, send: Callable[[list[Line]], None]) -> None:
        self._send = send
        self._lines: list[Line] = []
        self._characters = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, line: Line) -> None:
        self._lines.append(line)
        self._characters += len(line.text) + LINE_BYTES
        if self._characters >= CHUNK_CHARACTERS:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines, self._characters = self._lines, [], 0
            self._send(lines)


def _status(verdict: Verdict) -> Invocation.Status.ValueType:
    if verdict.failure is None:
        return Invocation.COMPLETED
    return Invocation.TIMED_OUT if verdict.failure.code == Invocation.TIMEOUT else Invocation.FAILED


def _to_protos(lines: list[Line]) -> Iterator[LogLine]:
    read_at, time = None, Timestamp()
    for line in lines:
        # Most lines were read together with the one before.
        if line.time is not read_at:
            read_at = line.time
            time.FromDatetime(read_at)
        yield LogLine(time=time, stream=_STREAMS[line.stream], text=line.text)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
