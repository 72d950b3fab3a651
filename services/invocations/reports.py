"""What workers report on their streams, and what they are told.

Each report that awaits an answer is answered after its statement is committed. When
PostgreSQL does not answer, the stream ends: the worker comes back and says again
whatever was not answered.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeAlias
from uuid import UUID

import psycopg
import structlog

from faas.v1.execution_pb2 import Directive, Report
from faas.v1.execution_service_pb2 import ReportExecutionsRequest, ReportExecutionsResponse
from faas.v1.worker_pb2 import Worker
from services import ids
from services.errors import InvalidField
from services.invocations.assignments import Assignments, Slots
from services.invocations.batches import is_rejection
from services.invocations.blobs import INLINE_BYTES, Blob, Blobs, result_blob
from services.invocations.feeder import Feeder
from services.invocations.leases import Leases
from services.invocations.log_intake import LogIntake
from services.invocations.logs import Chunk, Logs
from services.invocations.messages import to_ending, to_granted, unstorable
from services.invocations.offers import OfferBook
from services.invocations.records import Ending, Record, Records
from services.invocations.standby import Standby
from services.invocations.waiters import Waiters
from services.invocations.workers import Workers
from services.storage import StorageUnavailable

# A declined offer is due again after this, doubling each time, so that it does not spin.
DECLINED_S = 1.0
DECLINED_MOST_S = 30.0
MAX_DIRECTIVES = 100
# How long a verdict waits for a storage that does not answer, to look again.
LOOK_AGAIN_S = 1.0

Outcome: TypeAlias = Directive.Recorded.Outcome.ValueType

log = structlog.get_logger()


class Desk:
    """Where reports of all workers are dealt with: the collaborators of a session."""

    def __init__(
        self,
        *,
        records: Records,
        book: OfferBook,
        logs: Logs,
        workers: Workers,
        leases: Leases,
        waiters: Waiters,
        feeder: Feeder,
        assignments: Assignments,
        standby: Standby,
        blobs: Blobs,
    ) -> None:
        """Deal with reports by these."""
        self.records = records
        self.book = book
        self.logs = logs
        self.workers = workers
        self.leases = leases
        self.waiters = waiters
        self.feeder = feeder
        self.assignments = assignments
        self.standby = standby
        self.blobs = blobs
        self.sessions: dict[UUID, Session] = {}
        """The sessions of this replica, by the worker's id."""

    def tell(self, worker: UUID, directive: Directive) -> None:
        """Give a directive to a worker, if its stream is at this replica."""
        if worker in self.sessions:
            self.sessions[worker].tell(directive)

    def assign(self, record: Record, slots: Slots) -> None:
        """Tell a worker to start what is granted to it unasked.

        Where its stream has ended meanwhile, or breaks on the way, its next heartbeat has
        it told again, wherever that comes. Only the worker gives it back: nobody else
        knows whether it has been told, and has begun.
        """
        session = self.sessions.get(slots.worker)
        if session is not None and session.boot == slots.boot:
            session.tell(Directive(assigned=to_granted(record)))

    def close(self) -> None:
        """End all streams: the workers go to another replica, or come back."""
        self.assignments.close()
        for session in self.sessions.values():
            session.close()


