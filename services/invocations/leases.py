"""Leases: which boots of workers live, and what is lost with one that does not.

A heartbeat raises `workers.beat`. An observer on every replica watches the beats by
its own monotonic clock, so no clock of a worker or of another machine matters; and
it begins again whenever its own reads fail or take long, so that trouble of the
database is never taken for the death of workers.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from services.invocations.database import UNAVAILABLE, Database
from services.invocations.records import Record, Records
from services.invocations.waiters import Waiters

# How often the beats are read, and how long a read may take to be believed.
OBSERVE_S = 2.0
LOST = "The worker that ran it was lost, and no start is left for it."

log = structlog.get_logger()


@dataclass
class _Beat:
    number: int
    since: float
    """On `time.monotonic()`'s scale: when it was first seen so."""


class Leases:
    """Takes executions from boots that do not live, and tells who waits for them."""

    def __init__(
        self,
        database: Database,
        records: Records,
        waiters: Waiters,
        *,
        lease_s: float,
        overtime_s: float,
    ) -> None:
        """A boot is lost after `lease_s` without a beat; a run, `overtime_s` after its timeout."""
        self._database = database
        self._records = records
        self._waiters = waiters
        self._lease_s = lease_s
        self._overtime_s = overtime_s
        self._beats: dict[UUID, _Beat] = {}

    async def living_boots(self) -> set[str]:
        """The boots that may hold leases."""
        rows = await self._database.fetch("SELECT boot_id FROM workers WHERE lost_at IS NULL")
        return {str(row["boot_id"]) for row in rows}

    async def run(self) -> None:
        """Observe until cancelled."""
        while True:
            began = time.monotonic()
            try:
                await self.observe()
            except UNAVAILABLE as error:
                log.warning("observing workers has to wait", error=str(error))
                self._beats.clear()
            if time.monotonic() - began > OBSERVE_S:
                self._beats.clear()
            await asyncio.sleep(OBSERVE_S)

    async def observe(self) -> None:
        """One look: boots whose beat stands still too long are lost, and so are overdue runs."""
        rows = await self._database.fetch("SELECT boot_id, beat FROM workers WHERE lost_at IS NULL")
        now = time.monotonic()
        beats = {row["boot_id"]: row["beat"] for row in rows}
        self._beats = {
            boot: seen
            if (seen := self._beats.get(boot)) and seen.number == number
            else _Beat(number, now)
            for boot, number in beats.items()
        }
        for boot, beat in self._beats.items():
            if now - beat.since > self._lease_s:
                await self._lose_boot(boot, beat.number)
        for invocation_id, boot, attempt in await self._records.overdue(self._overtime_s):
            reason = "It was still open long after its timeout; its worker never said how it ended."
            await self.lose(boot, [invocation_id], reason, attempt)
        # Granted in the very moment in which its boot was declared lost.
        for boot, orphans in (await self._records.orphaned()).items():
            await self.lose(boot, orphans, LOST)

    async def lose(
        self,
        boot: UUID,
        invocation_ids: list[UUID],
        reason: str,
        attempt: int | None = None,
    ) -> list[Record]:
        """Take these executions from `boot`; those without a start left end for `reason`."""
        return await self._take(boot, invocation_ids, "WORKER_LOST", reason, attempt)

    async def take_back(
        self, boot: UUID, invocation_id: UUID, attempt: int, reason: str
    ) -> list[Record]:
        """The worker gave it back in good order, or could not run it."""
        return await self._take(boot, [invocation_id], "PLATFORM_ERROR", reason, attempt)

    async def bury(self, boot: UUID) -> None:
        """A boot is known to be over: what it held is lost now, not when its lease ends."""
        query = """UPDATE workers SET lost_at = clock_timestamp()
          WHERE boot_id = %(boot)s AND lost_at IS NULL"""
        await self._database.execute(query, {"boot": boot})
        await self.lose(boot, list(await self._records.held_by(boot)), LOST)

    async def _take(
        self, boot: UUID, invocation_ids: list[UUID], code: str, reason: str, attempt: int | None
    ) -> list[Record]:
        if not invocation_ids:
            return []
        error: dict[str, Any] = {"code": code, "message": reason}
        lost = await self._records.lose(
            boot, invocation_ids, error, attempt, lost=code == "WORKER_LOST"
        )
        for record in lost:
            log.warning(
                "an execution was lost",
                invocation_id=str(record.id),
                attempt=record.attempt,
                status=record.status,
                reason=reason,
            )
        self._waiters.ended([record for record in lost if record.ended])
        return lost

    async def _lose_boot(self, boot: UUID, beat: int) -> None:
        # Conditional on the beat that stood still: one that came meanwhile saves it.
        query = """UPDATE workers SET lost_at = clock_timestamp()
          WHERE boot_id = %(boot)s AND beat = %(beat)s AND lost_at IS NULL"""
        if await self._database.execute(query, {"boot": boot, "beat": beat}):
            held = await self._records.held_by(boot)
            log.warning("a worker was lost", boot_id=str(boot), executions=len(held))
            await self.lose(boot, list(held), LOST)
