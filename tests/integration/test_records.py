"""The record's life, each step against real PostgreSQL."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.ids import new_uuid
from services.invocations.database import Database
from services.invocations.offers import OfferBook
from services.invocations.partitions import DAYS_AHEAD, Days, Partitions, id_at
from services.invocations.records import Ending, Records
from tests.integration.invocations import LOST, a_boot, accepted, boot, database, records

__all__ = ["boot", "database", "records"]


async def test_an_accepted_record_is_pending_and_to_be_offered(records: Records) -> None:
    record, offered = await records.accept(
        new_uuid(),
        function_id=new_uuid(),
        function_name="echo",
        function_version=3,
        timeout_ms=1500,
        payload=b'{"a":1}',
        labels={"team": "search"},
        offer=True,
    )
    assert offered
    assert (record.status, record.attempt, record.function_version) == ("pending", 0, 3)
    assert await records.find(record.id) == record


async def test_accepting_twice_under_one_id_makes_one_record(records: Records) -> None:
    values: dict = {
        "function_id": new_uuid(),
        "function_name": "echo",
        "function_version": 1,
        "timeout_ms": 1,
        "payload": b"1",
        "labels": {},
        "offer": True,
    }
    key = new_uuid()
    first, _ = await records.accept(key, **values)
    again, offered = await records.accept(key, **values)
    assert (again, offered) == (first, False)


async def test_nobody_pushes_past_what_waits_for_the_feeder(
    records: Records, database: Database
) -> None:
    waiting = await accepted(records, offer=False)
    _, offered = await records.accept(
        new_uuid(),
        function_id=new_uuid(),
        function_name="late",
        function_version=1,
        timeout_ms=1,
        payload=b"1",
        labels={},
        offer=True,
    )
    assert not offered
    taken = await OfferBook(database).take_due(10)
    assert taken[0].id == waiting.id


async def test_a_start_is_granted_once(records: Records, database: Database) -> None:
    record = await accepted(records)
    boots = [await a_boot(database) for _ in range(8)]
    grants = await asyncio.gather(
        *(records.grant(record.id, new_uuid(), boot, uuid4()) for boot in boots)
    )
    assert [grant.attempt for grant in grants if grant] == [1]


async def test_the_same_question_gets_the_same_grant(records: Records, boot: UUID) -> None:
    record = await accepted(records)
    grant = uuid4()
    first = await records.grant(record.id, new_uuid(), boot, grant)
    assert first is not None
    assert await records.grant(record.id, new_uuid(), boot, grant) == first
    assert await records.grant(record.id, new_uuid(), boot, uuid4()) is None


async def test_a_boot_that_nobody_knows_is_granted_nothing(records: Records) -> None:
    record = await accepted(records)
    assert await records.grant(record.id, new_uuid(), new_uuid(), uuid4()) is None


async def test_a_verdict_is_told_once_and_never_changes(records: Records, boot: UUID) -> None:
    record = await accepted(records)
    await records.grant(record.id, new_uuid(), boot, uuid4())
    done = await records.conclude(record.id, 1, boot, Ending("completed", result=b"1"))
    assert done is not None
    assert (done.status, done.result) == ("completed", b"1")
    assert done.metrics is not None
    assert done.metrics.keys() == {"queued_s", "report_s", "duration_s"}
    assert await records.conclude(record.id, 1, boot, Ending("failed")) is None
    assert await records.lose(boot, [record.id], LOST) == []
    assert await records.grant(record.id, new_uuid(), boot, uuid4()) is None
    assert await records.find(record.id) == done


@pytest.mark.parametrize("wrong", ["attempt", "boot"])
async def test_a_verdict_counts_only_for_who_holds_the_grant(
    records: Records, boot: UUID, wrong: str
) -> None:
    record = await accepted(records)
    await records.grant(record.id, new_uuid(), boot, uuid4())
    attempt, teller = (2, boot) if wrong == "attempt" else (1, new_uuid())
    assert await records.conclude(record.id, attempt, teller, Ending("completed")) is None
    found = await records.find(record.id)
    assert found is not None
    assert found.status == "running"


async def test_a_lost_execution_is_pending_again_and_then_dead_lettered(
    records: Records, database: Database
) -> None:
    record = await accepted(records)
    statuses = []
    for _ in range(2):
        boot = await a_boot(database)
        assert await records.grant(record.id, new_uuid(), boot, uuid4())
        lost = await records.lose(boot, [record.id], LOST)
        statuses.append((lost[0].status, lost[0].attempt, lost[0].error))
    assert statuses == [("pending", 1, None), ("dead_lettered", 2, LOST)]


async def test_a_late_verdict_counts_until_the_next_grant(
    records: Records, database: Database
) -> None:
    boot, other = await a_boot(database), await a_boot(database)
    early, late = await accepted(records), await accepted(records)
    for record in (early, late):
        await records.grant(record.id, new_uuid(), boot, uuid4())
        await records.lose(boot, [record.id], LOST)
    assert await records.conclude(early.id, 1, boot, Ending("completed", result=b"1"))
    assert await records.grant(late.id, new_uuid(), other, uuid4())
    assert await records.conclude(late.id, 1, boot, Ending("completed", result=b"1")) is None


async def test_what_is_long_after_its_timeout_is_overdue(records: Records, boot: UUID) -> None:
    record = await accepted(records, timeout_ms=1)
    assert await records.overdue(0) == []
    await records.grant(record.id, new_uuid(), boot, uuid4())
    while not (overdue := await records.overdue(0)):
        await asyncio.sleep(0.005)
    assert overdue == [(record.id, boot, 1)]
    assert await records.overdue(3600) == []


async def test_replicas_that_feed_at_once_share_the_work(
    records: Records, database: Database
) -> None:
    waiting = {(await accepted(records, offer=False)).id for _ in range(40)}
    books = [OfferBook(database) for _ in range(4)]
    taken = await asyncio.gather(*(book.take_due(15) for book in books))
    ids = [record.id for part in taken for record in part]
    assert len(ids) == len(set(ids))
    assert set(ids) <= waiting
    rest = {record.id for record in await books[0].take_due(40)}
    assert set(ids) | rest == waiting


async def test_an_offer_made_again_is_not_withdrawn(records: Records, database: Database) -> None:
    record = await accepted(records)
    book = OfferBook(database)
    seen = await book.offered(age_s=-1)
    assert await book.take_back([record.id]) == 1
    assert [again.id for again in await book.take_due(1)] == [record.id]
    assert await book.withdraw(seen) == 0
    assert await book.withdraw(await book.offered(age_s=-1)) == 1


async def test_records_live_in_the_partition_of_their_day(
    records: Records, database: Database
) -> None:
    today = datetime.now(UTC).date()
    partitions = Partitions(database, retention_days=30)
    await partitions.ensure(today)
    await partitions.ensure(today)
    await accepted(records)
    rows = await database.fetch("SELECT tableoid::regclass::text AS name FROM invocations")
    assert [row["name"] for row in rows] == [f"invocations_{today:%Y%m%d}"]
    made = await database.fetch(
        "SELECT 1 FROM pg_inherits WHERE inhparent = 'invocation_logs'::regclass"
    )
    assert len(made) == DAYS_AHEAD + 2


async def test_what_is_of_a_day_that_another_replica_dropped_has_its_row_elsewhere(
    database: Database, boot: UUID
) -> None:
    """As far as this one knows there is a partition, which there is not."""
    days = Days()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    days.made = frozenset({yesterday.date()})
    records = Records(database, days=days)
    key = UUID(int=id_at(yesterday).int | uuid4().int & (2**64 - 1))
    assert days.table([key]) == f"invocations_{yesterday:%Y%m%d}"
    record, _ = await records.accept(
        key,
        function_id=new_uuid(),
        function_name="late",
        function_version=1,
        timeout_ms=1,
        payload=b"1",
        offer=True,
    )
    granted = await records.grant(record.id, boot, boot, uuid4())
    assert granted is not None
    done = await records.conclude(record.id, 1, boot, Ending("completed", result=b"2"))
    assert done is not None
    assert (done.status, done.result) == ("completed", b"2")


def test_ids_are_looked_for_in_the_partition_of_their_day() -> None:
    days = Days()
    today = datetime.now(UTC)
    now, before = new_uuid(), id_at(today - timedelta(days=1))
    assert days.table([now]) == "invocations"
    days.made = frozenset({today.date()})
    assert days.table([now, now]) == f"invocations_{today:%Y%m%d}"
    assert days.table([before, now]) == "invocations"
    assert days.table([before]) == "invocations"
    # Not ours: its time would be in the year 10889.
    assert days.table([UUID(int=2**128 - 1)]) == "invocations"


async def test_a_broken_connection_is_replaced(records: Records, database: Database) -> None:
    record = await accepted(records)
    others = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    async with database.session() as connection:
        await connection.execute(others)
        await asyncio.gather(*(records.find(record.id) for _ in range(8)))
    assert await records.find(record.id) == record
