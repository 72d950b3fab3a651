"""Partitions of what grows with history: one a day, made ahead and dropped when it is old.

The tables are partitioned by the invocation's UUIDv7, whose first 48 bits are the
milliseconds since 1970, so a day is a range of ids. A row that finds no partition
goes to the default one; nothing is refused for that, and when all of its day has ended
it gets a partition after all.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import structlog
from psycopg import sql

from services.invocations.database import UNAVAILABLE, Database
from services.storage import StorageUnavailable

TABLES = ("invocations", "invocation_logs", "attempts", "stale_verdicts")
KEY = "invocation_id"
KEYS = {"invocations": "id"}
DAYS_AHEAD = 7
CHECK_S = 3600.0
# Statements of others queue behind one that waits for a table: it does not wait long.
LOCK_S = 2
# Any number, as long as all replicas use the same one.
ADVISORY_LOCK = 0x7061_7274  # "part"

Connection = psycopg.AsyncConnection[Any]

log = structlog.get_logger()

CLOCKS = timedelta(hours=1)
"""How far an id's time and `created_at` may be apart: they are of two clocks."""


def first_id(day: date) -> UUID:
    """The least UUIDv7 of a day, UTC."""
    return id_at(datetime(day.year, day.month, day.day, tzinfo=UTC))


def day_of(key: UUID) -> date:
    """The day of a UUIDv7, UTC."""
    return datetime.fromtimestamp((key.int >> 80) / 1000, UTC).date()


def id_at(moment: datetime, later: timedelta = timedelta()) -> UUID:
    """The least UUIDv7 so much later than a moment; where none is so, the nearest to it."""
    milliseconds = int((moment.timestamp() + later.total_seconds()) * 1000)
    return UUID(int=max(0, min(milliseconds, 2**48 - 1)) << 80)


class Days:
    """The days that have their partition, as this replica last saw them."""

    def __init__(self) -> None:
        """None."""
        self.made: frozenset[date] = frozenset()

    def table(self, keys: Sequence[UUID]) -> str:
        """The partition of `invocations` that `keys`, in order, are in; or the whole table."""
        try:
            day = day_of(keys[0])
            if day in self.made and day_of(keys[-1]) == day:
                return partition("invocations", day)
        except (ValueError, OverflowError):
            pass  # Not an id of ours: there is no such year.
        return "invocations"


