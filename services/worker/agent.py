"""The worker itself: slots, what runs in them, and when it takes more."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from faas import __version__
from faas.v1.execution_pb2 import Directive, Report
from faas.v1.worker_pb2 import Worker
from services.background import run_together
from services.worker.binaries import Binaries
from services.worker.builder import Builder
from services.worker.code_cache import CodeCache
from services.worker.execution import Execution
from services.worker.intake import Intake, Offer
from services.worker.link import Link
from services.worker.pauses import Pauses
from services.worker.runtime import Runtime
from services.worker.spool import Legacy, Spool
from services.worker.standby import Standby
from services.worker.transfers import Transfers

if TYPE_CHECKING:
    from faas.v1.execution_service_pb2_grpc import ExecutionServiceAsyncStub

# How often a worker that may not take work looks whether it may now.
LOOK_AGAIN_S = 0.5
GOODBYE_S = 3.0
# What is assigned and finds no slot free waits for one so long.
STAND_S = 1.0

log = structlog.get_logger()


class Agent:
    """One start of one worker."""

    def __init__(
        self,
        *,
        worker_id: str,
        boot_id: str,
        runtime: Runtime,
        cache: CodeCache,
        binaries: Binaries,
        builder: Builder,
        redis: "Redis",
        executions: "ExecutionServiceAsyncStub",
        spool: Spool,
        legacies: Sequence[Legacy],
        concurrency: int,
        heartbeat_interval_s: float,
        heartbeat_fresh_s: float,
    ) -> None:
        """Run at most `concurrency` invocations at once in `runtime`.

        What `legacies`, of earlier boots, have not told is told first.
        """
        self._worker_id = worker_id
        self._boot_id = boot_id
        self._runtime = runtime
        self._cache = cache
        self._binaries = binaries
        self._builder = builder
        self._spool = spool
        self._legacies = legacies
        self._pauses = Pauses()
        self._standby = Standby(runtime, cache, binaries)
        self._transfers = Transfers(executions, boot_id=boot_id)
        self._loners: set[Execution] = set()
        self._standing: set[Execution] = set()
        self._solitude = asyncio.Lock()
        self._concurrency = concurrency
        self._heartbeat_fresh_s = heartbeat_fresh_s
        self._started_at = datetime.now(UTC)
        self._running: dict[Execution, asyncio.Task[None]] = {}
        self._drained_here = False
        self._drained_by_service = False
        self._closing = False
        self._gave_back = False
        self._changed = asyncio.Event()
        self.boot_lost = asyncio.Event()
        """Set when this boot was declared dead."""
        self._link = Link(
            executions,
            describe=self.describe,
            held=self._held,
            on_directive=self._follow,
            heartbeat_interval_s=heartbeat_interval_s,
        )
        self._intake = Intake(
            redis,
            worker_id=worker_id,
            boot_id=boot_id,
            may_take=self._may_take,
            draining=lambda: self._draining,
            take=self._take,
        )

    @property
    def worker_id(self) -> str:
        """`worker-…`."""
        return self._worker_id

    async def run(self) -> None:
        """Take work and run it until cancelled; then `close`."""
        await run_together(
            self._link.run(),
            self._intake.run(),
            self._report_changes(),
            self._spool.run(),
            self._builder.run(lambda: not self._draining),
            self._standby.run(),
            *(self._tell(legacy) for legacy in self._legacies),
        )

    async def drained(self, timeout_s: float) -> None:
        """Take nothing new and wait until nothing runs, or so long."""
        self._closing = True
        self._changed.set()
        # After this nothing is assigned to it any more,
        await self._link.settle(GOODBYE_S)
        if self._gave_back:
            # and it is known that what was assigned meanwhile is not run here.
            await self._link.settle(GOODBYE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._running:
                    await asyncio.wait(list(self._running.values()))

    async def give_back(self) -> None:
        """Kill what still runs and give it back, for others to start again."""
        # What has its verdict is told by the next start, from the spool.
        granted = [one for one in self._running if one.attempt and not one.has_verdict]
        await self._kill(list(self._running))
        reason = "Its worker shut down before it ended, and no start is left."
        if granted:
            waits = [asyncio.create_task(one.give_back(reason)) for one in granted]
            await asyncio.wait(waits, timeout=GOODBYE_S)

    async def goodbye(self) -> None:
        """Leave: the last that is said."""
        await self._link.goodbye(GOODBYE_S)

    async def kill_all(self) -> None:
        """Take nothing more, kill what runs and report nothing: it is not this worker's."""
        self._closing = True
        self.set_draining(True)
        await self._kill(list(self._running))

    def describe(self) -> Worker:
        """The worker as it is now."""
        started = Timestamp()
        started.FromDatetime(self._started_at)
        images = self._runtime.images()
        holdings = self._runtime.holdings()
        return Worker(
            id=self._worker_id,
            boot_id=self._boot_id,
            host=socket.gethostname(),
            state=self._state(),
            runtimes=[
                Worker.Runtime(name=name, image=images[name])
                for name in sorted(images)
                if not self._pauses.reason(name)
            ],
            concurrency=self._concurrency,
            running=len(self._running),
            started_at=started,
            version=__version__,
            keeps_warm=self._runtime.keeps_warm,
            sandboxes=holdings.entries() if holdings else (),
            budget=holdings.totals() if holdings else None,
        )

    def executions(self) -> list[Execution]:
        """What it has in hands, oldest first."""
        return list(self._running)

    def set_draining(self, draining: bool) -> None:
        """Take nothing new, or take work again; what the service wants stands beside it."""
        log.info("told to drain" if draining else "told to resume", worker_id=self._worker_id)
        self._drained_here = draining
        self._changed.set()

    @property
    def _draining(self) -> bool:
        return self._closing or self._drained_here or self._drained_by_service

    def _state(self) -> Worker.State.ValueType:
        if not self._draining:
            return Worker.READY
        return Worker.DRAINING if self._running else Worker.DRAINED

    def _held(self) -> list[Report.Held]:
        return [
            Report.Held(
                invocation_id=one.offer.invocation_id, attempt=one.attempt, ended=one.storing
            )
            for one in self._running
        ]

    async def _may_take(self) -> None:
        """Wait until it may: not draining, a slot and room for its verdict free, a sure lease."""
        while not (
            not self._draining
            and len(self._running) < self._concurrency
            and not self._loners
            and self._spool.has_room(len(self._running) + 1)
            and self._link.heartbeat_age_s() < self._heartbeat_fresh_s
        ):
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()

    def _take_assigned(self, granted: Directive.Granted) -> None:
        """Start what is granted unasked, or give it back at once."""
        if self._draining:
            reason = "it takes nothing new"
        elif not self._spool.has_room(len(self._running) + 1):
            reason = "it has no room for a verdict"
        else:
            offer = Offer(granted.invocation_id, granted.function_id, granted.function_version)
            self._take(offer, granted)
            return
        self._gave_back = True
        self._link.decline(granted.invocation_id, reason, granted.grant_id)

    async def _seat(self, execution: Execution) -> bool:
        """Wait for a free slot, before anything else is taken; whether there is one in time.

        What was taken from the queue in the same moment has it until it ends.
        """
        self._standing.add(execution)
        try:
            async with asyncio.timeout(STAND_S):
                while self._loners or len(self._running) - len(self._standing) >= self._concurrency:
                    await self._changed.wait()
                    self._changed.clear()
        except TimeoutError:
            return False
        finally:
            self._standing.discard(execution)
        return True

    def _take(self, offer: Offer, assigned: Directive.Granted | None = None) -> None:
        execution = Execution(
            offer,
            runtime=self._runtime,
            cache=self._cache,
            binaries=self._binaries,
            link=self._link,
            intake=self._intake,
            spool=self._spool,
            transfers=self._transfers,
            pauses=self._pauses,
            alone=self._alone,
            seat=self._seat,
            assigned=assigned,
        )
        if offer.alone:
            self._loners.add(execution)
        task = self._running[execution] = execution.begin()
        task.add_done_callback(lambda done: self._ended(execution, done))

    @asynccontextmanager
    async def _alone(self, execution: Execution) -> AsyncIterator[None]:
        """Nothing new is taken, and what else runs has ended; one at a time."""
        self._loners.add(execution)
        async with self._solitude:
            while others := [t for one, t in self._running.items() if one not in self._loners]:
                await asyncio.wait(others)
            yield

    async def _tell(self, legacy: Legacy) -> None:
        """What an earlier boot knew and had not told; then, that it is over."""
        if legacy.verdicts:
            log.info(
                "telling what an earlier start knew",
                boot_id=legacy.boot_id,
                verdicts=len(legacy.verdicts),
            )
        for report in legacy.verdicts:
            report.boot_id = legacy.boot_id
        async with asyncio.TaskGroup() as group:
            for report in legacy.verdicts:
                group.create_task(self._tell_verdict(legacy, report))
        await self._link.bury(legacy.boot_id)
        legacy.remove()

    async def _tell_verdict(self, legacy: Legacy, report: Report.Finished) -> None:
        if report.HasField("large_result"):
            await self._transfers.settle(report, legacy.large_result(report))
        await self._link.finish(report)

    def _ended(self, execution: Execution, task: "asyncio.Task[None]") -> None:
        self._running.pop(execution, None)
        self._loners.discard(execution)
        self._changed.set()
        if execution.offer.message:
            self._intake.let_go(execution.offer)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A mistake of ours. The row stays running and the message in the list; the
            # heartbeats, which name it no more, give it to somebody else.
            log.error(
                "an execution failed in the worker",
                invocation_id=execution.offer.invocation_id,
                exc_info=error,
            )

    def _follow(self, directive: Directive) -> None:
        match directive.WhichOneof("directive"):
            case "drain":
                self._drained_by_service = True
            case "resume":
                # Said with each heartbeat to one that drains of itself, which goes on.
                self._drained_by_service = False
            case "assigned":
                self._take_assigned(directive.assigned)
            case "cancel":
                gone = directive.cancel
                self._drop([Report.Held(invocation_id=gone.invocation_id, attempt=gone.attempt)])
            case "heartbeat_ack" if directive.heartbeat_ack.boot_lost:
                log.error("this boot was declared dead", boot_id=self._boot_id)
                self.boot_lost.set()
            case "heartbeat_ack":
                ack = directive.heartbeat_ack
                self._drop(list(ack.not_yours))
                if ack.HasField("kept"):
                    self._standby.want(ack.kept)
        self._changed.set()

    def _drop(self, not_ours: list[Report.Held]) -> None:
        named = {(held.invocation_id, held.attempt) for held in not_ours}
        for execution in self._running:
            key = (execution.offer.invocation_id, execution.attempt)
            if key in named and execution.drop():
                log.warning(
                    "killing what is not ours any more", invocation_id=key[0], attempt=key[1]
                )

    async def _kill(self, executions: list[Execution]) -> None:
        tasks = [self._running[one] for one in executions if one in self._running]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _report_changes(self) -> None:
        """Let a change of state be known before the next heartbeat is due."""
        known = self._state()
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            if (state := self._state()) != known:
                known = state
                self._link.beat()
