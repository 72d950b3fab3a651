"""Removes blobs that no record names: what crashes between storing and committing left.

What is removed is old, and can no longer come to be named: its record is gone, or has
ended otherwise. A result of a start that has not ended may still be told, however long
its worker was away, so it stays. What is missed goes with its day.
"""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from services import ids
from services.invocations.blobs import FOLDER
from services.invocations.database import UNAVAILABLE, Database
from services.invocations.records import TERMINAL
from services.storage import CodeStorage, StorageUnavailable, StoredObject

# Objects that one query asks about.
BATCH = 500
TROUBLE_S = 60.0

_NAME = re.compile(rf"{FOLDER}/\d{{8}}/(inv-[0-9a-f-]{{36}})-.+")

_UNNAMED = """
SELECT key FROM unnest(%(keys)s::text[], %(ids)s::uuid[]) AS stored (key, wanted)
LEFT JOIN invocations ON id = wanted AND id = ANY(%(ids)s::uuid[])
WHERE id IS NULL OR (status = ANY(%(ended)s)
  AND key IS DISTINCT FROM payload_blob ->> 'key' AND key IS DISTINCT FROM result_blob ->> 'key')"""

log = structlog.get_logger()


class Orphans:
    """Looks at all blobs, now and then. Every replica does; none knows of the others."""

    def __init__(
        self, database: Database, storage: CodeStorage, *, interval_s: float, age_s: float
    ) -> None:
        """Look every `interval_s` for what is older than `age_s`.

        `age_s` is longer than any acceptance takes from storing to committing.
        """
        self._database = database
        self._storage = storage
        self._interval_s = interval_s
        self._age = timedelta(seconds=age_s)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            pause_s = self._interval_s
            try:
                if removed := await self.sweep():
                    log.info("swept blobs that no record names", objects=removed)
            except (*UNAVAILABLE, StorageUnavailable) as error:
                log.warning("sweeping blobs has to wait", error=str(error))
                pause_s = min(pause_s, TROUBLE_S)
            await asyncio.sleep(pause_s)

    async def sweep(self) -> int:
        """Look at every blob once, a day after the other; how many were removed."""
        removed = 0
        for day in sorted(await self._storage.folders(FOLDER)):
            batch: list[StoredObject] = []
            async for stored in self._storage.list_all(f"{FOLDER}/{day}"):
                if stored.written_at <= datetime.now(UTC) - self._age:
                    batch.append(stored)
                if len(batch) == BATCH:
                    removed += await self._sweep(batch)
                    batch = []
            removed += await self._sweep(batch)
        return removed

    async def _sweep(self, batch: list[StoredObject]) -> int:
        known = {stored.key: found for stored in batch if (found := _invocation(stored.key))}
        # Of an unfinished write nothing is named.
        unnamed = [stored.key for stored in batch if stored.key not in known]
        if known:
            parameters = {
                "keys": list(known),
                "ids": list(known.values()),
                "ended": sorted(TERMINAL),
            }
            rows = await self._database.fetch(_UNNAMED, parameters)
            unnamed += [row["key"] for row in rows]
        for key in unnamed:
            await self._storage.delete(key)
        return len(unnamed)


def _invocation(key: str) -> UUID | None:
    """Whose blob it is; None: it is none of ours that is complete."""
    match = _NAME.fullmatch(key)
    return None if match is None else ids.parse(ids.INVOCATION, match.group(1))
