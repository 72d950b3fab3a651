"""Schedules, and firing what is due: each moment exactly once, by any replica.

Firing is two commits: the invocation is accepted under an id and a request id made of
the schedule and the moment, then the schedule goes on to its next moment if it still
stands at this one. Whatever dies in between, or does it at the same time elsewhere,
the first of these makes one record.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from psycopg.rows import class_row
from redis.exceptions import RedisError

from faas.v1.invocation_service_pb2 import InvokeRequest
from services import ids
from services.errors import DependencyUnavailable, MeshError, ScheduleNotFound
from services.invocations.acceptance import Acceptance
from services.invocations.cancelling import Cancelling
from services.invocations.cron import Cron
from services.invocations.database import UNAVAILABLE, Database
from services.invocations.partitions import id_at
from services.invocations.records import Records
from services.server import Call

LOOK_S = 0.5
TROUBLE_S = 1.0
BATCH = 100
# A moment that is fired so late was missed: the policy says what becomes of it.
LATE = timedelta(minutes=1)
MOST_MISSED = 100

_COLUMNS = """id, function_id, function_version, cron, time_zone, payload, labels, overlap,
  misfire, paused, next_fire_at, last_fire_at, last_invocation_id, skipped, problem, created_at,
  updated_at"""

_CREATE = f"""
INSERT INTO schedules (id, function_id, function_version, cron, time_zone, payload, labels,
  overlap, misfire, paused, next_fire_at, created_at, updated_at)
VALUES (%(id)s, %(function_id)s, %(function_version)s, %(cron)s, %(time_zone)s, %(payload)s,
  %(labels)s, %(overlap)s, %(misfire)s, %(paused)s, %(next_fire_at)s, now(), now())
ON CONFLICT (id) DO UPDATE SET id = excluded.id
RETURNING {_COLUMNS}"""

_DUE = f"""
SELECT {_COLUMNS} FROM schedules WHERE next_fire_at <= clock_timestamp()
ORDER BY next_fire_at LIMIT {BATCH}"""

# Only from the moment that was seen: another replica may have been faster, or somebody
# may have changed it.
_GO_ON = """
UPDATE schedules SET next_fire_at = %(next)s, last_fire_at = coalesce(%(fired)s, last_fire_at),
  last_invocation_id = coalesce(%(invocation_id)s, last_invocation_id),
  skipped = skipped + %(skipped)s, problem = %(problem)s
