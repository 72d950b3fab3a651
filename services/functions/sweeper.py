"""Removes code and binaries that nothing names.

It is what crashes and refused changes left behind, and uploads that nobody took.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import delete, func, select

from services.functions import keys
from services.functions.builds import Builds, binary_key
from services.functions.database import UNAVAILABLE, Database
from services.functions.tables import BuildRow, FunctionRow, UploadRow, VersionRow
from services.storage import CodeStorage, StorageUnavailable, StoredObject

log = structlog.get_logger()

# Objects that one query asks about.
BATCH = 500


@dataclass(frozen=True)
class Sweeper:
    """Looks at all that is stored, now and then."""

    database: Database
    storage: CodeStorage
    builds: Builds
    interval_s: float
    age_s: float

    async def run(self) -> None:
        """Sweep at once and then at every interval, for ever."""
        while True:
            try:
                removed = await self.sweep()
                if removed:
                    log.info("swept code that nothing names", objects=removed)
            except (*UNAVAILABLE, StorageUnavailable) as error:
                log.warning("could not sweep; will try again", error=str(error))
            await asyncio.sleep(self.interval_s)

    async def sweep(self) -> int:
        """Remove expired uploads and old objects that nothing names; how many objects."""
        async with self.database.transaction() as session:
            await session.execute(delete(UploadRow).where(UploadRow.expires_at <= func.now()))
        await self.builds.forget_unnamed(self.age_s)
        removed = 0
        for folder in (keys.UPLOADS, keys.FUNCTIONS):
            batch: list[StoredObject] = []
            async for stored in self.storage.list_all(folder):
                if self._is_old(stored):
                    batch.append(stored)
                if len(batch) == BATCH:
                    removed += await self._sweep(batch)
                    batch = []
            removed += await self._sweep(batch)
        return removed

    def _is_old(self, stored: StoredObject) -> bool:
        return stored.written_at <= datetime.now(UTC) - timedelta(seconds=self.age_s)

    async def _sweep(self, batch: list[StoredObject]) -> int:
        owners = {stored.key: keys.owner(stored.key) for stored in batch}
        ids = {owner.id for owner in owners.values() if owner}
        if not ids:
            return 0
        async with self.database.reading() as session:
            versions = select(VersionRow.function_id, VersionRow.code_sha256)
            rows = await session.execute(versions.where(VersionRow.function_id.in_(ids)))
            named = {keys.of_function(function, sha256) for function, sha256 in rows}
            uploads = select(UploadRow.id, UploadRow.sha256)
            rows = await session.execute(uploads.where(UploadRow.id.in_(ids)))
            named |= {keys.of_upload(upload, sha256) for upload, sha256 in rows}
            builds = select(BuildRow).where(
                BuildRow.function_id.in_(ids), BuildRow.status == "ready"
            )
            named |= {binary_key(build) for build in (await session.execute(builds)).scalars()}
        removed = 0
        for key, owner in owners.items():
            if owner and key not in named:
                removed += await self._remove(key, owner)
        return removed

    async def _remove(self, key: str, owner: keys.Owner) -> bool:
        """Remove an object, unless it was named or written anew since it was looked at.

        A change commits a version that names code under the lock of the function's
        row, and looks there whether the code is still stored; here the same lock is
        held, so one of the two sees what the other did. New functions, uploads and
        binaries have keys that nothing had before.
        """
        async with self.database.transaction() as session:
            lock = select(FunctionRow.id).where(FunctionRow.id == owner.id).with_for_update()
            await session.execute(lock)
            version = select(VersionRow.version).where(
                VersionRow.function_id == owner.id, VersionRow.code_sha256 == owner.sha256
            )
            is_code = key == keys.of_function(owner.id, owner.sha256)
            if is_code and (await session.execute(version.limit(1))).first():
                return False
            stored = await self.storage.find(key)
            if stored is None or not self._is_old(stored):
                return False
            await self.storage.delete(key)
            return True
