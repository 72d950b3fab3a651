"""The status stream, spoken by hand: what the service makes of what a worker says."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

from faas.v1.execution_pb2 import Directive, Report
from faas.v1.execution_service_pb2 import ReportExecutionsRequest
from faas.v1.execution_service_pb2_grpc import ExecutionServiceStub
from faas.v1.invocation_pb2 import Invocation
from faas.v1.worker_pb2 import Worker
from services.errors import InvalidField
from services.ids import WORKER, new_uuid, show
from tests.integration.functions import refused
from tests.mesh import Mesh, eventually

WAIT_S = 60


class ByHand:
    """A worker that says exactly what a test has it say."""

    def __init__(self, mesh: Mesh) -> None:
        self.worker = Worker(
            id=show(WORKER, new_uuid()), boot_id=str(new_uuid()), state=Worker.READY
        )
        self._outbox: asyncio.Queue[list[Report]] = asyncio.Queue()
        self._call = ExecutionServiceStub(mesh.channel("invocations")).ReportExecutions(
            self._requests()
        )
        self._directives = self._received()
        self.say(Report(hello=Report.Hello(worker=self.worker)))

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


async def test_the_same_verdict_many_times_is_one(mesh: Mesh) -> None:
    worker, grant = await granted(mesh)
    finished = Report.Finished(
        invocation_id=grant.invocation_id, attempt=1, status=Invocation.COMPLETED, result=b"1"
    )
    outcomes = []
    for _ in range(10):
        worker.say(Report(finished=finished))
        outcomes.append((await worker.heard("recorded")).recorded.outcome)
    assert outcomes == [Directive.Recorded.RECORDED] + [Directive.Recorded.DUPLICATE] * 9
    first = await mesh.get(grant.invocation_id)
    finished.result = b"2"
    worker.say(Report(finished=finished))
    await worker.heard("recorded")
    assert await mesh.get(grant.invocation_id) == first
    worker.close()


async def test_a_result_that_is_none_fails_the_function(mesh: Mesh) -> None:
    worker, grant = await granted(mesh)
    finished = Report.Finished(
        invocation_id=grant.invocation_id, attempt=1, status=Invocation.COMPLETED, result=b"\xff{"
    )
    worker.say(Report(finished=finished))
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
