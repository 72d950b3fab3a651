"""What was given up on: listed, and taken up again with new records."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from redis.asyncio import Redis

from services import ids
from services.errors import FunctionNotFound, RequestIdReused, VersionNotFound
from services.invocations.acceptance import Acceptance
from services.invocations.database import Database
from services.invocations.queue import QUEUE
from services.invocations.records import LISTED, Record, Records
from services.invocations.transitions import COLUMNS
from services.server import Call

DEAD = f"{QUEUE}:dead"
"""Where workers put messages that belong to no record."""
REDRIVABLE = frozenset({"failed", "timed_out", "dead_lettered"})
# Records that are taken up again at the same time.
AT_ONCE = 32

_CHOSEN = """status = %(status)s
  AND (%(function_id)s::uuid IS NULL OR function_id = %(function_id)s)
  AND (%(code)s::text IS NULL OR error ->> 'code' = %(code)s)
  AND (%(created_after)s::timestamptz IS NULL OR created_at >= %(created_after)s)
  AND (%(created_before)s::timestamptz IS NULL OR created_at < %(created_before)s)"""

_LIST = f"""
SELECT {LISTED} FROM invocations
WHERE {_CHOSEN} AND (%(before)s::uuid IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(limit)s"""

_NOT_REDRIVEN = f"""
SELECT {COLUMNS} FROM invocations AS source
WHERE {_CHOSEN} AND (%(after)s::uuid IS NULL OR id > %(after)s)
  AND NOT EXISTS (SELECT 1 FROM invocations AS again WHERE again.redrive_of = source.id)
ORDER BY id LIMIT %(limit)s"""


@dataclass(frozen=True)
class Choice:
    """Which records are meant."""

    status: str = "dead_lettered"
    function_id: UUID | None = None
    code: str | None = None
    """The name of the error's code."""
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True)
class DeadMessage:
    """A message that belongs to no record."""

    reason: str
    time: datetime
    message: str


@dataclass(frozen=True)
class Redriven:
    """What became of taking one up again."""

    source: UUID
    record: Record | None = None
    refusal: str = ""


class DeadLetters:
    """Dead letters, of records and of the queue."""

    def __init__(
        self, database: Database, records: Records, acceptance: Acceptance, redis: "Redis"
    ) -> None:
        """Read by `database` and `redis`; accept anew by `acceptance`."""
        self._database = database
        self._records = records
        self._acceptance = acceptance
        self._redis = redis

    async def page(self, choice: Choice, *, limit: int, before: UUID | None) -> list[Record]:
        """At most `limit` that are chosen, newest first, without payload and result."""
        parameters = {**vars(choice), "limit": limit, "before": before}
        rows: list[Record] = await self._database.fetch(_LIST, parameters, class_row(Record))
        return rows

    async def messages(self, limit: int) -> tuple[list[DeadMessage], int]:
        """The newest messages of no record, and how many there are."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.lrange(DEAD, 0, limit - 1)
            pipeline.llen(DEAD)
            stored, total = await pipeline.execute()
        return [_dead_message(json.loads(text)) for text in stored], total

    async def chosen(self, choice: Choice, *, limit: int, after: UUID | None) -> list[Record]:
        """At most `limit` that are chosen and were not taken up again, oldest first."""
        parameters = {**vars(choice), "limit": limit, "after": after}
        rows: list[Record] = await self._database.fetch(
            _NOT_REDRIVEN, parameters, class_row(Record)
        )
        return rows

    async def redrive_ids(
        self, sources: Sequence[UUID], *, latest_version: bool, call: Call
    ) -> list[Redriven]:
        """Take these up again; each is done or refused for itself."""
        found = {record.id: record for record in await self._records.find_all(list(sources))}
        known = [found[key] for key in sources if key in found]
        done = {one.source: one for one in await self.redrive(known, latest_version, call)}
        missing = "There is no such invocation."
        return [done.get(key) or Redriven(key, refusal=missing) for key in sources]

    async def redrive(
        self, sources: Sequence[Record], latest_version: bool, call: Call
    ) -> list[Redriven]:
        """Take these up again; each is done or refused for itself."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(source: Record) -> Redriven:
            async with places:
                return await self._redrive(source, latest_version, call)

        return list(await asyncio.gather(*map(one, sources)))

    async def _redrive(self, source: Record, latest_version: bool, call: Call) -> Redriven:
        if source.status not in REDRIVABLE:
            shown = source.status.upper()
            return Redriven(source.id, refusal=f"It is {shown}: only failures are taken up again.")
        try:
            record = await self._acceptance.accept_again(
                source, latest_version=latest_version, call=call
            )
        except (FunctionNotFound, VersionNotFound, RequestIdReused) as error:
            return Redriven(source.id, refusal=error.message)
        return Redriven(source.id, record)


def _dead_message(stored: dict[str, Any]) -> DeadMessage:
    return DeadMessage(
        reason=str(stored["reason"]),
        time=datetime.fromtimestamp(stored["time"], UTC),
        message=str(stored["message"]),
    )


def show(redriven: Redriven) -> tuple[str, str]:
    """The ids of source and new record, as callers see them."""
    made = ids.show(ids.INVOCATION, redriven.record.id) if redriven.record else ""
    return ids.show(ids.INVOCATION, redriven.source), made
