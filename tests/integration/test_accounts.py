"""Accounts of invocations, and replays with their comparison."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from faas.v1.explanation_pb2 import ExplainInvocationRequest
from faas.v1.function_service_pb2 import UpdateFunctionRequest
from faas.v1.invocation_pb2 import Invocation
from faas.v1.replay_pb2 import CompareInvocationsRequest, ReplayInvocationRequest
from services.errors import (
    InvalidField,
    InvocationNotFound,
    InvocationUnfinished,
    VersionNotFound,
)
from services.ids import new_uuid
from services.invocations.accounts import Account, Accounts
from services.invocations.database import Database
from services.invocations.lanes import Lanes
from services.invocations.records import Ending, Record, Records
from tests.integration.functions import refused
from tests.integration.invocations import (
    LOST,
    accepted,
    boot,
    database,
    records,
    running,
)
from tests.mesh import Mesh

__all__ = ["boot", "database", "records"]

ERROR = {"code": "FUNCTION_ERROR", "message": "lost", "type": "LookupError"}
METRICS = {"startup_s": 0.0, "run_s": 0.0, "cpu_time_s": 0.25, "start_kind": "COLD"}
RETRY = {
    "max_attempts": 2,
    "initial_backoff_ms": 0,
    "max_backoff_ms": 0,
    "retry_on": ["FUNCTION_ERROR"],
    "retry_lost_worker": True,
}


async def account(database: Database, records: Records, key: UUID) -> Account:
    record = await records.find(key)
    assert record is not None
    told = await Accounts(database).of(record, await records.attempts.of(key))
    times = [step.time for step in told.steps]
    assert times == sorted(times), told.steps
    return told


def whats(told: Account) -> list[str]:
    return [step.what.split(" to worker-")[0] for step in told.steps]


async def again(records: Records, record: Record, boot: UUID) -> Record:
    granted = await records.grant(record.id, new_uuid(), boot, uuid4())
    assert granted is not None
    return granted


async def test_every_transition_has_its_cause(
    database: Database, records: Records, boot: UUID
) -> None:
    record = await running(records, boot, retry_policy=RETRY, request_id="twice", digest=b"x")
    await records.conclude(record.id, 1, boot, Ending("failed", error=ERROR, metrics=METRICS))
    await again(records, record, boot)
    await records.lose(boot, [record.id], LOST)
    await again(records, record, boot)
    ending = Ending("completed", result=b"1", result_type="application/json", metrics=METRICS)
    await records.conclude(record.id, 3, boot, ending)
    told = await account(database, records, record.id)
    assert [what for what in whats(told) if what not in ("Due.", "Put into the queue.")] == [
        "Accepted for version 1 of echo, with 2 bytes of application/json.",
        "Start 1 granted",
        "Handed to the function's code, in a cold sandbox.",
        "It failed, having used 0.250 s of CPU.",
        "Start 2 granted",
        "Its worker was lost.",
        "Start 3 granted",
        "Handed to the function's code, in a cold sandbox.",
        "It completed, having used 0.250 s of CPU.",
    ]
    causes = {step.what: step.why for step in told.steps}
    assert "'twice'" in next(iter(causes.values()))
    assert causes["It failed, having used 0.250 s of CPU."] == "FUNCTION_ERROR: LookupError: lost"
    assert causes["Its worker was lost."] == "WORKER_LOST: lost"
    assert told.summary.startswith("COMPLETED after ")
    assert told.summary.endswith("3 starts.")
    assert told.seconds("cpu_time_s") == 0.5
    assert told.seconds("peak_memory_bytes") is None


async def test_where_it_waits_and_why(database: Database, records: Records) -> None:
    function = new_uuid()
    later = datetime.now(UTC) + timedelta(hours=1)
    delayed = await accepted(records, not_before=later)
    told = await account(database, records, delayed.id)
    assert whats(told)[-1] == "Waits from this moment to be queued."
    assert told.steps[-1].time == later
    await Lanes(database).pause(function)
    paused = await accepted(records, function_id=function)
    told = await account(database, records, paused.id)
    assert "paused since" in told.steps[-1].why
    assert "it is given up" in told.steps[-1].why
    queued = await accepted(records)
    assert whats(await account(database, records, queued.id))[-1] == (
        "In the queue: waits for a worker."
    )


async def test_what_never_expires(database: Database, records: Records) -> None:
    record = await accepted(records)
    query = "UPDATE invocations SET expires_at = 'infinity' WHERE id = %(id)s"
    await database.fetch(query, {"id": record.id})
    told = await account(database, records, record.id)
    assert "given up" not in told.steps[-1].why


async def test_it_runs(database: Database, records: Records, boot: UUID) -> None:
    record = await running(records, boot)
    told = await account(database, records, record.id)
    assert told.steps[-1].what.endswith("it is running.")
    assert told.summary == "RUNNING, after 1 start."


async def test_ends_that_no_start_tells(database: Database, records: Records, boot: UUID) -> None:
    cancelled = await accepted(records)
    await records.cancel([cancelled.id])
    assert whats(await account(database, records, cancelled.id))[-1] == "CANCELLED."
    expired = await accepted(records, max_age_s=0)
    await records.expire(10)
    told = await account(database, records, expired.id)
    assert told.steps[-1].what == "The platform gave it up."
    assert told.steps[-1].why.startswith("EXPIRED: ")
    convicted = await running(records, boot)
    await records.lose(boot, [convicted.id], LOST)
    await again(records, convicted, boot)
    await records.lose(boot, [convicted.id], LOST)
    told = await account(database, records, convicted.id)
    assert whats(told)[-2:] == ["Its worker was lost.", "The platform gave it up."]
    hopeless = await running(records, boot, retry_policy={**RETRY, "max_attempts": 1})
    await records.conclude(hopeless.id, 1, boot, Ending("failed", error=ERROR))
    assert whats(await account(database, records, hopeless.id))[-1] == "Not started again."


async def test_replays_are_linked_and_compared(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    one = "def handler(n):\n    return {'n': n, 'rows': [1, 2]}\n"
    two = "def handler(n):\n    return {'n': n, 'rows': [1, 3, 4]}\n"
    three = "def handler(n):\n    raise LookupError(n)\n"
    await mesh.create("shown", one)
    source = await mesh.invoke("shown", {"big": "x" * 10}, wait_s=60, labels={"a": "b"})
    replay = mesh.invocations.ReplayInvocation
    compare = mesh.invocations.CompareInvocations
    asked = ReplayInvocationRequest(invocation_id=source.id, wait={"seconds": 60})

    same = await replay(asked)
    assert same.invocation.replay_of == source.id
    assert same.invocation.payload == source.payload
    assert same.invocation.labels == source.labels
    assert same.comparison.equal
    assert getattr(same.comparison, "with") == source.id

    for code in (two, three):
        await mesh.functions.UpdateFunction(UpdateFunctionRequest(function_id="shown", code=code))
    asked.function_version = 2
    other = await replay(asked)
    assert not other.comparison.equal
    found = [
        (x.path, x.before.number_value, x.HasField("after"), x.after.number_value)
        for x in other.comparison.differences
    ]
    assert found == [("/result/rows/1", 2, True, 3), ("/result/rows/2", 0, True, 4)]
    assert not other.comparison.differences[1].HasField("before")
    asked.function_version = 0
    latest = await replay(asked)
    assert latest.invocation.function_version == 3
    paths = [x.path for x in latest.comparison.differences]
    assert paths == ["/status", "/result_type", "/result", "/error"]

    # Later, and with any other.
    assert await compare(CompareInvocationsRequest(invocation_id=other.invocation.id)) == (
        other.comparison
    )
    request = CompareInvocationsRequest(invocation_id=other.invocation.id)
    setattr(request, "with", same.invocation.id)
    assert len((await compare(request)).differences) == 2

    await refused(compare(CompareInvocationsRequest(invocation_id=source.id)), InvalidField, "with")
    asked.function_version = 9
    await refused(replay(asked), VersionNotFound)
    gone = ReplayInvocationRequest(invocation_id=f"inv-{new_uuid()}")
    await refused(replay(gone), InvocationNotFound)
    await mesh.create("slow", "import time\ndef handler(s):\n    time.sleep(s)\n")
    slow = await mesh.invoke("slow", 20)
    await refused(replay(ReplayInvocationRequest(invocation_id=slow.id)), InvocationUnfinished)

    explained = await mesh.invocations.ExplainInvocation(
        ExplainInvocationRequest(invocation_id=same.invocation.id)
    )
    assert explained.status == Invocation.COMPLETED
    assert source.id in explained.steps[0].why
    assert len(explained.attempts) == 1
    assert all(step.after.ToNanoseconds() >= 0 for step in explained.steps)
    spent = explained.startup.ToNanoseconds() + explained.run.ToNanoseconds()
    assert spent > 0
    worker = explained.attempts[0].worker_id
    assert any(worker in step.what for step in explained.steps)
    await refused(
        mesh.invocations.ExplainInvocation(
            ExplainInvocationRequest(invocation_id=f"inv-{new_uuid()}")
        ),
        InvocationNotFound,
    )