WHERE id = %(id)s AND next_fire_at = %(seen)s AND updated_at = %(updated_at)s"""

log = structlog.get_logger()


@dataclass(frozen=True)
class Schedule:
    """One row of `schedules`."""

    id: UUID
    function_id: UUID
    function_version: int
    cron: str
    time_zone: str
    payload: bytes
    labels: dict[str, str]
    overlap: str
    misfire: str
    paused: bool
    next_fire_at: datetime | None
    last_fire_at: datetime | None
    last_invocation_id: UUID | None
    skipped: int
    problem: str
    created_at: datetime
    updated_at: datetime

    @property
    def times(self) -> Cron:
        """When it fires."""
        return Cron(self.cron, self.time_zone)


class Schedules:
    """The rows of `schedules`."""

    def __init__(self, database: Database) -> None:
        """Work on `database`."""
        self._database = database

    async def create(self, values: Mapping[str, Any], now: datetime) -> Schedule:
        """Make one of the values of its columns. Raises InvalidField."""
        cron = Cron.checked(values["cron"], values["time_zone"], now)
        row = {
            **values,
            "id": ids.new_uuid(),
            "cron": cron.line,
            "time_zone": cron.time_zone,
            "labels": json.dumps(values["labels"]),
            "next_fire_at": None if values["paused"] else cron.next(now),
        }
        return (await self._rows(_CREATE, row))[0]

    async def get(self, key: UUID) -> Schedule:
        """One schedule. Raises ScheduleNotFound."""
        rows = await self._rows(f"SELECT {_COLUMNS} FROM schedules WHERE id = %(id)s", {"id": key})
        if not rows:
            raise ScheduleNotFound(f"There is no schedule {ids.show(ids.SCHEDULE, key)}.")
        return rows[0]

    async def page(
        self, *, limit: int, before: UUID | None, function_id: UUID | None
    ) -> list[Schedule]:
        """At most `limit`, newest first."""
        query = f"""SELECT {_COLUMNS} FROM schedules
          WHERE (%(before)s::uuid IS NULL OR id < %(before)s)
            AND (%(function_id)s::uuid IS NULL OR function_id = %(function_id)s)
          ORDER BY id DESC LIMIT %(limit)s"""
        values = {"limit": limit, "before": before, "function_id": function_id}
        return await self._rows(query, values)

    async def update(self, key: UUID, values: Mapping[str, Any], now: datetime) -> Schedule:
        """Change these columns. Raises ScheduleNotFound, InvalidField."""
        while True:
            known = await self.get(key)
            changed = {**vars(known), **values}
            cron = Cron.checked(changed["cron"], changed["time_zone"], now)
            columns = {**values, "next_fire_at": known.next_fire_at}
            if {"cron", "time_zone", "paused"} & values.keys():
                # What was missed under the old line, or while it was paused, is not fired.
                columns["next_fire_at"] = None if changed["paused"] else cron.next(now)
                columns |= {"cron": cron.line, "time_zone": cron.time_zone}
            assignments = ", ".join(f"{name} = %({name})s" for name in columns)
            query = f"""UPDATE schedules SET {assignments}, updated_at = clock_timestamp()
              WHERE id = %(id)s AND updated_at = %(seen)s
                AND next_fire_at IS NOT DISTINCT FROM %(next_seen)s RETURNING {_COLUMNS}"""
            seen = {"id": key, "seen": known.updated_at, "next_seen": known.next_fire_at}
            if rows := await self._rows(query, {**columns, **seen}):
                return rows[0]

    async def delete(self, key: UUID) -> None:
        """Remove one. Raises ScheduleNotFound."""
        query = "DELETE FROM schedules WHERE id = %(id)s"
        if not await self._database.execute(query, {"id": key}):
            raise ScheduleNotFound(f"There is no schedule {ids.show(ids.SCHEDULE, key)}.")

    async def due(self) -> list[Schedule]:
        """Up to BATCH whose moment has come, longest due first."""
        return await self._rows(_DUE, {})

    async def go_on(
        self,
        schedule: Schedule,
        next_fire_at: datetime | None,
        *,
        fired: datetime | None = None,
        invocation_id: UUID | None = None,
        skipped: int = 0,
        problem: str = "",
    ) -> None:
        """Go on from the moment at which `schedule` stands, unless it does no more."""
        values = {
            "id": schedule.id,
            "seen": schedule.next_fire_at,
            "updated_at": schedule.updated_at,
            "next": next_fire_at,
            "fired": fired,
            "invocation_id": invocation_id,
            "skipped": skipped,
            "problem": problem,
        }
        await self._database.fetch(_GO_ON, values)

    async def _rows(self, query: str, values: Mapping[str, Any]) -> list[Schedule]:
        rows: list[Schedule] = await self._database.fetch(query, values, class_row(Schedule))
        return rows


class Clock:
    """Fires what is due. Every replica runs one; none knows of the others."""

    def __init__(
        self,
        schedules: Schedules,
        acceptance: Acceptance,
        records: Records,
        cancelling: Cancelling,
    ) -> None:
        """Fire `schedules` by `acceptance`; end what is to be replaced by `cancelling`."""
        self._schedules = schedules
        self._acceptance = acceptance
        self._records = records
        self._cancelling = cancelling

    async def run(self) -> None:
        """Fire until cancelled."""
        while True:
            try:
                await self.fire_due(datetime.now(UTC))
            except (*UNAVAILABLE, DependencyUnavailable, RedisError, OSError) as error:
                log.warning("schedules have to wait", error=str(error))
                await asyncio.sleep(TROUBLE_S)
            await asyncio.sleep(LOOK_S)

    async def fire_due(self, now: datetime) -> None:
        """Fire all whose moment has come."""
        for schedule in await self._schedules.due():
            await self._fire(schedule, now)

    async def _fire(self, schedule: Schedule, now: datetime) -> None:
        first = schedule.next_fire_at
        assert first is not None  # or it would not be due
        moments = schedule.times.between(first, max(first, now), MOST_MISSED)
        last = moments[-1]
        following = schedule.times.next(last)
        if now - last > LATE and schedule.misfire == "skip":
            await self._schedules.go_on(schedule, following, skipped=len(moments))
            return
        if schedule.misfire == "fire_all" and len(moments) > 1:
            # One by one: the schedule goes from each to the next.
            moment, following = moments[0], moments[1]
        else:
            moment = last
        skipped = 0 if schedule.misfire == "fire_all" else len(moments) - 1
        unended = await self._unended(schedule)
        if unended and schedule.overlap == "skip":
            await self._schedules.go_on(schedule, following, skipped=skipped + 1)
            return
        if unended and schedule.overlap == "replace":
            await self._cancelling.cancel([unended])
        invocation_id, problem = await self._invoke(schedule, moment)
        await self._schedules.go_on(
            schedule,
            following,
            fired=moment if invocation_id else None,
            invocation_id=invocation_id,
            skipped=skipped,
            problem=problem,
        )

    async def _unended(self, schedule: Schedule) -> UUID | None:
        """What it invoked before, if that has not ended."""
        if schedule.overlap == "allow" or schedule.last_invocation_id is None:
            return None
        record = await self._records.find(schedule.last_invocation_id)
        return None if record is None or record.ended else record.id

    async def _invoke(self, schedule: Schedule, moment: datetime) -> tuple[UUID | None, str]:
        """The invocation, or why there is none. Raises DependencyUnavailable."""
        shown = ids.show(ids.SCHEDULE, schedule.id)
        request = InvokeRequest(
            function_id=ids.show(ids.FUNCTION, schedule.function_id),
            function_version=schedule.function_version,
            labels=schedule.labels,
            request_id=f"{shown}:{moment:%Y-%m-%dT%H:%MZ}",
        )
        call = Call(method="schedule", request_id=str(ids.new_uuid()), peer=shown)
        try:
            record = await self._acceptance.accept(
                fire_id(schedule.id, moment),
                request,
                schedule.payload,
                call,
                schedule_id=schedule.id,
            )
        except DependencyUnavailable:
            raise
        except MeshError as error:
            log.warning("a schedule could not fire", schedule_id=shown, error=error.message)
            return None, error.message
        log.info("a schedule fired", schedule_id=shown, invocation_id=str(record.id))
        return record.id, ""


def fire_id(schedule_id: UUID, moment: datetime) -> UUID:
    """The invocation's id of one moment: a UUIDv7 of that time, the rest by a hash."""
    digest = hashlib.sha256(schedule_id.bytes + moment.isoformat().encode()).digest()
    random = int.from_bytes(digest[:10], "big")
    version, variant = 7 << 76, 2 << 62
    kept = random & ~(0xF << 76) & ~(0x3 << 62)
    return UUID(int=id_at(moment).int | kept | version | variant)
