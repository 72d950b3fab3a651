"""The records: what an invocation's row goes through, each step one statement.

    pending --grant--> running --verdict--> completed | failed | timed_out
    running --loss--> pending            while a start is left
                      dead_lettered      otherwise

`attempt` decides: it is raised when a start is granted, and a verdict counts only
for the attempt and the boot that hold the grant. Terminal states are in no
statement's condition, so they never change.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from services.invocations.database import Database

OnChange: TypeAlias = Callable[[Iterable[UUID]], None]
"""Told, after the commit, the ids of what has changed."""

TERMINAL = frozenset({"completed", "failed", "timed_out", "dead_lettered"})

# A start in reserve for a lost worker, beside the one that everybody has.
DEFAULT_ATTEMPT_LIMIT = 2


def no_change(_: Iterable[UUID]) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Record:
    """One row of `invocations`, without what only the queue needs."""

    id: UUID
    function_id: UUID
    function_name: str
    function_version: int
    status: str
    payload: bytes
    payload_type: str
    timeout_ms: int
    labels: dict[str, str]
    attempt: int
    due_at: datetime
    worker_id: UUID | None
    grant_id: UUID | None
    result: bytes | None
    result_type: str | None
    error: dict[str, Any] | None
    metrics: dict[str, Any] | None
    runtime_image: str | None
    logs_truncated: bool
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether there is a verdict, which will not change."""
        return self.status in TERMINAL


@dataclass(frozen=True)
class Ending:
    """How an execution ended, as the row keeps it."""

    status: str
    result: bytes | None = None
    result_type: str | None = None
    error: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    runtime_image: str | None = None
    logs_truncated: bool = False


COLUMNS = """id, function_id, function_name, function_version, status, payload, payload_type,
  timeout_ms, labels, attempt, due_at, worker_id, grant_id, result, result_type, error, metrics,
  runtime_image, logs_truncated, created_at, started_at, completed_at"""
# Lists leave out what may be large.
_LISTED = """id, function_id, function_name, function_version, status, ''::bytea AS payload,
  payload_type, timeout_ms, labels, attempt, due_at, worker_id, grant_id, NULL::bytea AS result,
  result_type, error, metrics, runtime_image, logs_truncated, created_at, started_at,
  completed_at"""

# What a watcher is shown.
_STATE = _LISTED.replace("NULL::bytea AS result", "result")

_ACCEPT = f"""
INSERT INTO invocations (id, function_id, function_name, function_version, status, payload,
  payload_type, timeout_ms, labels, attempt_limit, created_at, due_at, offered_at)
SELECT %(id)s, %(function_id)s, %(function_name)s, %(function_version)s, 'pending', %(payload)s,
  %(payload_type)s, %(timeout_ms)s, %(labels)s, %(attempt_limit)s, now, now,
  -- Nobody pushes past what has waited longer: the feeder offers in order.
  CASE WHEN NOT %(offer)s OR EXISTS (SELECT 1 FROM invocations
    WHERE status = 'pending' AND offered_at IS NULL AND due_at <= now) THEN NULL ELSE now END
FROM clock_timestamp() AS now
ON CONFLICT (id) DO NOTHING
RETURNING {COLUMNS}, offered_at IS NOT NULL AS offered"""

_GRANT = f"""
UPDATE invocations SET status = 'running', attempt = attempt + 1, worker_id = %(worker)s,
  worker_boot = %(boot)s, grant_id = %(grant)s, started_at = clock_timestamp()
WHERE id = %(id)s AND status = 'pending' AND due_at <= clock_timestamp()
  AND attempt < attempt_limit
  AND EXISTS (SELECT 1 FROM workers WHERE boot_id = %(boot)s AND lost_at IS NULL)
RETURNING {COLUMNS}"""

_GRANTED_BEFORE = f"""
SELECT {COLUMNS} FROM invocations
WHERE id = %(id)s AND status = 'running' AND worker_boot = %(boot)s AND grant_id = %(grant)s"""

