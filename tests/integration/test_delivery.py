"""Verdicts, retries, losses, cancelling and the guard, against real PostgreSQL."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from services.errors import RequestIdReused
from services.ids import new_uuid
from services.invocations import durability
from services.invocations.database import Database
from services.invocations.lanes import Lanes
from services.invocations.offers import OfferBook
from services.invocations.records import Ending, Record, Records
from services.invocations.sweeper import Sweeper
from services.invocations.waiters import Waiters
from tests.integration.invocations import (
    LOST,
    a_boot,
    accepted,
    arrival,
    boot,
    database,
    records,
    running,
)

__all__ = ["boot", "database", "records"]

RETRY = {
    "max_attempts": 3,
    "initial_backoff_ms": 0,
    "max_backoff_ms": 0,
    "retry_on": ["FUNCTION_ERROR"],
    "retry_lost_worker": True,
}
FAILED = Ending("failed", error={"code": "FUNCTION_ERROR", "message": "no"})
DONE = Ending("completed", result=b"1", result_type="application/json")


async def granted(records: Records, record: Record, boot: UUID) -> Record | None:
    return await records.grant(record.id, new_uuid(), boot, uuid4())


async def outcomes(records: Records, record: Record) -> list[tuple[int, str]]:
    return [(row.attempt, row.outcome) for row in await records.attempts.of(record.id)]


# The history


async def test_a_start_that_is_over_has_one_row(records: Records, boot: UUID) -> None:
    record = await running(records, boot)
    assert await outcomes(records, record) == []
    await records.conclude(record.id, 1, boot, DONE)
    await records.conclude(record.id, 1, boot, FAILED)
    (row,) = await records.attempts.of(record.id)
    assert (row.attempt, row.outcome, row.worker_boot) == (1, "completed", boot)
    assert row.due_at is not None
    assert row.started_at is not None
    assert row.due_at <= row.started_at <= row.ended_at
    assert await records.attempts.was_told(record.id, 1, boot)
    assert not await records.attempts.was_told(record.id, 1, new_uuid())


async def test_a_late_verdict_corrects_the_history(records: Records, boot: UUID) -> None:
    record = await running(records, boot)
    await records.lose(boot, [record.id], LOST)
    assert await outcomes(records, record) == [(1, "lost")]
    await records.conclude(record.id, 1, boot, DONE)
    assert await outcomes(records, record) == [(1, "completed")]


async def test_a_stale_verdict_is_kept_once_and_changes_nothing(
    records: Records, database: Database, boot: UUID
) -> None:
    record = await running(records, boot)
    await records.lose(boot, [record.id], LOST)
    other = await a_boot(database)
    again = await granted(records, record, other)
    for _ in range(2):
        await records.attempts.keep_stale(
            record.id, 1, boot, status="completed", result=b"1", error=None, metrics=None
        )
    kept = await database.fetch("SELECT attempt, status, result FROM stale_verdicts")
    assert kept == [{"attempt": 1, "status": "completed", "result": b"1"}]
    assert await records.find(record.id) == again


async def test_the_guard_keeps_what_has_ended(
    records: Records, database: Database, boot: UUID
) -> None:
    record = await running(records, boot)
    done = await records.conclude(record.id, 1, boot, DONE)
    await database.fetch("UPDATE invocations SET status = 'pending', result = NULL")
    assert await records.find(record.id) == done
    logged = await database.fetch("SELECT invocation_id, status, wanted FROM guard_log")
    assert logged == [{"invocation_id": record.id, "status": "completed", "wanted": "pending"}]


# Retries and losses


async def test_the_functions_own_failures_are_retried_as_its_policy_says(
    records: Records, boot: UUID
) -> None:
    record = await running(records, boot, retry_policy=RETRY)
    statuses = []
    for attempt in (1, 2, 3):
        if attempt > 1:
            assert await granted(records, record, boot)
        ended = await records.conclude(record.id, attempt, boot, FAILED)
        assert ended is not None
        statuses.append((ended.status, ended.error is None, ended.completed_at is None))
    assert statuses == [("pending", True, True), ("pending", True, True), ("failed", False, False)]
    assert await outcomes(records, record) == [(1, "failed"), (2, "failed"), (3, "failed")]


async def test_a_retry_waits_for_its_backoff(records: Records, boot: UUID) -> None:
    slow = {**RETRY, "initial_backoff_ms": 3_600_000, "max_backoff_ms": 3_600_000}
    record = await running(records, boot, retry_policy=slow)
    ended = await records.conclude(record.id, 1, boot, FAILED)
    assert ended is not None
    assert timedelta(minutes=25) < ended.due_at - datetime.now(UTC) <= timedelta(hours=1)
    assert await granted(records, record, boot) is None


@pytest.mark.parametrize(
    ("policy", "code"), [(None, "FUNCTION_ERROR"), (RETRY, "TIMEOUT")], ids=["none", "other reason"]
)
async def test_what_the_policy_does_not_name_is_not_retried(
    records: Records, boot: UUID, policy: dict | None, code: str
) -> None:
    record = await running(records, boot, retry_policy=policy)
    ended = await records.conclude(
        record.id, 1, boot, Ending("failed", error={"code": code, "message": ""})
    )
    assert ended is not None
    assert ended.status == "failed"


async def test_a_loss_takes_no_start_from_the_functions_own(
    records: Records, database: Database, boot: UUID
) -> None:
    record = await running(records, boot, retry_policy=RETRY)
    lost = await records.lose(boot, [record.id], LOST)
    assert [one.alone for one in lost] == [True]
    boot = await a_boot(database)
    for attempt in (2, 3, 4):
        assert await granted(records, record, boot)
        ended = await records.conclude(record.id, attempt, boot, FAILED)
    assert ended is not None
    assert (ended.status, ended.attempt) == ("failed", 4)


async def test_a_second_loss_ends_it_whatever_starts_are_left(
    records: Records, database: Database
) -> None:
    record = await accepted(records, retry_policy={**RETRY, "max_attempts": 10})
    for _ in range(2):
        boot = await a_boot(database)
        assert await granted(records, record, boot)
        (lost,) = await records.lose(boot, [record.id], LOST)
    assert (lost.status, lost.error, lost.attempt) == ("dead_lettered", LOST, 2)


async def test_what_must_not_run_twice_is_not_started_again(records: Records, boot: UUID) -> None:
    record = await running(records, boot, retry_policy={**RETRY, "retry_lost_worker": False})
    (lost,) = await records.lose(boot, [record.id], LOST)
    assert lost.status == "dead_lettered"


async def test_what_was_given_back_is_not_suspected(records: Records, boot: UUID) -> None:
    record = await running(records, boot)
    (back,) = await records.lose(boot, [record.id], LOST, 1, lost=False)
    assert (back.status, back.alone) == ("pending", False)
    assert await outcomes(records, record) == [(1, "abandoned")]


async def test_what_runs_on_a_boot_that_is_none_is_found(
    records: Records, database: Database, boot: UUID
) -> None:
    record = await running(records, boot)
    assert await records.orphaned() == {}
    await database.fetch("UPDATE workers SET lost_at = clock_timestamp()")
    assert await records.orphaned() == {boot: [record.id]}


# Age


async def test_what_nobody_starts_in_time_is_dead_lettered(records: Records, boot: UUID) -> None:
    old = await accepted(records, max_age_s=0)
    young = await accepted(records)
    assert await granted(records, old, boot) is None
    (expired,) = await records.expire(10)
    assert (expired.id, expired.status) == (old.id, "dead_lettered")
    assert expired.error is not None
    assert expired.error["code"] == "EXPIRED"
    assert await granted(records, young, boot)


async def test_nothing_starts_before_its_moment(records: Records, boot: UUID) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    record, offered = await records.accept(new_uuid(), **arrival(not_before=later))
    assert not offered
    assert record.due_at == later
    assert await granted(records, record, boot) is None


async def test_what_waits_for_its_moment_does_not_hold_up_others(records: Records) -> None:
    await accepted(records, not_before=datetime.now(UTC) + timedelta(hours=1))
    _, offered = await records.accept(new_uuid(), **arrival())
    assert offered


# Cancelling


async def test_cancelling_wins_or_the_verdict_does(records: Records, boot: UUID) -> None:
    for _ in range(100):
        record = await running(records, boot)
        cancelled, concluded = await asyncio.gather(
            records.cancel([record.id]), records.conclude(record.id, 1, boot, DONE)
        )
        assert bool(cancelled) != bool(concluded)
        found = await records.find(record.id)
        assert found is not None
        assert found.status == ("cancelled" if cancelled else "completed")
        assert await outcomes(records, record) == [(1, found.status)]


async def test_cancelling_says_who_ran_it(records: Records, boot: UUID) -> None:
    waiting, started = await accepted(records), await running(records, boot)
    cancelled = await records.cancel([waiting.id, started.id, new_uuid()])
    assert {record.id: ran_on for record, ran_on in cancelled} == {
        waiting.id: None,
        started.id: boot,
    }
    assert await granted(records, waiting, boot) is None
    assert await records.cancel([waiting.id, started.id]) == []
    assert await outcomes(records, waiting) == []


# Idempotency


async def test_the_same_request_makes_one_record(records: Records) -> None:
    values = arrival(request_id="once", digest=b"a")
    answers = await asyncio.gather(*(records.accept(new_uuid(), **values) for _ in range(20)))
    assert len({record.id for record, _ in answers}) == 1
    assert sum(offered for _, offered in answers) == 1
    elsewhere = await accepted(records, request_id="once", digest=b"a")
    assert elsewhere.id not in {record.id for record, _ in answers}


async def test_another_payload_under_a_used_request_id_is_refused(records: Records) -> None:
    values = arrival(request_id="once")
    first, _ = await records.accept(new_uuid(), **values, digest=b"a")
    with pytest.raises(RequestIdReused) as refused:
        await records.accept(new_uuid(), **values, digest=b"b")
    assert refused.value.metadata == {"invocation_id": f"inv-{first.id}"}


async def test_a_request_id_is_free_again_after_a_day(records: Records, database: Database) -> None:
    values = arrival(request_id="once")
    first, _ = await records.accept(new_uuid(), **values, digest=b"a")
    await database.fetch("UPDATE request_ids SET created_at = created_at - interval '25 hours'")
    second, _ = await records.accept(new_uuid(), **values, digest=b"b")
    assert second.id != first.id
    assert second.request_id == "once"


async def test_what_is_a_day_old_is_forgotten(records: Records, database: Database) -> None:
    await accepted(records, request_id="once", digest=b"a")
    boots = [await a_boot(database) for _ in range(2)]
    old = "clock_timestamp() - interval '25 hours'"
    await database.fetch(f"UPDATE request_ids SET created_at = {old}")
    await database.fetch(
        f"UPDATE workers SET lost_at = {old} WHERE boot_id = %(boot)s", {"boot": boots[0]}
    )
    waiters = Waiters(records)
    await Sweeper(database, records, Lanes(database), waiters, interval_s=1).sweep()
    assert await database.fetch("SELECT 1 FROM request_ids") == []
    left = await database.fetch("SELECT boot_id FROM workers")
    assert [row["boot_id"] for row in left] == boots[1:]


# Batches


async def test_a_row_that_postgresql_rejects_fails_alone(records: Records, boot: UUID) -> None:
    held = [await running(records, boot) for _ in range(50)]
    bad = held[17]

    async def conclude(record: Record) -> Record | None:
        error = {"code": "FUNCTION_ERROR", "message": "\x00" if record is bad else "x"}
        return await records.conclude(record.id, 1, boot, Ending("failed", error=error))

    answers = await asyncio.gather(*map(conclude, held), return_exceptions=True)
    assert isinstance(answers[17], psycopg.DataError)
    others = [answer for index, answer in enumerate(answers) if index != 17]
    assert all(isinstance(answer, Record) and answer.status == "failed" for answer in others)
    still = await records.find(bad.id)
    assert still is not None
    assert still.status == "running"


async def test_replicas_that_write_the_same_rows_do_not_lock_each_other_out(
    database: Database, boot: UUID
) -> None:
    replicas = [Records(database, lost_backoff_s=0) for _ in range(4)]
    waiting = [(await accepted(replicas[0])).id for _ in range(60)]
    grants = await asyncio.gather(
        *(
            replica.grant(key, new_uuid(), boot, uuid4())
            for replica in replicas
            for key in (waiting if replica is replicas[0] else reversed(waiting))
        )
    )
    assert sum(grant is not None for grant in grants) == len(waiting)
    told = await asyncio.gather(
        *(replica.conclude(key, 1, boot, DONE) for replica in replicas for key in waiting),
        *(replica.lose(boot, waiting, LOST) for replica in replicas),
    )
    ended = [answer for answer in told if isinstance(answer, Record)]
    assert len({record.id for record in ended}) == len(ended)


# Lanes


async def test_a_paused_function_waits_and_others_do_not(
    records: Records, database: Database, boot: UUID
) -> None:
    lanes, book = Lanes(database), OfferBook(database)
    function = new_uuid()
    before = await accepted(records, function_id=function)
    await lanes.pause(function)
    await lanes.pause(function)
    after, offered = await records.accept(new_uuid(), **arrival(function_id=function))
    other = await accepted(records)
    assert not offered
    assert await granted(records, before, boot) is None
    assert await granted(records, after, boot) is None
    assert await granted(records, other, boot)
    assert await book.take_due(10) == []
    await lanes.resume(function)
    assert {record.id for record in await book.take_due(10)} == {before.id, after.id}
    assert await granted(records, before, boot)
    assert await lanes.all() == []


async def test_no_more_than_the_limit_is_offered_or_runs(
    records: Records, database: Database, boot: UUID
) -> None:
    lanes, book = Lanes(database), OfferBook(database)
    function = new_uuid()
    await lanes.set_limit(function, 2)
    waiting = [await accepted(records, function_id=function) for _ in range(5)]
    parts = await asyncio.gather(*(book.take_due_in_lane(function, 10) for _ in range(4)))
    taken = [record for part in parts for record in part]
    assert [record.id for record in taken] == [record.id for record in waiting[:2]]
    # Whoever asks, offered or not: what would be too much is not granted.
    asked = await asyncio.gather(*(granted(records, record, boot) for record in waiting))
    assert sum(grant is not None for grant in asked) == 2
    (first, *_) = [grant for grant in asked if grant]
    await records.conclude(first.id, 1, boot, DONE)
    assert len(await book.take_due_in_lane(function, 10)) == 1


async def test_a_limit_counts_what_runs_already(
    records: Records, database: Database, boot: UUID
) -> None:
    function = new_uuid()
    await running(records, boot, function_id=function)
    await Lanes(database).set_limits({function: 1})
    late = await accepted(records, function_id=function)
    assert await OfferBook(database).take_due_in_lane(function, 10) == []
    assert await granted(records, late, boot) is None
    await Lanes(database).set_limits({})
    assert [record.id for record in await OfferBook(database).take_due(10)] == [late.id]


async def test_what_strayed_into_a_closed_lane_flows_again(
    records: Records, database: Database
) -> None:
    record = await accepted(records, offer=False)
    await database.fetch("UPDATE invocations SET laned = true")
    assert await OfferBook(database).take_due(10) == []
    assert await Lanes(database).gather_strays() == 1
    assert [one.id for one in await OfferBook(database).take_due(10)] == [record.id]


async def test_what_nobody_can_run_waits_longer_each_time(
    records: Records, database: Database
) -> None:
    record = await accepted(records)
    waits = []
    for _ in range(3):
        await database.fetch("UPDATE invocations SET offered_at = clock_timestamp()")
        assert await OfferBook(database).decline(record.id, 10, 30) == 1
        found = await records.find(record.id)
        assert found is not None
        waits.append(round((found.due_at - datetime.now(UTC)).total_seconds()))
    assert waits == [10, 20, 30]
    assert found.attempt == 0


# What the promise needs


async def test_a_database_that_may_forget_is_complained_of(database: Database) -> None:
    # The tests' own server runs without fsync.
    assert [text for text in await durability.warnings(database) if "fsync is off" in text]