class Session:
    """One worker's stream."""

    def __init__(self, desk: Desk, hello: Report.Hello) -> None:
        """Begin with what the worker said of itself. Raises InvalidField."""
        worker = ids.parse(ids.WORKER, hello.worker.id)
        if worker is None:
            raise InvalidField.of("hello.worker.id", "must be 'worker-' and a UUID")
        self.worker = worker
        self.boot = read_uuid("hello.worker.boot_id", hello.worker.boot_id)
        self.slots = Slots(self.worker, self.boot)
        self.takes_assignments = hello.takes_assignments
        self._desk = desk
        self._outbox: asyncio.Queue[Directive | None] = asyncio.Queue()
        self._missing: set[UUID] = set()
        self._intake = LogIntake(desk.logs, self.boot)

    def tell(self, directive: Directive) -> None:
        """Send a directive with the next message."""
        self._outbox.put_nowait(directive)

    def close(self) -> None:
        """End the stream."""
        self._outbox.put_nowait(None)

    async def directives(self) -> AsyncIterator[ReportExecutionsResponse]:
        """What the worker is to be told, as it comes, many in one message."""
        while True:
            batch = [await self._outbox.get()]
            while not self._outbox.empty() and len(batch) < MAX_DIRECTIVES:
                batch.append(self._outbox.get_nowait())
            yield ReportExecutionsResponse(directives=filter(None, batch))
            if None in batch:
                return

    async def listen(self, requests: AsyncIterator[ReportExecutionsRequest]) -> None:
        """Deal with what the worker reports, until its stream ends."""
        async with asyncio.TaskGroup() as group:
            async for request in requests:
                self._take_lines(request.reports, group)
                await self._intake.room()
                for report in request.reports:
                    if report.HasField("heartbeat"):
                        # At once: what is granted after it must not be missing in it.
                        await self._deal_with(report)
                    else:
                        group.create_task(self._deal_with(report))

    async def beat(self, worker: Worker, held: Iterable[Report.Held] | None) -> None:
        """Note that the boot lives and what it has; tell it what is no longer its own.

        `held` None: it has not said yet what it has.
        """
        ack = Directive.HeartbeatAck()
        drain = await self._desk.workers.beat(self.worker, self.boot, worker)
        if drain is None:
            ack.boot_lost = True
        else:
            if held is not None:
                await self._compare(list(held), ack)
            self.slots.heard(worker.concurrency, ready=worker.state == Worker.READY and not drain)
            self._desk.assignments.freed(self.slots)
            if drain != (worker.state != Worker.READY):
                self.tell(
                    Directive(drain=Directive.Drain())
                    if drain
                    else Directive(resume=Directive.Resume())
                )
            share = self._desk.standby.share(worker.id)
            if share is not None:
                ack.kept.CopyFrom(share)
        self.tell(Directive(heartbeat_ack=ack))

    async def _compare(self, held: list[Report.Held], ack: Directive.HeartbeatAck) -> None:
        recorded = await self._desk.records.held_by(self.boot)
        claimed = [(ids.parse(ids.INVOCATION, item.invocation_id), item) for item in held]
        # What has no attempt yet waits for its grant, which may be on the way.
        ack.not_yours.extend(
            item
            for key, item in claimed
            if item.attempt and (key is None or recorded.get(key) != item.attempt)
        )
        if ended := [key for key, item in claimed if key is not None and item.ended]:
            await self._desk.records.see_verdicts(self.boot, ended)
        named = {key for key, _ in claimed if key is not None}
        missing = recorded.keys() - named
        if new := missing - self._missing:
            await self._assign_again({key: recorded[key] for key in new})
        if gone := missing & self._missing:
            reason = "Its worker does not know of it any more, and no start is left."
            await self._desk.leases.lose(self.boot, list(gone), reason)
            self._desk.feeder.wake()
        self._missing = missing
        self.slots.named(named)

    async def _assign_again(self, attempts: dict[UUID, int]) -> None:
        """What was assigned on a stream that broke; what has arrived is known by its grant."""
        for record in await self._desk.records.find_all(list(attempts)):
            if record.status == "running" and record.attempt == attempts[record.id]:
                self.tell(Directive(assigned=to_granted(record)))

    def _take_lines(self, reports: Iterable[Report], group: asyncio.TaskGroup) -> None:
        chunks = []
        for report in reports:
            if report.HasField("logs"):
                logs = report.logs
                key = _invocation(logs.invocation_id)
                chunks.append(Chunk(key, logs.attempt, logs.sequence, logs.lines))
        if not chunks:
            return
        storing = not self._intake.empty
        self._intake.put(chunks)
        if not storing:
            group.create_task(self._intake.store())

    async def _deal_with(self, report: Report) -> None:
        match report.WhichOneof("report"):
            case "heartbeat":
                await self.beat(report.heartbeat.worker, report.heartbeat.held)
            case "start":
                await self._grant(report.start)
            case "finished":
                await self._conclude(report.finished)
            case "abandoned":
                await self._take_back(report.abandoned)
            case "decline":
                await self._decline(report.decline)
            case "goodbye":
                await self._desk.workers.leave(self.boot)
            case "buried":
                await self._bury(report.buried)

    async def _grant(self, start: Report.Start) -> None:
        key = ids.parse(ids.INVOCATION, start.invocation_id)
        grant = read_uuid("start.grant_id", start.grant_id)
        record = None
        if key is not None:
            record = await self._desk.records.grant(key, self.worker, self.boot, grant)
        if record is not None:
            self.slots.held.add(record.id)
            self.tell(Directive(granted=to_granted(record)))
            return
        refused = Directive.Refused(
            invocation_id=start.invocation_id,
            grant_id=start.grant_id,
            reason="It has ended, is not due, runs elsewhere, or was never accepted.",
            unknown=key is None or await self._desk.records.find(key) is None,
        )
        self.tell(Directive(refused=refused))

    async def _conclude(self, finished: Report.Finished) -> None:
        key = _invocation(finished.invocation_id)
        # A verdict must not overtake what was printed before it.
        await self._intake.settled(key)
        boot = await self._teller(finished)
        blob = await self._large_result(finished, key, boot)
        ending = to_ending(finished, max_result_bytes=INLINE_BYTES, blob=blob)
        try:
            record = await self._desk.records.conclude(key, finished.attempt, boot, ending)
        except psycopg.Error as error:
            if not is_rejection(error):
                raise
            log.warning("a verdict was rejected", invocation_id=finished.invocation_id)
            ending = unstorable(str(error))
            record = await self._desk.records.conclude(key, finished.attempt, boot, ending)
        outcome: Outcome = Directive.Recorded.RECORDED
        if record is None:
            outcome = await self._explain(key, finished.attempt, boot, ending)
        elif record.ended:
            self._desk.waiters.ended([record])
        if record is not None:
            self.slots.has_run((record.function_id, record.function_version))
            if record.laned:
                self._desk.feeder.wake()
        self._recorded(finished.invocation_id, finished.attempt, outcome)

    async def _large_result(self, finished: Report.Finished, key: UUID, boot: UUID) -> Blob | None:
        """What a verdict says was stored; None where it says so of nothing, or wrongly."""
        if not finished.HasField("large_result"):
            return None
        large = finished.large_result
        try:
            blob = result_blob(key, finished.attempt, boot, large.size_bytes, large.sha256)
        except InvalidField:
            return None
        while True:
            try:
                return blob if await self._desk.blobs.is_stored(blob) else None
            except StorageUnavailable as error:
                # Its worker waits for the answer; nothing else of it has to.
                log.warning("a verdict has to wait for the storage", error=str(error))
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _take_back(self, abandoned: Report.Abandoned) -> None:
        key = _invocation(abandoned.invocation_id)
        await self._intake.settled(key)
        reason = abandoned.reason.replace("\x00", "\ufffd")
        taken = await self._desk.leases.take_back(self.boot, key, abandoned.attempt, reason)
        outcome: Outcome = Directive.Recorded.RECORDED if taken else Directive.Recorded.STALE
        self._recorded(abandoned.invocation_id, abandoned.attempt, outcome)

    async def _decline(self, decline: Report.Decline) -> None:
        key = _invocation(decline.invocation_id)
        grant = read_uuid("decline.grant_id", decline.grant_id) if decline.grant_id else None
        log.warning(
            "a worker declined an offer",
            invocation_id=decline.invocation_id,
            worker_id=ids.show(ids.WORKER, self.worker),
            reason=decline.reason,
        )
        if grant is None:
            await self._desk.book.decline(key, DECLINED_S, DECLINED_MOST_S)
            return
        self.slots.declined(key)
        await self._desk.records.ungrant(key, grant)
        self._desk.feeder.wake()

    async def _bury(self, buried: Report.Buried) -> None:
        boot = read_uuid("buried.boot_id", buried.boot_id)
        if boot != self.boot and await self._desk.workers.is_boot_of(boot, self.worker):
            await self._desk.leases.bury(boot)
            self._desk.feeder.wake()
        self.tell(Directive(buried=Directive.Buried(boot_id=buried.boot_id)))

    async def _teller(self, finished: Report.Finished) -> UUID:
        """The boot whose verdict it is: this one, or an earlier one of this worker."""
        if not finished.boot_id:
            return self.boot
        boot = read_uuid("finished.boot_id", finished.boot_id)
        if not await self._desk.workers.is_boot_of(boot, self.worker):
            # Forgotten, or somebody else's: as this boot it will be found stale.
            return self.boot
        return boot

    async def _explain(self, key: UUID, attempt: int, boot: UUID, ending: Ending) -> Outcome:
        """Why a verdict met no row: said already, or no longer this worker's to say."""
        attempts = self._desk.records.attempts
        if await attempts.was_told(key, attempt, boot):
            # Its first report was committed and the answer lost; who waits here may not know.
            record = await self._desk.records.find(key)
            if record is not None and record.ended:
                self._desk.waiters.ended([record])
            return Directive.Recorded.DUPLICATE
        await attempts.keep_stale(
            key,
            attempt,
            boot,
            status=ending.status,
            result=ending.result,
            error=ending.error,
            metrics=ending.metrics,
        )
        return Directive.Recorded.STALE

    def _recorded(self, key: str, attempt: int, outcome: Outcome) -> None:
        invocation_id = _invocation(key)
        self._desk.assignments.release(self.slots, invocation_id)
        self._desk.logs.forget(invocation_id, attempt)
        if outcome != Directive.Recorded.RECORDED:
            name = Directive.Recorded.Outcome.Name(outcome)
            log.info("a verdict changed nothing", invocation_id=key, attempt=attempt, outcome=name)
        answer = Directive.Recorded(invocation_id=key, attempt=attempt, outcome=outcome)
        self.tell(Directive(recorded=answer))


def _invocation(text: str) -> UUID:
    key = ids.parse(ids.INVOCATION, text)
    if key is None:
        raise InvalidField.of("invocation_id", "must be 'inv-' and a UUID")
    return key


def read_uuid(field: str, text: str) -> UUID:
    """A UUID in a field of what a worker says. Raises InvalidField."""
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidField.of(field, "must be a UUID") from error
