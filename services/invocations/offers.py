"""Which records are in Redis, as PostgreSQL knows it: the column `offered_at`."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.invocations.database import Database
from services.invocations.lanes import lock_lane
from services.invocations.records import Record
from services.invocations.transitions import COLUMNS

_DUE = """status = 'pending' AND offered_at IS NULL AND due_at <= clock_timestamp()
  AND expires_at > clock_timestamp()"""

# SKIP LOCKED: any number of replicas may do this at once, each with rows of its own.
_TAKE_DUE = f"""
WITH due AS (
  SELECT id FROM invocations WHERE {_DUE} AND NOT laned
  ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE invocations SET offered_at = clock_timestamp()
WHERE id IN (SELECT id FROM due) AND status = 'pending' AND offered_at IS NULL
RETURNING {COLUMNS}"""

# By who holds the lane's lock: what is offered and what runs leave the rest of its room.
_TAKE_DUE_IN_LANE = f"""
WITH due AS (
  SELECT id FROM invocations WHERE function_id = %(function_id)s AND {_DUE} AND laned
  ORDER BY due_at LIMIT greatest(0, least(%(limit)s, (
    SELECT max_concurrency - (SELECT count(*) FROM invocations
      WHERE function_id = %(function_id)s AND laned AND offered_at IS NOT NULL)
    FROM lanes WHERE function_id = %(function_id)s))) FOR UPDATE SKIP LOCKED)
UPDATE invocations SET offered_at = clock_timestamp()
WHERE id IN (SELECT id FROM due) AND status = 'pending' AND offered_at IS NULL
RETURNING {COLUMNS}"""

_OFFERED = """
SELECT id, offered_at FROM invocations
WHERE status = 'pending' AND offered_at < clock_timestamp() - %(age_s)s * interval '1 second'"""

# The value seen is compared: who was offered again meanwhile stays offered.
_WITHDRAW = """
WITH held AS (SELECT id AS held_id FROM invocations
  WHERE id = ANY(%(ids)s::uuid[]) AND status = 'pending' ORDER BY id FOR UPDATE)
UPDATE invocations SET offered_at = NULL
FROM held, unnest(%(ids)s::uuid[], %(seen)s::timestamptz[]) AS gone (gone_id, seen)
WHERE id = held_id AND id = gone_id AND offered_at = seen AND status = 'pending'"""

_WITHDRAW_ANY = """
WITH held AS (SELECT id AS held_id FROM invocations
  WHERE id = ANY(%(ids)s::uuid[]) AND status = 'pending' ORDER BY id FOR UPDATE)
UPDATE invocations SET offered_at = NULL FROM held WHERE id = held_id AND status = 'pending'"""

_DECLINE = """
UPDATE invocations SET offered_at = NULL, declines = declines + 1,
  due_at = clock_timestamp() + least(%(most_s)s, %(wait_s)s * 2 ^ least(declines, 20))
    * interval '1 second'
WHERE id = %(id)s AND status = 'pending' AND offered_at IS NOT NULL"""


class OfferBook:
    """The column `offered_at` of the records."""

    def __init__(self, database: Database) -> None:
        """Work on `database`."""
        self._database = database

    async def take_due(self, limit: int) -> list[Record]:
        """Mark up to `limit` due records as offered, longest due first, and return them."""
        parameters = {"limit": limit}
        rows = await self._database.fetch(_TAKE_DUE, parameters, class_row(Record))
        return sorted(rows, key=lambda record: record.due_at)

    async def take_due_in_lane(self, function_id: UUID, limit: int) -> list[Record]:
        """The same for a function with a lane, as many as it has room for."""
        parameters = {"function_id": function_id, "limit": limit}
        async with self._database.session() as connection, connection.transaction():
            await lock_lane(connection, function_id)
            async with connection.cursor(row_factory=class_row(Record)) as cursor:
                await cursor.execute(_TAKE_DUE_IN_LANE.encode(), parameters)
                rows = await cursor.fetchall()
        return sorted(rows, key=lambda record: record.due_at)

    async def offered(self, age_s: float) -> dict[UUID, datetime]:
        """What was offered more than `age_s` ago and has not been started: id and when."""
        rows = await self._database.fetch(_OFFERED, {"age_s": age_s})
        return {row["id"]: row["offered_at"] for row in rows}

    async def withdraw(self, seen: dict[UUID, datetime]) -> int:
        """Mark as not offered what is still offered since the moment seen."""
        parameters = {"ids": list(seen), "seen": list(seen.values())}
        return await self._database.execute(_WITHDRAW, parameters)

    async def take_back(self, invocation_ids: Collection[UUID]) -> int:
        """Mark as not offered, whenever it was; due as before."""
        return await self._database.execute(_WITHDRAW_ANY, {"ids": list(invocation_ids)})

    async def decline(self, invocation_id: UUID, wait_s: float, most_s: float) -> int:
        """Mark as not offered what nobody could run; due after `wait_s`, doubling each time."""
        parameters = {"id": invocation_id, "wait_s": wait_s, "most_s": most_s}
        return await self._database.execute(_DECLINE, parameters)
