"""Reading many records: pages of what was accepted, newest first.

The table is partitioned by id, which is to say by time, and each index begins with
what is asked for and ends with the id: a page costs what is on it, however much
history there is (docs/performance.md).
"""

from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.invocations.database import Database
from services.invocations.filters import Where
from services.invocations.partitions import CLOCKS, id_at
from services.invocations.records import LISTED, Record


class History:
    """The rows of `invocations`, many at a time."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database

    async def page(
        self,
        *,
        limit: int,
        before: UUID | None = None,
        function_id: UUID | None = None,
        status: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        where: Where = Where(),  # noqa: B008 - frozen
    ) -> list[Record]:
        """At most `limit` records, newest first, without payload and result."""
        conditions = [f"({where.sql})"]
        values = {**where.values, "limit": limit}
        if before is not None:
            conditions.append("id < %(before)s")
            values["before"] = before
        if function_id is not None:
            conditions.append("function_id = %(function_id)s")
            values["function_id"] = function_id
        if status is not None:
            conditions.append("status = %(status)s")
            values["status"] = status
        if created_after is not None:
            conditions.append("created_at >= %(after)s AND id >= %(least)s")
            values |= {"after": created_after, "least": id_at(created_after, -CLOCKS)}
        if created_before is not None:
            conditions.append("created_at < %(until)s AND id < %(most)s")
            values |= {"until": created_before, "most": id_at(created_before, CLOCKS)}
        query = f"""SELECT {LISTED} FROM invocations WHERE {" AND ".join(conditions)}
          ORDER BY id DESC LIMIT %(limit)s"""
        # Planned for its values: which index is the best depends on them.
        return await self._database.fetch(query, values, class_row(Record), prepare=False)
