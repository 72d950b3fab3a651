"""What time ends: invocations that nobody started, request ids of yesterday."""

import asyncio
import time

import structlog

from services.invocations.database import UNAVAILABLE, Database
from services.invocations.lanes import Lanes
from services.invocations.records import Records
from services.invocations.transitions import REQUEST_ID_AGE
from services.invocations.waiters import Waiters

BATCH = 500
REQUEST_IDS_S = 600.0

_FORGET_REQUEST_IDS = f"""
DELETE FROM request_ids WHERE (function_id, request_id) IN (
  SELECT function_id, request_id FROM request_ids
  WHERE created_at < clock_timestamp() - {REQUEST_ID_AGE} LIMIT 5000 FOR UPDATE SKIP LOCKED)"""

# A worker that comes back so late is not known any more, and what it tells is stale.
_FORGET_BOOTS = """
DELETE FROM workers WHERE lost_at < clock_timestamp() - interval '1 day' AND NOT EXISTS
  (SELECT 1 FROM invocations WHERE status = 'running' AND worker_boot = boot_id)"""

log = structlog.get_logger()


class Sweeper:
    """Looks for what is too old. Every replica does; none knows of the others."""

    def __init__(
        self,
        database: Database,
        records: Records,
        lanes: Lanes,
        waiters: Waiters,
        *,
        interval_s: float,
    ) -> None:
        """Look every `interval_s`."""
        self._database = database
        self._records = records
        self._lanes = lanes
        self._waiters = waiters
        self._interval_s = interval_s
        self._forgot = float("-inf")

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
            except UNAVAILABLE as error:
                log.warning("sweeping has to wait", error=str(error))
            await asyncio.sleep(self._interval_s)

    async def sweep(self) -> None:
        """Sweep once."""
        while expired := await self._records.expire(BATCH):
            log.warning("invocations were not started in time", count=len(expired))
            self._waiters.ended(expired)
        await self._lanes.gather_strays()
        if time.monotonic() - self._forgot > REQUEST_IDS_S:
            while await self._database.execute(_FORGET_REQUEST_IDS):
                continue
            await self._database.execute(_FORGET_BOOTS)
            self._forgot = time.monotonic()