# 'pending' too: after the end of a lease a late verdict counts until the next grant.
_CONCLUDE = f"""
UPDATE invocations SET status = %(status)s, result = %(result)s, result_type = %(result_type)s,
  error = %(error)s, runtime_image = %(runtime_image)s, logs_truncated = %(logs_truncated)s,
  metrics = %(metrics)s || jsonb_build_object(
    'queued_s', extract(epoch FROM started_at - due_at),
    'duration_s', extract(epoch FROM now - created_at)),
  completed_at = now, worker_boot = NULL, offered_at = NULL
FROM clock_timestamp() AS now
WHERE id = %(id)s AND attempt = %(attempt)s AND worker_boot = %(boot)s
  AND status IN ('running', 'pending')
RETURNING {COLUMNS}"""

_LOSE = f"""
UPDATE invocations SET losses = losses + 1, offered_at = NULL,
  status = CASE WHEN attempt < attempt_limit THEN 'pending' ELSE 'dead_lettered' END,
  due_at = CASE WHEN attempt < attempt_limit
    THEN now + %(backoff_s)s * 2 ^ losses * interval '1 second' ELSE due_at END,
  completed_at = CASE WHEN attempt < attempt_limit THEN NULL ELSE now END,
  error = CASE WHEN attempt < attempt_limit THEN NULL ELSE %(error)s END,
  metrics = CASE WHEN attempt < attempt_limit THEN NULL
    ELSE jsonb_build_object('duration_s', extract(epoch FROM now - created_at)) END
FROM clock_timestamp() AS now
WHERE status = 'running' AND worker_boot = %(boot)s AND id = ANY(%(ids)s)
  AND (%(attempt)s::int IS NULL OR attempt = %(attempt)s)
RETURNING {COLUMNS}"""


