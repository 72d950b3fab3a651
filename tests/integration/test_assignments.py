"""Calls that wait are granted as they are accepted, and sent to a worker that has run it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import psycopg

from faas.json_values import from_json, to_value
from faas.v1 import execution_service_pb2
from faas.v1.execution_pb2 import Directive, Report
from faas.v1.execution_service_pb2 import ReportExecutionsRequest, ReportExecutionsResponse
from faas.v1.invocation_pb2 import Invocation
from services.errors import DependencyUnavailable
from services.ids import INVOCATION, new_uuid, show
from services.invocations.queue import QUEUE
from services.server import Call, Server
from tests.integration.test_reports import ByHand
from tests.mesh import Mesh, eventually

WAIT_S = 60
ECHO = {"hello": "there"}
ASLEEP = """
import time

def handler(payload, context):
    time.sleep(payload)
    return payload
"""


# The service, and a worker that says what a test has it say.


@asynccontextmanager
async def knowing(mesh: Mesh, concurrency: int = 4) -> AsyncIterator[ByHand]:
    """A worker by hand that has run `echo` once."""
    await mesh.start("functions", "invocations", recovery_interval_s=0.5, offer_grace_s=0.5)
    await mesh.create("echo")
    made = await mesh.invoke("echo")
    worker = ByHand(mesh, concurrency=concurrency, takes_assignments=True)
    await worker.heard("heartbeat_ack")
    worker.say(Report(start=Report.Start(invocation_id=made.id, grant_id=str(uuid4()))))
    await worker.heard("granted")
    worker.say(finished(made.id))
    await worker.heard("recorded")
    # Nobody takes it out of the queue here.
    await mesh.redis.delete(QUEUE)
    yield worker
    worker.close()


def finished(invocation_id: str, attempt: int = 1) -> Report:
    return Report(
        finished=Report.Finished(
            invocation_id=invocation_id,
            attempt=attempt,
            status=Invocation.COMPLETED,
            result=b"1",
        )
    )


def waiting(mesh: Mesh) -> "asyncio.Task[Invocation]":
    return asyncio.create_task(mesh.invoke("echo", ECHO, wait_s=WAIT_S))


async def test_it_is_granted_as_it_is_accepted_and_is_in_no_queue(mesh: Mesh) -> None:
    async with knowing(mesh) as worker:
        call = waiting(mesh)
        given = (await worker.heard("assigned")).assigned
        assert (given.attempt, given.function_name) == (1, "echo")
        assert from_json(given.payload) == to_value(ECHO)
        record = await mesh.get(given.invocation_id)
        assert (record.status, record.attempt) == (Invocation.RUNNING, 1)
        assert await mesh.redis.llen(QUEUE) == 0
        worker.say(finished(given.invocation_id))
        assert (await call).status == Invocation.COMPLETED


async def test_what_is_given_back_goes_to_the_queue_and_costs_no_attempt(mesh: Mesh) -> None:
    async with knowing(mesh) as worker:
        call = waiting(mesh)
        given = (await worker.heard("assigned")).assigned
        decline = Report.Decline(
            invocation_id=given.invocation_id, reason="no room", grant_id=given.grant_id
        )
        # Said twice, as after a break of the stream.
        worker.say(Report(decline=decline), Report(decline=decline))
        await eventually("it is in the queue", lambda: mesh.redis.llen(QUEUE))
        record = await mesh.get(given.invocation_id)
        assert (record.status, record.attempt) == (Invocation.PENDING, 0)
        grant = str(uuid4())
        worker.say(Report(start=Report.Start(invocation_id=given.invocation_id, grant_id=grant)))
        assert (await worker.heard("granted")).granted.attempt == 1
        # Late: it is granted anew meanwhile.
        worker.say(Report(decline=decline), finished(given.invocation_id))
        assert (await call).status == Invocation.COMPLETED


async def test_what_did_not_arrive_is_assigned_again(mesh: Mesh) -> None:
    async with knowing(mesh) as worker:
        call = waiting(mesh)
        given = (await worker.heard("assigned")).assigned
        # As if it had been lost with a stream.
        worker.beat()
        assert (await worker.heard("assigned")).assigned == given
        worker.beat(Report.Held(invocation_id=given.invocation_id, attempt=1))
        ack = (await worker.heard("heartbeat_ack")).heartbeat_ack
        assert not ack.not_yours
        worker.say(finished(given.invocation_id))
        assert (await call).attempt == 1


async def test_only_its_worker_gives_back_what_it_was_granted(mesh: Mesh) -> None:
    """Its stream has come anew while the call was accepted: perhaps it has begun already."""
    async with knowing(mesh) as worker:
        with psycopg.connect(mesh.database_url) as connection:
            connection.execute("LOCK TABLE invocations IN ACCESS EXCLUSIVE MODE")
            call = waiting(mesh)

            async def accepted_behind_the_lock() -> bool:
                query = "SELECT 1 FROM pg_locks WHERE NOT granted"
                return bool(connection.execute(query).fetchall())

            await eventually("it is being accepted", accepted_behind_the_lock)
            worker.close()
            again = ByHand(mesh, takes_assignments=True, worker=worker.worker)
            await again.heard("heartbeat_ack")
        given = (await again.heard("assigned")).assigned
        # However often it is told.
        again.beat()
        assert (await again.heard("assigned")).assigned == given
        record = await mesh.get(given.invocation_id)
        assert (record.status, record.attempt) == (Invocation.RUNNING, 1)
        assert await mesh.redis.llen(QUEUE) == 0
        again.say(finished(given.invocation_id))
        assert (await call).status == Invocation.COMPLETED
        again.close()


async def test_one_that_does_not_understand_it_is_assigned_nothing(mesh: Mesh) -> None:
    async with knowing(mesh) as worker:
        worker.close()
        # Its stream is known to have ended when the call goes to the queue.
        old = ByHand(mesh, concurrency=4, takes_assignments=False)
        await old.heard("heartbeat_ack")
        call = waiting(mesh)
        await eventually("it is in the queue", lambda: mesh.redis.llen(QUEUE))
        call.cancel()
        old.close()


async def test_calls_that_do_not_wait_go_through_the_queue(mesh: Mesh) -> None:
    async with knowing(mesh):
        record = await mesh.invoke("echo")
        assert record.status == Invocation.PENDING
        assert await mesh.redis.llen(QUEUE) == 1


# A worker, and a service that says what a test has it say.


class Scripted:
    """ExecutionService as a test wants it."""

    def __init__(self) -> None:
        self._outbox: asyncio.Queue[Directive] = asyncio.Queue()
        self._reports: asyncio.Queue[Report] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    def say(self, *directives: Directive) -> None:
        for directive in directives:
            self._outbox.put_nowait(directive)

    async def heard(self, *kinds: str) -> Report:
        """The next report of one of these kinds."""
        async with asyncio.timeout(WAIT_S):
            while (report := await self._reports.get()).WhichOneof("report") not in kinds:
                pass
        return report

    async def ReportExecutions(
        self, requests: AsyncIterator[ReportExecutionsRequest], _call: Call
    ) -> AsyncIterator[ReportExecutionsResponse]:
        self._reading = asyncio.create_task(self._read(requests))
        while True:
            yield ReportExecutionsResponse(directives=[await self._outbox.get()])

    async def FetchPayload(self, _request: object, _call: Call) -> AsyncIterator[object]:
        """Nobody's payload is large here."""
        raise DependencyUnavailable
        yield

    async def StoreResult(self, _requests: object, _call: Call) -> object:
        """Nor is a result."""
        raise DependencyUnavailable

    async def _read(self, requests: AsyncIterator[ReportExecutionsRequest]) -> None:
        async for request in requests:
            for report in request.reports:
                self._reports.put_nowait(report)
                match report.WhichOneof("report"):
                    case "hello" | "heartbeat":
                        self.say(Directive(heartbeat_ack=Directive.HeartbeatAck()))
                    case "finished":
                        recorded = Directive.Recorded(
                            invocation_id=report.finished.invocation_id,
                            attempt=report.finished.attempt,
                            outcome=Directive.Recorded.RECORDED,
                        )
                        self.say(Directive(recorded=recorded))