class Partitions:
    """Makes partitions ahead of time, and drops them when their time is over."""

    def __init__(
        self,
        database: Database,
        *,
        retention_days: int,
        on_drop: Callable[[date], Awaitable[None]] | None = None,
        days: Days | None = None,
    ) -> None:
        """Work on `database`; keep what was accepted within `retention_days`.

        `on_drop` is called when a day is gone, to remove what was beside its records.
        `days` is told which there are.
        """
        self._database = database
        self._days = days or Days()
        self._on_drop = on_drop
        self._retention = timedelta(days=retention_days)

    async def run(self) -> None:
        """Make what is missing and drop what is old, once an hour, until cancelled."""
        while True:
            try:
                today = datetime.now(UTC).date()
                await self.ensure(today)
                await self.settle(today)
                await self.expire(today)
            except UNAVAILABLE as error:
                log.warning("looking after partitions has to wait", error=str(error))
                await asyncio.sleep(1)
                continue
            await asyncio.sleep(CHECK_S)

    async def ensure(self, today: date) -> None:
        """Make the partitions of `today` and the days after it."""
        async with self._alone() as connection:
            for offset in range(DAYS_AHEAD + 1):
                for table in TABLES:
                    await self._make(connection, table, today + timedelta(days=offset))
            self._days.made = frozenset(await self._made_days(connection, "invocations"))

    async def settle(self, today: date) -> None:
        """Give the days before `today` that are in a default partition ones of their own."""
        async with self._alone() as connection:
            for table in TABLES:
                for day in await self._days_in_default(connection, table, today):
                    await self._try(connection, self._move, table, day)

    async def expire(self, today: date) -> None:
        """Drop the days that are too old and have nothing unfinished."""
        async with self._alone() as connection:
            days = await self._made_days(connection)
            for day in sorted(day for day in days if day < today - self._retention):
                await self._try(connection, self._drop, day)
                if self._on_drop is not None and day not in await self._made_days(connection):
                    try:
                        await self._on_drop(day)
                    except StorageUnavailable as error:
                        log.warning("what was beside a day is left", day=str(day), error=str(error))

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Connection]:
        """A connection, while no other replica does the same."""
        async with self._database.session() as connection:
            await connection.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
            try:
                yield connection
            finally:
                await connection.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])

    async def _try(
        self, connection: Connection, change: Callable[..., Awaitable[None]], *what: Any
    ) -> None:
        """Change tables in one transaction, or leave it for the next time."""
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_S}s'")
                await change(connection, *what)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            # Everybody else would have to wait behind this one.
            log.warning("partitions are in use; will try again", change=change.__name__)

    async def _make(self, connection: Connection, table: str, day: date) -> None:
        name = partition(table, day)
        cursor = await connection.execute("SELECT to_regclass(%s)", [name])
        if await cursor.fetchone() != (None,):
            return
        query = sql.SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})")
        try:
            await connection.execute(
                query.format(sql.Identifier(name), sql.Identifier(table), *_bounds(day))
            )
        except psycopg.errors.CheckViolation:
            # Rows of that day are in the default partition already: `settle` moves them.
            log.warning("a partition could not be made: the default one has its rows", name=name)

    async def _days_in_default(self, connection: Connection, table: str, today: date) -> list[date]:
        """Days before `today` of which the default partition has rows, and nothing runs."""
        name, key = sql.Identifier(f"{table}_default"), sql.Identifier(KEYS.get(table, KEY))
        days: list[date] = []
        least = UUID(int=0)
        while True:
            query = sql.SQL("SELECT {1} FROM {0} WHERE {1} >= %s ORDER BY {1} LIMIT 1")
            cursor = await connection.execute(query.format(name, key), [least])
            row = await cursor.fetchone()
            if row is None or (day := day_of(row[0])) >= today:
                return days
            if not await _has_unfinished(connection, day):
                days.append(day)
            least = first_id(day + timedelta(days=1))

    async def _move(self, connection: Connection, table: str, day: date) -> None:
        default, parent = sql.Identifier(f"{table}_default"), sql.Identifier(table)
        name, key = sql.Identifier(partition(table, day)), sql.Identifier(KEYS.get(table, KEY))
        start, end = _bounds(day)
        for step in (
            "LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE",
            "CREATE TABLE {name} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
            """WITH moved AS (DELETE FROM {default} WHERE {key} >= {start} AND {key} < {end}
              RETURNING *) INSERT INTO {name} SELECT * FROM moved""",
            "ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end})",
        ):
            names = {"default": default, "parent": parent, "name": name, "key": key}
            await connection.execute(sql.SQL(step).format(**names, start=start, end=end))
        log.info("a day has its partition now", table=table, day=str(day))

    async def _drop(self, connection: Connection, day: date) -> None:
        tables = [partition(table, day) for table in TABLES]
        invocations = sql.Identifier(tables[0])
        cursor = await connection.execute("SELECT to_regclass(%s)", [tables[0]])
        if await cursor.fetchone() != (None,):
            # Nobody starts anything of that day between the look and the drop. What all
            # days are in comes first, as it does in every statement; the drop locks it too,
            # and the other way round it and a statement would wait for each other.
            lock = sql.SQL("LOCK TABLE ONLY invocations, {} IN ACCESS EXCLUSIVE MODE")
            await connection.execute(lock.format(invocations))
        if await _has_unfinished(connection, day):
            log.warning("a day that is over is kept: it has unfinished records", day=str(day))
            return
        for name in tables:
            drop = sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name))
            await connection.execute(drop)
        log.info("dropped a day of history", day=str(day))

    async def _made_days(self, connection: Connection, *tables: str) -> set[date]:
        query = """SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
          WHERE inhparent = ANY(%s::regclass[])"""
        cursor = await connection.execute(query, [list(tables or TABLES)])
        names = [str(row[0]).rpartition("_")[2] for row in await cursor.fetchall()]
        return {datetime.strptime(n, "%Y%m%d").date() for n in names if n.isdecimal()}


def partition(table: str, day: date) -> str:
    """The name of a day's partition."""
    return f"{table}_{day:%Y%m%d}"


def _bounds(day: date) -> tuple[str, str]:
    return str(first_id(day)), str(first_id(day + timedelta(days=1)))


async def _has_unfinished(connection: Connection, day: date) -> bool:
    query = """SELECT EXISTS (SELECT 1 FROM invocations WHERE id >= %s AND id < %s
      AND status IN ('pending', 'running'))"""
    cursor = await connection.execute(query, _bounds(day))
    return await cursor.fetchone() == (True,)
