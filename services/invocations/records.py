"""The records: what an invocation's row goes through.

`attempt` decides: it is raised when a start is granted, and a verdict counts only
for the attempt and the boot that hold the grant. The statements are in
`transitions`; what comes at the same time goes in one of them (`batches`).
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from services import ids
from services.errors import FieldViolation, RequestIdReused
from services.invocations import arrays, transitions
from services.invocations.attempts import Attempts
from services.invocations.batches import Batch
from services.invocations.database import Database
from services.invocations.lanes import lock_lane
from services.invocations.partitions import Days
from services.invocations.transitions import COLUMNS

OnChange: TypeAlias = Callable[[Iterable[UUID]], None]
"""Told, after the commit, the ids of what has changed."""

TERMINAL = frozenset({"completed", "failed", "timed_out", "dead_lettered", "cancelled"})

DEFAULT_MAX_AGE_S = 6 * 3600.0


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
    request_id: str | None
    losses: int
    laned: bool
    redrive_of: UUID | None
    replay_of: UUID | None
    schedule_id: UUID | None
    payload_blob: dict[str, Any] | None
    """Of a payload that the row does not hold itself: `Blob.of` reads it."""
    result_blob: dict[str, Any] | None

    @property
    def ended(self) -> bool:
        """Whether there is a verdict, which will not change."""
        return self.status in TERMINAL

    @property
    def alone(self) -> bool:
        """Whether it is to run with nothing beside it: a worker was lost that ran it."""
        return self.losses > 0


@dataclass(frozen=True)
class Arrival:
    """What is to be accepted."""

    id: UUID
    function_id: UUID
    function_name: str
    function_version: int
    timeout_ms: int
    payload: bytes
    payload_type: str = "application/json"
    labels: dict[str, str] = field(default_factory=dict)
    retry_policy: dict[str, Any] | None = None
    """As `retry.to_row` makes it; None: its own failures are not retried."""
    max_age_s: float = DEFAULT_MAX_AGE_S
    not_before: datetime | None = None
    request_id: str | None = None
    digest: bytes | None = None
    """Of what was asked for; the same request id with another one is refused."""
    redrive_of: UUID | None = None
    replay_of: UUID | None = None
    schedule_id: UUID | None = None
    payload_blob: dict[str, Any] | None = None
    """Instead of `payload`, where that is too large for the row."""
    offer: bool = True
    held_s: float = 0.0
    """How long ago it was asked for."""
    worker: UUID | None = None
    boot: UUID | None = None
    """Granted to this at once, where it may be, under the id `grant`."""
    grant: UUID | None = None

    @property
    def max_attempts(self) -> int:
        """Starts in all, beside the one in reserve."""
        return int(self.retry_policy["max_attempts"]) if self.retry_policy else 1


@dataclass(frozen=True)
class Question:
    """Whether `boot` may start this."""

    invocation_id: UUID
    worker: UUID
    boot: UUID
    grant: UUID


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
    result_blob: dict[str, Any] | None = None
    """Instead of `result`, where that is too large for the row."""


@dataclass(frozen=True)
class Told:
    """A verdict, and who tells it."""

    invocation_id: UUID
    attempt: int
    boot: UUID
    ending: Ending


# The columns for lists, which leave out what may be large.
LISTED = COLUMNS.replace("payload,", "''::bytea AS payload,", 1).replace(
    " result,", " NULL::bytea AS result,", 1
)

# What a watcher is shown.
_STATE = LISTED.replace("NULL::bytea AS result", "result")


class Records:
    """The rows of `invocations`."""

    def __init__(
        self,
        database: Database,
        *,
        lost_backoff_s: float = 1.0,
        on_change: OnChange = no_change,
        days: Days | None = None,
    ) -> None:
        """Work on `database`; offer what was lost again after `lost_backoff_s`, doubling.

        `on_change` is called with the ids of the records whose status has changed. `days`
        knows which partitions there are.
        """
        self._database = database
        self._days = days or Days()
        self._on_change = on_change
        self._lost_backoff_s = lost_backoff_s
        self.attempts = Attempts(database)
        self._arrivals = Batch(
            self._accept_all,
            key=lambda arrival: (
                (arrival.function_id, arrival.request_id)
                if arrival.request_id
                else (arrival.id, "")
            ),
            weight=lambda arrival: len(arrival.payload),
        )
        self._questions = Batch(self._grant_all, key=lambda question: question.invocation_id)
        self._verdicts = Batch(
            self._conclude_all,
            key=lambda told: told.invocation_id,
            weight=lambda told: len(told.ending.result or b""),
        )

    async def accept(
        self, invocation_id: UUID, *, offer: bool, **values: Any
    ) -> tuple[Record, bool]:
        """Commit a new record. Also says whether the caller is to offer it now.

        `values` are those of an `Arrival`. With `offer` false, or while older ones wait
        for the feeder, it waits too. A request id that was used for the same answers
        what it made then; for something else, raises RequestIdReused.
        """
        return await self._arrivals.submit(Arrival(id=invocation_id, offer=offer, **values))

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

    async def grant(
        self, invocation_id: UUID, worker: UUID, boot: UUID, grant: UUID
    ) -> Record | None:
        """Grant one start to `boot`. None: it may not start it.

        Asked again with the same `grant` id, the answer is the same.
        """
        return await self._questions.submit(Question(invocation_id, worker, boot, grant))

    async def conclude(
        self, invocation_id: UUID, attempt: int, boot: UUID, ending: Ending
    ) -> Record | None:
        """Write the verdict of an attempt that `boot` holds. None: it holds it no more.

        A failure that the retry policy covers makes the record pending again. Raises
        psycopg.DataError where PostgreSQL rejects this verdict.
        """
        return await self._verdicts.submit(Told(invocation_id, attempt, boot, ending))

    async def ungrant(self, invocation_id: UUID, grant: UUID) -> None:
        """Take back what was granted unasked and has not been started; costs no attempt."""
        parameters = {"id": invocation_id, "grant": grant}
        if await self._database.execute(transitions.UNGRANT, parameters):
            self._on_change([invocation_id])

    async def held_by(self, boot: UUID) -> dict[UUID, int]:
        """What is running on `boot`, as far as the records say, and which attempt of it."""
        query = """SELECT id, attempt FROM invocations
          WHERE status = 'running' AND worker_boot = %(boot)s"""
        rows = await self._database.fetch(query, {"boot": boot})
        return {row["id"]: row["attempt"] for row in rows}

    async def overdue(self, overtime_s: float) -> list[tuple[UUID, UUID, int]]:
        """Id, boot and attempt of what is still running so long after its timeout."""
        query = """SELECT id, worker_boot, attempt FROM invocations WHERE status = 'running'
          AND greatest(started_at + timeout_ms / 1000.0 * interval '1 second', verdict_seen_at)
            + %(overtime_s)s * interval '1 second' < clock_timestamp()"""
        rows = await self._database.fetch(query, {"overtime_s": overtime_s})
        return [(row["id"], row["worker_boot"], row["attempt"]) for row in rows]

    async def see_verdicts(self, boot: UUID, invocation_ids: list[UUID]) -> None:
        """`boot` knows how these ended, and is storing their results: they are not overdue."""
        query = """UPDATE invocations SET verdict_seen_at = clock_timestamp()
          WHERE id = ANY(%(ids)s::uuid[]) AND status = 'running' AND worker_boot = %(boot)s"""
        await self._database.execute(query, {"ids": invocation_ids, "boot": boot})

    async def holds(self, invocation_id: UUID, attempt: int, boot: UUID) -> Record | None:
        """The record, if that start of it is `boot`'s to tell of."""
        query = f"""SELECT {COLUMNS} FROM invocations WHERE id = %(id)s AND attempt = %(attempt)s
          AND worker_boot = %(boot)s AND status IN ('running', 'pending')"""
        parameters = {"id": invocation_id, "attempt": attempt, "boot": boot}
        rows = await self._records(query, parameters)
        return rows[0] if rows else None

    async def orphaned(self) -> dict[UUID, list[UUID]]:
        """By boot, what is running on boots that do not live."""
        query = """SELECT id, worker_boot FROM invocations WHERE status = 'running'
          AND NOT EXISTS (SELECT 1 FROM workers WHERE boot_id = worker_boot AND lost_at IS NULL)"""
        found: dict[UUID, list[UUID]] = {}
        for row in await self._database.fetch(query):
            found.setdefault(row["worker_boot"], []).append(row["id"])
        return found

    async def lose(
        self,
        boot: UUID,
        invocation_ids: list[UUID],
        error: dict[str, Any],
        attempt: int | None = None,
        *,
        lost: bool = True,
    ) -> list[Record]:
        """Take executions from `boot`: pending again, or dead-lettered with `error`.

        `lost` false: the worker gave them back in good order.
        """
        parameters = {
            "boot": boot,
            "ids": invocation_ids,
            "attempt": attempt,
            "error": json.dumps(error),
            "backoff_s": self._lost_backoff_s,
            "lost": lost,
        }
        return await self._changed(transitions.LOSE, parameters)

    async def cancel(self, invocation_ids: list[UUID]) -> list[tuple[Record, UUID | None]]:
        """Cancel those that have not ended; each with the boot that was running it."""
        rows = await self._database.fetch(transitions.CANCEL, {"ids": invocation_ids})
        self._on_change([row["id"] for row in rows])
        ran_on = [row.pop("ran_on") for row in rows]
        return [(Record(**row), boot) for row, boot in zip(rows, ran_on, strict=True)]

    async def expire(self, limit: int) -> list[Record]:
        """Dead-letter up to `limit` that were not started in time."""
        error = {
            "code": "EXPIRED",
            "message": "It was not started within its function's max_age."
            " Redrive it, or raise max_age.",
        }
        parameters = {"limit": limit, "error": json.dumps(error)}
        return await self._changed(transitions.EXPIRE, parameters)

    async def _accept_all(
        self, arrivals: list[Arrival]
    ) -> Sequence[tuple[Record, bool] | Exception]:
        parameters = {
            "ids": arrays.uuids(one.id for one in arrivals),
            "function_ids": arrays.uuids(one.function_id for one in arrivals),
            "function_names": arrays.texts(one.function_name for one in arrivals),
            "function_versions": arrays.numbers(one.function_version for one in arrivals),
            "payloads": [one.payload for one in arrivals],
            "payload_types": arrays.texts(one.payload_type for one in arrivals),
            "timeouts_ms": arrays.numbers(one.timeout_ms for one in arrivals),
            "labels": arrays.texts(json.dumps(one.labels) for one in arrivals),
            "retry_policies": arrays.texts(_json(one.retry_policy) for one in arrivals),
            "max_attempts": arrays.numbers(one.max_attempts for one in arrivals),
            "max_ages_s": arrays.numbers(float(one.max_age_s) for one in arrivals),
            "not_befores": arrays.moments(one.not_before for one in arrivals),
            "request_ids": arrays.texts(one.request_id for one in arrivals),
            "digests": [one.digest for one in arrivals],
            "redrives": arrays.uuids(one.redrive_of for one in arrivals),
            "replays": arrays.uuids(one.replay_of for one in arrivals),
            "schedules": arrays.uuids(one.schedule_id for one in arrivals),
            "helds_s": arrays.numbers(one.held_s for one in arrivals),
            "workers": arrays.uuids(one.worker for one in arrivals),
            "boots": arrays.uuids(one.boot for one in arrivals),
            "grants": arrays.uuids(one.grant for one in arrivals),
            "payload_blobs": arrays.texts(_json(one.payload_blob) for one in arrivals),
            "offer": all(one.offer for one in arrivals),
        }
        accepted = {}
        for row in await self._database.fetch(transitions.ACCEPT, parameters):
            offered = row.pop("offered")
            accepted[row["id"]] = (Record(**row), offered)
        missing = [one for one in arrivals if one.id not in accepted]
        before = await self._accepted_before(missing) if missing else {}
        return [accepted.get(one.id) or before[one.id] for one in arrivals]

    async def _accepted_before(
        self, arrivals: list[Arrival]
    ) -> dict[UUID, tuple[Record, bool] | Exception]:
        """Of those that made no row: what their id or request id made before.

        By the id: the first try was committed and its answer lost. Whether it was to be
        offered is not known any more; recovery finds out.
        """
        parameters = {
            "ids": [one.id for one in arrivals],
            "function_ids": [one.function_id for one in arrivals],
            "request_ids": [one.request_id for one in arrivals],
        }
        rows = await self._database.fetch(transitions.ACCEPTED_BEFORE, parameters)
        asked = {one.id: one for one in arrivals}
        found: dict[UUID, tuple[Record, bool] | Exception] = {
            key: RequestIdReused("This request_id was used, and its record is gone.")
            for key in asked
        }
        for row in rows:
            key, digest = row.pop("wanted_id"), row.pop("digest")
            record = Record(**row)
            same = digest is None or digest == asked[key].digest
            found[key] = (record, False) if same else _reused(record)
        return found

    async def _grant_all(self, questions: list[Question]) -> Sequence[Record | None]:
        parameters = {
            "ids": arrays.uuids(one.invocation_id for one in questions),
            "workers": arrays.uuids(one.worker for one in questions),
            "boots": arrays.uuids(one.boot for one in questions),
            "grants": arrays.uuids(one.grant for one in questions),
        }
        rows = await self._changed_in_partition(
            transitions.grant, [one.invocation_id for one in questions], parameters
        )
        granted = {record.id: record for record in rows}
        missing = {one.invocation_id: one for one in questions if one.invocation_id not in granted}
        if missing:
            looked = await self._database.fetch(transitions.LOOK, {"ids": list(missing)})
            for row in looked:
                one = missing[row["id"]]
                boot, in_lane = row.pop("worker_boot"), row.pop("in_lane")
                record = Record(**row)
                if record.status == "running" and (boot, record.grant_id) == (one.boot, one.grant):
                    granted[record.id] = record
                elif in_lane and (given := await self._grant_in_lane(record.function_id, one)):
                    granted[record.id] = given
        return [granted.get(one.invocation_id) for one in questions]

    async def _grant_in_lane(self, function_id: UUID, one: Question) -> Record | None:
        """Grant under the lane's lock; what the lane has no room for is the feeder's again."""
        parameters = {
            "id": one.invocation_id,
            "worker": one.worker,
            "boot": one.boot,
            "grant": one.grant,
        }
        async with self._database.session() as connection, connection.transaction():
            await lock_lane(connection, function_id)
            async with connection.cursor(row_factory=class_row(Record)) as cursor:
                await cursor.execute(transitions.GRANT_IN_LANE.encode(), parameters)
                granted = await cursor.fetchone()
                if granted is None:
                    await cursor.execute(transitions.SEND_BACK_TO_LANE.encode(), parameters)
        if granted is not None:
            self._on_change([granted.id])
        return granted

    async def _conclude_all(self, verdicts: list[Told]) -> Sequence[Record | None]:
        endings = [one.ending for one in verdicts]
        parameters = {
            "ids": arrays.uuids(one.invocation_id for one in verdicts),
            "attempts": arrays.numbers(one.attempt for one in verdicts),
            "boots": arrays.uuids(one.boot for one in verdicts),
            "statuses": arrays.texts(one.status for one in endings),
            "results": [one.result for one in endings],
            "result_types": arrays.texts(one.result_type for one in endings),
            "errors": arrays.texts(_json(one.error) for one in endings),
            "metrics": arrays.texts(json.dumps(one.metrics or {}) for one in endings),
            "runtime_images": arrays.texts(one.runtime_image for one in endings),
            "logs_truncated": arrays.numbers(one.logs_truncated for one in endings),
            "result_blobs": arrays.texts(_json(one.result_blob) for one in endings),
        }
        rows = await self._changed_in_partition(
            transitions.conclude, [one.invocation_id for one in verdicts], parameters
        )
        concluded = {record.id: record for record in rows}
        return [concluded.get(one.invocation_id) for one in verdicts]

    async def _changed_in_partition(
        self, statement: Callable[[str], str], keys: list[UUID], parameters: dict[str, Any]
    ) -> list[Record]:
        """By the partition that all `keys`, in order, are in, where there is one."""
        table = self._days.table(keys)
        try:
            return await self._changed(statement(table), parameters)
        except psycopg.errors.UndefinedTable:
            # Another replica has dropped that day.
            return await self._changed(statement("invocations"), parameters)

    async def _changed(self, query: Any, parameters: dict[str, Any]) -> list[Record]:
        rows = await self._records(query, parameters)
        self._on_change([record.id for record in rows])
        return rows

    async def _records(self, query: Any, parameters: dict[str, Any]) -> list[Record]:
        rows: list[Record] = await self._database.fetch(query, parameters, class_row(Record))
        return rows


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _reused(record: Record) -> RequestIdReused:
    name = ids.show(ids.INVOCATION, record.id)
    return RequestIdReused(
        f"request_id: was used for this function within a day, with another payload: {name}",
        violations=[FieldViolation("request_id", "was used with another payload")],
        metadata={"invocation_id": name},
    )
