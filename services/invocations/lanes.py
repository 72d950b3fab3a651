"""Lanes: functions that are paused, or that run only so many invocations at once.

Most functions have none, and their invocations flow. Those of a function with a
lane are marked, and the feeder offers them lane by lane: as many as there is room
for, counted under a lock of the lane. The grant counts again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from services.invocations.database import Database

# Any number, as long as all replicas use the same one.
_LOCKS = 0x6C61_6E65  # "lane"

_LANES = "SELECT function_id, max_concurrency, paused_at FROM lanes ORDER BY function_id"

_SET_PAUSED = """
INSERT INTO lanes (function_id, paused_at) VALUES (%(id)s, clock_timestamp())
ON CONFLICT (function_id) DO UPDATE SET paused_at = coalesce(lanes.paused_at, excluded.paused_at)"""

# What was accepted before its function had a lane.
_ENTER = """
UPDATE invocations SET laned = true
WHERE id IN (SELECT id FROM invocations WHERE function_id = %(id)s
  AND status IN ('pending', 'running') AND NOT laned ORDER BY id FOR UPDATE)"""

_LEAVE = """
WITH open AS (DELETE FROM lanes WHERE function_id = %(id)s AND paused_at IS NULL
  AND max_concurrency IS NULL RETURNING function_id)
UPDATE invocations SET laned = false
WHERE id IN (SELECT id FROM invocations WHERE function_id IN (SELECT function_id FROM open)
  AND status IN ('pending', 'running') AND laned ORDER BY id FOR UPDATE)"""

# Accepted while their lane was closing.
_STRAYED = """
UPDATE invocations SET laned = false
WHERE id IN (SELECT id FROM invocations WHERE status = 'pending' AND offered_at IS NULL
  AND laned AND NOT EXISTS (SELECT 1 FROM lanes WHERE lanes.function_id = invocations.function_id)
  ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED)"""


@dataclass(frozen=True)
class Lane:
    """One row of `lanes`."""

    function_id: UUID
    max_concurrency: int | None
    """None: no limit."""
    paused_at: datetime | None


class Lanes:
    """The table `lanes`."""

    def __init__(self, database: Database) -> None:
        """Work on `database`."""
        self._database = database

    async def all(self) -> list[Lane]:
        """The functions that have one."""
        rows: list[Lane] = await self._database.fetch(_LANES, None, class_row(Lane))
        return rows

    async def of(self, function_id: UUID) -> Lane:
        """The lane of a function; one that holds nothing back where it has none."""
        query = "SELECT * FROM lanes WHERE function_id = %(id)s"
        rows = await self._database.fetch(query, {"id": function_id}, class_row(Lane))
        return rows[0] if rows else Lane(function_id, None, None)

    async def pause(self, function_id: UUID) -> None:
        """Start nothing of this function, until it is resumed; what is accepted waits."""
        await self._database.fetch(_SET_PAUSED, {"id": function_id})
        await self._database.fetch(_ENTER, {"id": function_id})

    async def resume(self, function_id: UUID) -> None:
        """Start its invocations again."""
        query = "UPDATE lanes SET paused_at = NULL WHERE function_id = %(id)s"
        await self._database.execute(query, {"id": function_id})
        await self._database.fetch(_LEAVE, {"id": function_id})

    async def set_limit(self, function_id: UUID, most: int | None) -> None:
        """Let `most` invocations of a function run at once; None: any number."""
        query = """INSERT INTO lanes (function_id, max_concurrency) VALUES (%(id)s, %(most)s)
          ON CONFLICT (function_id) DO UPDATE SET max_concurrency = excluded.max_concurrency"""
        await self._database.fetch(query, {"id": function_id, "most": most})
        if most is None:
            await self._database.fetch(_LEAVE, {"id": function_id})
        else:
            await self._database.fetch(_ENTER, {"id": function_id})

    async def set_limits(self, limits: Mapping[UUID, int]) -> None:
        """Make the limits those of `limits`, and no others."""
        known = {
            lane.function_id: lane.max_concurrency
            for lane in await self.all()
            if lane.max_concurrency is not None
        }
        for function_id in known.keys() | limits.keys():
            if known.get(function_id) != limits.get(function_id):
                await self.set_limit(function_id, limits.get(function_id))

    async def gather_strays(self) -> int:
        """Let what is marked for a lane that is gone flow again."""
        return await self._database.execute(_STRAYED)


async def lock_lane(connection: "psycopg.AsyncConnection[Any]", function_id: UUID) -> None:
    """Hold a lane's lock until the transaction ends."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_LOCKS, str(function_id)]
    )
