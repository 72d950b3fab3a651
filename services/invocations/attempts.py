"""The starts of an invocation that are over, and verdicts that came too late."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from services.invocations.database import Database

VERDICTS = frozenset({"completed", "failed", "timed_out"})

_OF = """SELECT attempt, outcome, worker_id, worker_boot, due_at, offered_at, started_at, ended_at,
  error, metrics, runtime_image FROM attempts
WHERE invocation_id = %(id)s ORDER BY attempt"""

_STALE = """
INSERT INTO stale_verdicts (invocation_id, attempt, worker_boot, status, result, error, metrics,
  reported_at)
SELECT id, %(attempt)s, %(boot)s, %(status)s, %(result)s, %(error)s::jsonb, %(metrics)s::jsonb,
  clock_timestamp()
FROM invocations WHERE id = %(id)s AND attempt >= %(attempt)s
ON CONFLICT DO NOTHING"""


@dataclass(frozen=True)
class Attempt:
    """One row of `attempts`."""

    attempt: int
    outcome: str
    worker_id: UUID | None
    worker_boot: UUID | None
    due_at: datetime | None
    offered_at: datetime | None
    started_at: datetime | None
    ended_at: datetime
    error: dict[str, Any] | None
    metrics: dict[str, Any] | None
    runtime_image: str | None


class Attempts:
    """The tables `attempts` and `stale_verdicts`."""

    def __init__(self, database: Database) -> None:
        """Work on `database`."""
        self._database = database

    async def of(self, invocation_id: UUID) -> list[Attempt]:
        """The starts of an invocation that are over, in order."""
        rows: list[Attempt] = await self._database.fetch(
            _OF, {"id": invocation_id}, class_row(Attempt)
        )
        return rows

    async def was_told(self, invocation_id: UUID, attempt: int, boot: UUID) -> bool:
        """Whether that boot's verdict of this attempt is the recorded one."""
        return any(
            row.attempt == attempt and row.worker_boot == boot and row.outcome in VERDICTS
            for row in await self.of(invocation_id)
        )

    async def keep_stale(
        self,
        invocation_id: UUID,
        attempt: int,
        boot: UUID,
        *,
        status: str,
        result: bytes | None,
        error: dict[str, Any] | None,
        metrics: dict[str, Any] | None,
    ) -> None:
        """Keep a verdict that changed nothing, once, beside the history."""
        parameters = {
            "id": invocation_id,
            "attempt": attempt,
            "boot": boot,
            "status": status,
            "result": result,
            "error": None if error is None else json.dumps(error),
            "metrics": json.dumps(metrics or {}),
        }
        await self._database.fetch(_STALE, parameters)
