"""The status stream, spoken by hand: what the service makes of what a worker says."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
from google.protobuf.timestamp_pb2 import Timestamp

from faas.v1.execution_pb2 import Directive, Report
from faas.v1.execution_service_pb2 import ReportExecutionsRequest
from faas.v1.execution_service_pb2_grpc import ExecutionServiceStub
from faas.v1.function_service_pb2 import DeleteFunctionRequest, UpdateFunctionRequest
from faas.v1.invocation_pb2 import Invocation, LogLine
from faas.v1.invocation_service_pb2 import GetInvocationLogsRequest
from faas.v1.worker_pb2 import Worker
from services.errors import InvalidField
from services.ids import INVOCATION, WORKER, new_uuid, show
from tests.integration.functions import refused
from tests.mesh import Mesh, eventually

WAIT_S = 60


class ByHand:
    """A worker that says exactly what a test has it say."""

    def __init__(
        self,
        mesh: Mesh,
        *,
        concurrency: int = 0,
        takes_assignments: bool = False,
        worker: Worker | None = None,
    ) -> None:
        self.worker = worker or Worker(
            id=show(WORKER, new_uuid()),
            boot_id=str(new_uuid()),
            state=Worker.READY,
            concurrency=concurrency,
        )
        self._outbox: asyncio.Queue[list[Report]] = asyncio.Queue()
        self._call = ExecutionServiceStub(mesh.channel("invocations")).ReportExecutions(
            self._requests()
        )
        self._directives = self._received()
        hello = Report.Hello(worker=self.worker, takes_assignments=takes_assignments)
        self.say(Report(hello=hello))

    def say(self, *reports: Report) -> None:
        self._outbox.put_nowait(list(reports))

    def beat(self, *held: Report.Held) -> None:
        self.say(Report(heartbeat=Report.Heartbeat(worker=self.worker, held=held)))

    async def heard(self, kind: str) -> Directive:
        """The next directive of this kind."""
        async with asyncio.timeout(WAIT_S):
            async for directive in self._directives:
                if directive.WhichOneof("directive") == kind:
                    return directive
        raise AssertionError("the stream ended")

    def close(self) -> None:
        self._call.cancel()

    async def _requests(self) -> AsyncIterator[ReportExecutionsRequest]:
        while True:
            yield ReportExecutionsRequest(reports=await self._outbox.get())

    async def _received(self) -> AsyncIterator[Directive]:
        async for response in self._call:
            for directive in response.directives:
                yield directive


async def granted(mesh: Mesh) -> tuple[ByHand, Directive.Granted]:
    """A worker by hand with one granted start."""
    await mesh.start("functions", "invocations", lost_backoff_s=0)
    await mesh.create("echo")
    made = await mesh.invoke("echo", {"a": 1})
    worker = ByHand(mesh)
    await worker.heard("heartbeat_ack")
    start = Report.Start(invocation_id=made.id, grant_id=str(uuid4()))
    worker.say(Report(start=start))
    return worker, (await worker.heard("granted")).granted


async def test_what_a_worker_waits_for_is_not_missing(mesh: Mesh) -> None:
    worker, grant = await granted(mesh)
    # As if Granted had not arrived yet, for any number of heartbeats.
    for _ in range(4):
        worker.beat(Report.Held(invocation_id=grant.invocation_id, attempt=0))
        ack = (await worker.heard("heartbeat_ack")).heartbeat_ack
        assert not ack.not_yours
    assert (await mesh.get(grant.invocation_id)).status == Invocation.RUNNING
    worker.close()


async def test_what_two_heartbeats_do_not_name_is_given_to_another(mesh: Mesh) -> None:
    worker, grant = await granted(mesh)
    worker.beat()
    await worker.heard("heartbeat_ack")
    assert (await mesh.get(grant.invocation_id)).status == Invocation.RUNNING
    worker.beat()
    await worker.heard("heartbeat_ack")
    found = await mesh.get(grant.invocation_id)
    assert (found.status, found.attempt) == (Invocation.PENDING, 1)
    # It turns up again, and is told that it is no longer its own.
    held = Report.Held(invocation_id=grant.invocation_id, attempt=1)
    worker.beat(held)
    assert list((await worker.heard("heartbeat_ack")).heartbeat_ack.not_yours) == [held]
    worker.close()


async def test_a_worker_is_told_what_to_keep_ready(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    function = await mesh.create("echo", min_warm=3)
    await mesh.create("other")
    worker = ByHand(mesh)
    worker.worker.keeps_warm = True
    worker.worker.runtimes.add(name="python")

    async def told(*expected: tuple[str, int, int]) -> None:
        async def is_told() -> bool:
            worker.beat()
            ack = (await worker.heard("heartbeat_ack")).heartbeat_ack
            found = [(o.function_id, o.function_version, o.sandboxes) for o in ack.kept.functions]
            return ack.HasField("kept") and found == list(expected)

        await eventually(f"it is told {expected}", is_told, WAIT_S)

    await told((function.id, 1, 3))
    update = UpdateFunctionRequest(function_id="echo", memory_mb=256, min_warm=2)
    await mesh.functions.UpdateFunction(update)
    await told((function.id, 2, 2))
    await mesh.functions.DeleteFunction(DeleteFunctionRequest(function_id="echo"))
    await told()
    worker.close()


async def test_the_same_verdict_many_times_is_one(mesh: Mesh) -> None:
    worker, grant = await granted(mesh)
    told = Report.Finished(
        invocation_id=grant.invocation_id, attempt=1, status=Invocation.COMPLETED, result=b"1"
    )
    outcomes = []
    for _ in range(10):
        worker.say(Report(finished=told))
        outcomes.append((await worker.heard("recorded")).recorded.outcome)
    assert outcomes == [Directive.Recorded.RECORDED] + [Directive.Recorded.DUPLICATE] * 9
    first = await mesh.get(grant.invocation_id)
    told.result = b"2"
    worker.say(Report(finished=told))
    await worker.heard("recorded")
    assert await mesh.get(grant.invocation_id) == first
    worker.close()


async def test_a_result_that_is_none_fails_the_function(mesh: Mesh) -> None:
    worker, grant = await granted(mesh)
    told = Report.Finished(
        invocation_id=grant.invocation_id, attempt=1, status=Invocation.COMPLETED, result=b"\xff{"
    )
    worker.say(Report(finished=told))
    assert (await worker.heard("recorded")).recorded.outcome == Directive.Recorded.RECORDED
    done = await mesh.get(grant.invocation_id)
    assert (done.status, done.error.code) == (Invocation.FAILED, Invocation.BAD_OUTPUT)
    worker.close()


async def test_a_stream_begins_with_who_speaks(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    stub = ExecutionServiceStub(mesh.channel("invocations"))

    async def answer(*reports: Report) -> None:
        async def requests() -> AsyncIterator[ReportExecutionsRequest]:
            yield ReportExecutionsRequest(reports=reports)

        async for _ in stub.ReportExecutions(requests(), timeout=WAIT_S):
            pass

    beat = Report(heartbeat=Report.Heartbeat())
    await refused(answer(beat), InvalidField, "reports[0]")
    await refused(answer(), InvalidField, "reports[0]")
    nobody = Report(hello=Report.Hello(worker=Worker(id="worker-1", boot_id=str(uuid4()))))
    await refused(answer(nobody), InvalidField, "hello.worker.id")
    no_boot = Report(hello=Report.Hello(worker=Worker(id=show(WORKER, new_uuid()), boot_id="1")))
    await refused(answer(no_boot), InvalidField, "hello.worker.boot_id")

    async def none_known() -> bool:
        return mesh.rows("SELECT count(*) AS n FROM workers") == [{"n": 0}]

    assert await eventually("no worker", none_known)


def finished(invocation_id: str, attempt: int, **fields: object) -> Report:
    ended = Report.Finished(
        invocation_id=invocation_id, attempt=attempt, status=Invocation.COMPLETED, result=b"666"
    )
    ended.MergeFrom(Report.Finished(**fields))
    return Report(finished=ended)


async def test_verdicts_that_nobody_may_give_change_nothing(mesh: Mesh) -> None:
    worker, grant = await granted(mesh)
    waits = await mesh.invoke("echo", "waits")
    other = ByHand(mesh)
    await other.heard("heartbeat_ack")
    running = await mesh.get(grant.invocation_id)
    assert running.status == Invocation.RUNNING
    unknown = show(INVOCATION, new_uuid())
    told = (
        # By whom it was not granted; as that boot too, which is not his.
        (other, finished(running.id, 1)),
        (other, finished(running.id, 1, boot_id=worker.worker.boot_id)),
        # Of a start that was not granted, or to nobody.
        (worker, finished(running.id, 2)),
        (worker, finished(running.id, -1)),
        (worker, finished(waits.id, 1)),
        (worker, finished(waits.id, 0)),
        # Of what was never accepted.
        (worker, finished(unknown, 1)),
    )
    for teller, report in told:
        teller.say(report)
        recorded = (await teller.heard("recorded")).recorded
        assert recorded.outcome == Directive.Recorded.STALE, report
        assert recorded.invocation_id == report.finished.invocation_id
    assert await mesh.get(running.id) == running
    assert await mesh.get(waits.id) == waits
    assert mesh.rows("SELECT count(*) AS n FROM invocations") == [{"n": 2}]
    # Whose it is can still give it; after that nobody can.
    worker.say(finished(running.id, 1))
    assert (await worker.heard("recorded")).recorded.outcome == Directive.Recorded.RECORDED
    ended = await mesh.get(running.id)
    for teller, attempt in ((other, 1), (worker, 2), (other, 2)):
        teller.say(finished(running.id, attempt))
        assert (await teller.heard("recorded")).recorded.outcome == Directive.Recorded.STALE
    assert await mesh.get(running.id) == ended
    for one in (worker, other):
        one.close()


async def test_giving_back_declining_and_burying_what_is_another_s_changes_nothing(
    mesh: Mesh,
) -> None:
    worker, grant = await granted(mesh)
    other = ByHand(mesh)
    await other.heard("heartbeat_ack")
    running = await mesh.get(grant.invocation_id)
    unknown = show(INVOCATION, new_uuid())
    line = LogLine(stream=LogLine.STDOUT, text="forged")
    for teller, invocation_id, attempt in (
        (other, running.id, 1),
        (worker, running.id, 2),
        (worker, unknown, 1),
    ):
        logs = Report.Logs(invocation_id=invocation_id, attempt=attempt, lines=[line])
        decline = Report.Decline(invocation_id=invocation_id, reason="so")
        abandoned = Report.Abandoned(invocation_id=invocation_id, attempt=attempt, reason="so")
        teller.say(Report(logs=logs), Report(decline=decline), Report(abandoned=abandoned))
        assert (await teller.heard("recorded")).recorded.outcome == Directive.Recorded.STALE
    other.say(Report(buried=Report.Buried(boot_id=worker.worker.boot_id)))
    await other.heard("buried")
    assert await mesh.get(running.id) == running
    request = GetInvocationLogsRequest(invocation_id=running.id)
    assert not (await mesh.invocations.GetInvocationLogs(request)).lines
    worker.beat(Report.Held(invocation_id=running.id, attempt=1))
    ack = (await worker.heard("heartbeat_ack")).heartbeat_ack
    assert (ack.boot_lost, list(ack.not_yours)) == (False, [])
    for one in (worker, other):
        one.close()


async def test_only_its_own_lines_hold_up_a_verdict(mesh: Mesh) -> None:
    worker, printing = await granted(mesh)
    made = await mesh.invoke("echo", {"a": 2})
    worker.say(Report(start=Report.Start(invocation_id=made.id, grant_id=str(uuid4()))))
    silent = (await worker.heard("granted")).granted
    storing = """SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'
      AND datname = current_database() AND query LIKE '%%INSERT INTO invocation_logs%%'"""

    def lines(sequence: int) -> Report:
        text = LogLine(stream=LogLine.STDOUT, text=f"line {sequence}")
        return Report(
            logs=Report.Logs(
                invocation_id=printing.invocation_id, attempt=1, sequence=sequence, lines=[text]
            )
        )

    with psycopg.connect(mesh.database_url) as holder:
        holder.execute("LOCK TABLE invocation_logs IN ACCESS EXCLUSIVE MODE")
        worker.say(lines(0), lines(1))
        worker.say(lines(2), finished(printing.invocation_id, 1))

        async def held() -> bool:
            return bool(mesh.rows(storing))

        await eventually("its lines wait for the lock", held)
        worker.say(finished(silent.invocation_id, 1))
        recorded = (await worker.heard("recorded")).recorded
        assert recorded.invocation_id == silent.invocation_id
        assert (await mesh.get(printing.invocation_id)).status == Invocation.RUNNING
        holder.rollback()
    recorded = (await worker.heard("recorded")).recorded
    assert recorded.invocation_id == printing.invocation_id
    assert recorded.outcome == Directive.Recorded.RECORDED
    request = GetInvocationLogsRequest(invocation_id=printing.invocation_id)
    found = (await mesh.invocations.GetInvocationLogs(request)).lines
    assert [line.text for line in found] == ["line 0", "line 1", "line 2"]
    worker.close()


async def test_starts_of_what_does_not_wait_are_refused(mesh: Mesh) -> None:
    worker, grant = await granted(mesh)
    worker.say(finished(grant.invocation_id, 1))
    await worker.heard("recorded")
    in_an_hour = Timestamp()
    in_an_hour.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    later = await mesh.invoke("echo", 1, not_before=in_an_hour)
    for invocation_id, unknown in (
        (grant.invocation_id, False),
        (later.id, False),
        (show(INVOCATION, new_uuid()), True),
        ("inv-1", True),
        ("'; DROP TABLE invocations; --", True),
    ):
        start = Report.Start(invocation_id=invocation_id, grant_id=str(uuid4()))
        worker.say(Report(start=start))
        answer = (await worker.heard("refused")).refused
        assert (answer.invocation_id, answer.unknown) == (invocation_id, unknown)
    assert (await mesh.get(later.id)).attempt == 0
    worker.close()


async def test_a_report_that_cannot_be_read_ends_the_stream_by_name_and_harms_nobody(
    mesh: Mesh,
) -> None:
    worker, grant = await granted(mesh)
    running = grant.invocation_id
    bad = (
        (finished("inv-1", 1), "invocation_id"),
        (finished(running, 1, boot_id="1"), "finished.boot_id"),
        (
            Report(start=Report.Start(invocation_id=grant.invocation_id, grant_id="1")),
            "start.grant_id",
        ),
        (Report(decline=Report.Decline(invocation_id="")), "invocation_id"),
        (Report(buried=Report.Buried(boot_id="x")), "buried.boot_id"),
    )
    for report, field in bad:
        liar = ByHand(mesh)
        await liar.heard("heartbeat_ack")
        liar.say(report)
        await refused(liar.heard("recorded"), InvalidField, field)
    worker.say(finished(grant.invocation_id, 1))
    assert (await worker.heard("recorded")).recorded.outcome == Directive.Recorded.RECORDED
    worker.close()
