"""Which records are in Redis, as PostgreSQL knows it: the column `offered_at`."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.invocations.database import Database
from services.invocations.records import COLUMNS, Record

# SKIP LOCKED: any number of replicas may do this at once, each with rows of its own.
_TAKE_DUE = f"""
WITH due AS (
  SELECT id FROM invocations
  WHERE status = 'pending' AND offered_at IS NULL AND due_at <= clock_timestamp()
  ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE invocations SET offered_at = clock_timestamp()
WHERE id IN (SELECT id FROM due) AND status = 'pending' AND offered_at IS NULL
RETURNING {COLUMNS}"""

_OFFERED = """
SELECT id, offered_at FROM invocations
WHERE status = 'pending' AND offered_at < clock_timestamp() - %(age_s)s * interval '1 second'"""

# The value seen is compared: who was offered again meanwhile stays offered.
_WITHDRAW = """
UPDATE invocations SET offered_at = NULL
FROM unnest(%(ids)s::uuid[], %(seen)s::timestamptz[]) AS gone (gone_id, seen)
WHERE id = gone_id AND offered_at = seen AND status = 'pending'"""

_WITHDRAW_ANY = """
UPDATE invocations SET offered_at = NULL, due_at = clock_timestamp() + %(wait_s)s * interval '1 s'
WHERE id = ANY(%(ids)s) AND status = 'pending'"""


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

    async def offered(self, age_s: float) -> dict[UUID, datetime]:
        """What was offered more than `age_s` ago and has not been started: id and when."""
        rows = await self._database.fetch(_OFFERED, {"age_s": age_s})
        return {row["id"]: row["offered_at"] for row in rows}

    async def withdraw(self, seen: dict[UUID, datetime]) -> int:
        """Mark as not offered what is still offered since the moment seen."""
        parameters = {"ids": list(seen), "seen": list(seen.values())}
        return await self._database.execute(_WITHDRAW, parameters)

    async def decline(self, invocation_ids: Collection[UUID], wait_s: float = 0.0) -> int:
        """Mark as not offered, whenever it was; due again after `wait_s`."""
        parameters = {"ids": list(invocation_ids), "wait_s": wait_s}
        return await self._database.execute(_WITHDRAW_ANY, parameters)
