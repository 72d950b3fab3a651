"""Days of history: moved out of the default partition, and dropped when they are old."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import psycopg

from services.invocations.database import Database
from services.invocations.partitions import TABLES, Partitions, day_of, first_id
from services.invocations.records import Records
from tests.integration.invocations import arrival, boot, database, records
from tests.mesh import Mesh, eventually

__all__ = ["boot", "database", "records"]

TODAY = date(2026, 3, 4)


async def a_record(database: Database, records: Records, day: date, status: str) -> UUID:
    """A record of that day, with a line of log, an attempt and a stale verdict."""
    key = UUID(int=first_id(day).int + 5)
    while await records.find(key):
        key = UUID(int=key.int + 1)
    await records.accept(key, **arrival(offer=False))
    await database.fetch(
        "UPDATE invocations SET status = %(status)s WHERE id = %(id)s",
        {"id": key, "status": status},
    )
    for query in (
        "INSERT INTO invocation_logs VALUES (%(id)s, 1, 0, '[]')",
        "INSERT INTO attempts (invocation_id, attempt, outcome, ended_at)"
        " VALUES (%(id)s, 1, 'lost', now())",
        "INSERT INTO stale_verdicts (invocation_id, attempt, worker_boot, status, reported_at)"
        " VALUES (%(id)s, 1, %(id)s, 'failed', now())",
    ):
        await database.fetch(query, {"id": key})
    return key


async def places(database: Database, table: str) -> set[str]:
    """The partitions in which a table has rows."""
    rows = await database.fetch(f"SELECT DISTINCT tableoid::regclass::text AS name FROM {table}")
    return {row["name"] for row in rows}


async def test_days_that_are_too_old_are_dropped_whole(
    database: Database, records: Records
) -> None:
    partitions = Partitions(database, retention_days=30)
    kept_day, old_day = TODAY - timedelta(days=30), TODAY - timedelta(days=31)
    await partitions.ensure(old_day)
    kept = await a_record(database, records, kept_day, "completed")
    old = await a_record(database, records, old_day, "failed")
    await partitions.expire(TODAY)
    assert await records.find(old) is None
    assert await records.find(kept) is not None
    for table in TABLES:
        assert await places(database, table) == {f"{table}_{kept_day:%Y%m%d}"}
        gone = await database.fetch(f"SELECT to_regclass('{table}_{old_day:%Y%m%d}') AS name")
        assert gone == [{"name": None}]


async def test_a_day_with_something_unfinished_is_kept(
    database: Database, records: Records
) -> None:
    partitions = Partitions(database, retention_days=1)
    day = TODAY - timedelta(days=100)
    await partitions.ensure(day)
    ended = await a_record(database, records, day, "completed")
    pending = await a_record(database, records, day, "pending")
    await partitions.expire(TODAY)
    assert await records.find(ended) is not None
    await records.cancel([pending])
    await partitions.expire(TODAY)
    assert await records.find(ended) is None


async def test_the_default_partitions_are_emptied(database: Database, records: Records) -> None:
    partitions = Partitions(database, retention_days=30)
    days = [TODAY - timedelta(days=n) for n in (3, 2, 1, 0)]
    keys = [await a_record(database, records, day, "completed") for day in days]
    busy = await a_record(database, records, days[1], "running")
    before = {key: await records.find(key) for key in (*keys, busy)}
    await partitions.ensure(TODAY)
    await partitions.settle(TODAY)
    for table in TABLES:
        # Today's may still come, and the day on which something runs has to wait.
        expected = {f"{table}_{day:%Y%m%d}" for day in (days[0], days[2])}
        assert await places(database, table) == {*expected, f"{table}_default"}
    assert {key: await records.find(key) for key in (*keys, busy)} == before
    await database.fetch("UPDATE invocations SET status = 'failed' WHERE id = %(id)s", {"id": busy})
    await partitions.settle(TODAY + timedelta(days=1))
    assert "invocations_default" not in await places(database, "invocations")
    # They are as good as others: indexes, guard, and their time to go.
    assert await records.find(keys[0]) == before[keys[0]]
    query = "UPDATE invocations SET status = 'pending' WHERE id = %(id)s"
    await database.fetch(query, {"id": keys[0]})
    assert (await records.find(keys[0])) == before[keys[0]]
    await database.fetch("DELETE FROM guard_log")
    await partitions.expire(TODAY + timedelta(days=60))
    assert all([await records.find(key) is None for key in keys])


async def test_what_is_in_use_is_left_for_the_next_time(
    database: Database, records: Records, database_url: str
) -> None:
    partitions = Partitions(database, retention_days=30)
    day = TODAY - timedelta(days=40)
    await partitions.ensure(day)
    key = await a_record(database, records, day, "completed")
    async with await psycopg.AsyncConnection.connect(database_url) as reader:
        await reader.execute("SELECT count(*) FROM invocations")
        await partitions.expire(TODAY)
        assert await records.find(key) is not None
    await partitions.expire(TODAY)
    assert await records.find(key) is None


async def test_a_drop_and_a_statement_do_not_wait_for_each_other(
    database: Database, records: Records, database_url: str
) -> None:
    partitions = Partitions(database, retention_days=30)
    day = TODAY - timedelta(days=40)
    await partitions.ensure(day)
    key = await a_record(database, records, day, "completed")
    async with await psycopg.AsyncConnection.connect(database_url) as reader:
        # Half of what a statement locks, then the drop, then the other half.
        await reader.execute("LOCK TABLE ONLY invocations IN ROW SHARE MODE")
        dropping = asyncio.create_task(partitions.expire(TODAY))

        async def it_waits() -> bool:
            query = """SELECT 1 FROM pg_locks JOIN pg_database AS d ON d.oid = database
              WHERE datname = current_database() AND locktype = 'relation' AND NOT granted"""
            return bool(await database.fetch(query))

        await eventually("the drop waits", it_waits)
        name = f"invocations_{day:%Y%m%d}"
        await reader.execute(f"LOCK TABLE {name} IN ROW SHARE MODE NOWAIT")
    await dropping
    assert await records.find(key) is None


async def test_a_service_that_serves_has_its_partitions(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations")
    await mesh.create("echo")
    for _ in range(3):
        await mesh.invoke("echo", 1)
    async with await psycopg.AsyncConnection.connect(mesh.database_url) as connection:
        cursor = await connection.execute("SELECT count(*) FROM invocations_default")
        assert await cursor.fetchone() == (0,)


def test_the_day_of_an_id() -> None:
    assert day_of(first_id(TODAY)) == TODAY
    assert day_of(UUID(int=first_id(TODAY).int - 1)) == TODAY - timedelta(days=1)
    assert day_of(first_id(datetime.now(UTC).date())) == datetime.now(UTC).date()
