"""Code that is uploaded first and named by a function later."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services import archive, ids
from services.archive import Limits
from services.errors import UploadNotFound
from services.functions import keys
from services.functions.database import Database
from services.functions.messages import format_name, format_of
from services.functions.sources import Code, received
from services.functions.tables import UploadRow
from services.storage import CodeStorage, ObjectMissing


@dataclass(frozen=True)
class Uploads:
    """Uploads that wait."""

    database: Database
    storage: CodeStorage
    limits: Limits
    max_bytes: int
    lifetime_s: float

    async def receive(self, chunks: AsyncIterable[bytes], field: str) -> UploadRow:
        """Check and keep an archive. Raises InvalidArchive, TooLarge."""
        async with received(chunks, field, most_bytes=self.max_bytes) as code:
            await asyncio.to_thread(
                archive.check, code.file, code.code_format, self.limits, code.field
            )
            now = datetime.now(UTC)
            upload = UploadRow(
                id=ids.new_uuid(),
                code_format=format_name(code.code_format),
                sha256=code.sha256,
                size_bytes=code.size_bytes,
                created_at=now,
                expires_at=now + timedelta(seconds=self.lifetime_s),
            )
            await self.storage.put(keys.of_upload(upload.id, upload.sha256), code.file)
        async with self.database.transaction() as session:
            session.add(upload)
        return upload

    @asynccontextmanager
    async def open(self, upload_id: str, field: str) -> AsyncIterator[Code]:
        """The code of an upload, which stays until it is taken. Raises UploadNotFound."""
        uuid = ids.parse(keys.UPLOAD, upload_id)
        if uuid is None:
            raise UploadNotFound
        async with self.database.reading() as session:
            query = select(UploadRow).where(UploadRow.id == uuid)
            query = query.where(UploadRow.expires_at > func.now())
            upload = (await session.execute(query)).scalar_one_or_none()
        if upload is None:
            raise UploadNotFound
        chunks = self._chunks(keys.of_upload(uuid, upload.sha256))
        code_format = format_of(upload.code_format)
        async with received(chunks, field, code_format=code_format, upload=uuid) as code:
            yield code

    async def _chunks(self, key: str) -> AsyncIterator[bytes]:
        try:
            async for chunk in self.storage.get(key):
                yield chunk
        except ObjectMissing as error:
            raise UploadNotFound from error  # taken or swept meanwhile


async def take(session: AsyncSession, upload: UUID) -> None:
    """Use an upload up, together with what the session commits. Raises UploadNotFound."""
    statement = delete(UploadRow).where(UploadRow.id == upload).returning(UploadRow.id)
    if (await session.execute(statement)).one_or_none() is None:
        raise UploadNotFound