@asynccontextmanager
async def scripted(mesh: Mesh, code: str) -> AsyncIterator[tuple[Scripted, str]]:
    """A service by hand, with one worker of one slot; and the id of a function."""
    await mesh.start("functions")
    function = await mesh.create("asked", code)
    service = Scripted()
    server = Server(mesh.address("invocations"), drain_timeout_s=0)
    server.add(
        execution_service_pb2.DESCRIPTOR.services_by_name["ExecutionService"],
        service,
    )
    await server.start()
    try:
        await mesh.start("worker-1", concurrency=1)
        yield service, function.id
        await mesh.kill("worker-1")
    finally:
        await server.stop()


def assigned(function_id: str, payload: bytes) -> Directive:
    granted = Directive.Granted(
        invocation_id=show(INVOCATION, new_uuid()),
        grant_id=str(uuid4()),
        attempt=1,
        function_id=function_id,
        function_version=1,
        function_name="asked",
        payload=payload,
        payload_type="application/json",
    )
    granted.timeout.FromSeconds(60)
    return Directive(assigned=granted)


async def test_the_same_grant_is_one_start(mesh: Mesh) -> None:
    async with scripted(mesh, ASLEEP) as (service, function_id):
        first, second = (assigned(function_id, payload) for payload in (b"0.5", b"0"))
        service.say(first, first)
        assert (await service.heard("finished")).finished.result == b"0.5"
        # After its end too: nothing of it is reported between it and the next.
        service.say(first, second)
        report = (await service.heard("finished", "decline")).finished
        assert report.invocation_id == second.assigned.invocation_id


async def test_what_finds_no_slot_in_time_is_given_back(mesh: Mesh) -> None:
    async with scripted(mesh, ASLEEP) as (service, function_id):
        long, short = (assigned(function_id, payload) for payload in (b"50", b"0"))
        service.say(long, short)
        decline = (await service.heard("finished", "decline")).decline
        given = short.assigned
        assert (decline.invocation_id, decline.grant_id) == (given.invocation_id, given.grant_id)
        service.say(
            Directive(cancel=Directive.Cancel(invocation_id=long.assigned.invocation_id, attempt=1))
        )
        # Told again, perhaps by who has not heard of that: it is given back for good.
        service.say(short)
        again = (await service.heard("finished", "decline")).decline
        assert (again.invocation_id, again.grant_id) == (given.invocation_id, given.grant_id)


async def test_a_draining_worker_gives_it_back(mesh: Mesh) -> None:
    async with scripted(mesh, ASLEEP) as (service, function_id):
        service.say(Directive(drain=Directive.Drain()), assigned(function_id, b"0"))
        assert (await service.heard("finished", "decline")).decline.reason


async def test_real_ones_together(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.start("worker-1")
    await mesh.create("echo")
    for number in range(3):
        record = await mesh.invoke("echo", number, wait_s=WAIT_S)
        assert (record.status, record.result.number_value) == (Invocation.COMPLETED, number)
    # Granted in the moment in which it was offered: it was assigned.
    rows = mesh.rows(
        "SELECT offered_at = started_at AS assigned FROM attempts ORDER BY invocation_id"
    )
    assert [row["assigned"] for row in rows] == [False, True, True]
    assert await mesh.queue_is_empty()