class Records:
    """The rows of `invocations`."""

    def __init__(
        self, database: Database, *, lost_backoff_s: float = 1.0, on_change: OnChange = no_change
    ) -> None:
        """Work on `database`; offer what was lost again after `lost_backoff_s`, doubling.

        `on_change` is called with the ids of the records whose status has changed.
        """
        self._database = database
        self._on_change = on_change
        self._lost_backoff_s = lost_backoff_s

    async def accept(
        self,
        invocation_id: UUID,
        *,
        function_id: UUID,
        function_name: str,
        function_version: int,
        timeout_ms: int,
        payload: bytes,
        labels: dict[str, str],
        offer: bool,
    ) -> tuple[Record, bool]:
        """Commit a new record. Also says whether the caller is to offer it now.

        With `offer` false, or while older ones wait for the feeder, it waits too.
        """
        parameters = {
            "id": invocation_id,
            "function_id": function_id,
            "function_name": function_name,
            "function_version": function_version,
            "timeout_ms": timeout_ms,
            "payload": payload,
            "payload_type": "application/json",
            "labels": Jsonb(labels),
            "attempt_limit": DEFAULT_ATTEMPT_LIMIT,
            "offer": offer,
        }
        rows = await self._database.fetch(_ACCEPT, parameters)
        if not rows:
            # The first try was committed and its answer lost. Whether it was to be
            # offered is not known any more; recovery finds out.
            record = await self.find(invocation_id)
            assert record is not None
            return record, False
        row = rows[0]
        offered = row.pop("offered")
        return Record(**row), offered

    async def find(self, invocation_id: UUID) -> Record | None:
        """One record, or None."""
        found = await self.find_all([invocation_id])
        return found[0] if found else None

    async def find_all(self, invocation_ids: list[UUID]) -> list[Record]:
        """Those of `invocation_ids` that exist, in no order."""
        query = f"SELECT {COLUMNS} FROM invocations WHERE id = ANY(%(ids)s)"
        return await self._records(query, {"ids": invocation_ids})

    async def states(self, invocation_ids: Iterable[UUID]) -> list[Record]:
        """Those of `invocation_ids` that exist, in no order and without payload."""
        query = f"SELECT {_STATE} FROM invocations WHERE id = ANY(%(ids)s)"
        return await self._records(query, {"ids": list(invocation_ids)})

    async def list_page(
        self,
        *,
        limit: int,
        before: UUID | None = None,
        function_id: UUID | None = None,
        status: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> list[Record]:
        """At most `limit` records, newest first, without payload and result."""
        conditions = ["true"]
        if before is not None:
            conditions.append("id < %(before)s")
        if function_id is not None:
            conditions.append("function_id = %(function_id)s")
        if status is not None:
            conditions.append("status = %(status)s")
        if created_after is not None:
            conditions.append("created_at >= %(created_after)s")
        if created_before is not None:
            conditions.append("created_at < %(created_before)s")
        query = f"""SELECT {_LISTED} FROM invocations WHERE {" AND ".join(conditions)}
          ORDER BY id DESC LIMIT %(limit)s"""
        parameters = {
            "before": before,
            "function_id": function_id,
            "status": status,
            "created_after": created_after,
            "created_before": created_before,
            "limit": limit,
        }
        return await self._records(query, parameters)

    async def grant(
        self, invocation_id: UUID, worker: UUID, boot: UUID, grant: UUID
    ) -> Record | None:
        """Grant one start to `boot`. None: it may not start it.

        Asked again with the same `grant` id, the answer is the same.
        """
        parameters = {"id": invocation_id, "worker": worker, "boot": boot, "grant": grant}
        rows = await self._changed(_GRANT, parameters)
        if not rows:
            rows = await self._records(_GRANTED_BEFORE, parameters)
        return rows[0] if rows else None

    async def conclude(
        self, invocation_id: UUID, attempt: int, boot: UUID, ending: Ending
    ) -> Record | None:
        """Write the verdict of an attempt that `boot` holds. None: it holds it no more."""
        parameters = {
            "id": invocation_id,
            "attempt": attempt,
            "boot": boot,
            "status": ending.status,
            "result": ending.result,
            "result_type": ending.result_type,
            "error": None if ending.error is None else Jsonb(ending.error),
            "metrics": Jsonb(ending.metrics or {}),
            "runtime_image": ending.runtime_image,
            "logs_truncated": ending.logs_truncated,
        }
        rows = await self._changed(_CONCLUDE, parameters)
        return rows[0] if rows else None

    async def held_by(self, boot: UUID) -> list[UUID]:
        """What is running on `boot`, as far as the records say."""
        query = "SELECT id FROM invocations WHERE status = 'running' AND worker_boot = %(boot)s"
        return [row["id"] for row in await self._database.fetch(query, {"boot": boot})]

    async def overdue(self, overtime_s: float) -> list[tuple[UUID, UUID, int]]:
        """Id, boot and attempt of what is still running so long after its timeout."""
        query = """SELECT id, worker_boot, attempt FROM invocations WHERE status = 'running'
          AND started_at + (timeout_ms / 1000.0 + %(overtime_s)s) * interval '1 second'
            < clock_timestamp()"""
        rows = await self._database.fetch(query, {"overtime_s": overtime_s})
        return [(row["id"], row["worker_boot"], row["attempt"]) for row in rows]

    async def lose(
        self,
        boot: UUID,
        invocation_ids: list[UUID],
        error: dict[str, Any],
        attempt: int | None = None,
    ) -> list[Record]:
        """Take executions from `boot`: pending again, or dead-lettered with `error`."""
        parameters = {
            "boot": boot,
            "ids": invocation_ids,
            "attempt": attempt,
            "error": Jsonb(error),
            "backoff_s": self._lost_backoff_s,
        }
        return await self._changed(_LOSE, parameters)

    async def _changed(self, query: Any, parameters: dict[str, Any]) -> list[Record]:
        rows = await self._records(query, parameters)
        self._on_change([record.id for record in rows])
        return rows

    async def _records(self, query: Any, parameters: dict[str, Any]) -> list[Record]:
        rows: list[Record] = await self._database.fetch(query, parameters, class_row(Record))
        return rows
