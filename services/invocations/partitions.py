"""Partitions of what grows with history: one a day, made ahead.

The tables are partitioned by the invocation's UUIDv7, whose first 48 bits are the
milliseconds since 1970, so a day is a range of ids. A row that finds no partition
goes to the default one; nothing is refused for that.
"""

import asyncio
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import psycopg
import structlog
from psycopg import sql

from services.invocations.database import UNAVAILABLE, Database

TABLES = ("invocations", "invocation_logs", "attempts", "stale_verdicts")
DAYS_AHEAD = 7
CHECK_S = 3600.0
# Any number, as long as all replicas use the same one.
ADVISORY_LOCK = 0x7061_7274  # "part"

log = structlog.get_logger()


CLOCKS = timedelta(hours=1)
"""How far an id's time and `created_at` may be apart: they are of two clocks."""


def first_id(day: date) -> UUID:
    """The least UUIDv7 of a day, UTC."""
    return id_at(datetime(day.year, day.month, day.day, tzinfo=UTC))


def id_at(moment: datetime, later: timedelta = timedelta()) -> UUID:
    """The least UUIDv7 so much later than a moment; where none is so, the nearest to it."""
    milliseconds = int((moment.timestamp() + later.total_seconds()) * 1000)
    return UUID(int=max(0, min(milliseconds, 2**48 - 1)) << 80)


class Partitions:
    """Makes partitions ahead of time."""

    def __init__(self, database: Database) -> None:
        """Work on `database`."""
        self._database = database

    async def run(self) -> None:
        """Make what is missing, once an hour, until cancelled."""
        while True:
            try:
                await self.ensure(datetime.now(UTC).date())
            except UNAVAILABLE as error:
                log.warning("making partitions has to wait", error=str(error))
                await asyncio.sleep(1)
                continue
            await asyncio.sleep(CHECK_S)

    async def ensure(self, today: date) -> None:
        """Make the partitions of `today` and the days after it."""
        async with self._database.session() as connection:
            await connection.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
            try:
                for offset in range(DAYS_AHEAD + 1):
                    for table in TABLES:
                        await self._make(connection, table, today + timedelta(days=offset))
            finally:
                await connection.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])

    async def _make(
        self, connection: "psycopg.AsyncConnection[object]", table: str, day: date
    ) -> None:
        name = f"{table}_{day:%Y%m%d}"
        cursor = await connection.execute("SELECT to_regclass(%s)", [name])
        row = await cursor.fetchone()
        if row != (None,):
            return
        query = sql.SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(name),
            sql.Identifier(table),
            str(first_id(day)),
            str(first_id(day + timedelta(days=1))),
        )
        try:
            await connection.execute(query)
        except psycopg.errors.CheckViolation:
            # Rows of that day are in the default partition already: they stay there.
            log.warning("a partition could not be made: the default one has its rows", name=name)
