"""Content too large for a row: payloads and results in the storage, beside the records.

A blob belongs to the one record that names it and lies in the folder of that record's
day, so that a day of history goes with its folder. It is stored before what names it
is committed: a crash between the two leaves a blob that nothing names, which
`orphans` removes, and never a record without its content.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any
from uuid import UUID

import structlog

from services import ids
from services.errors import InvalidField, MeshError, TooLarge, TooSlow
from services.invocations.partitions import day_of
from services.storage import CHUNK_BYTES, CodeStorage, ObjectMissing, StorageUnavailable

INLINE_BYTES = 1024 * 1024
"""What a row holds itself; workers count with the same number."""
FOLDER = "invocations"
# A caller that sends nothing for so long does not come to the end.
STALL_S = 60.0
# Results that were stored by this replica a moment ago need not be looked for.
MAX_REMEMBERED = 1000

log = structlog.get_logger()


@dataclass(frozen=True)
class Blob:
    """Stored content, as a row names it."""

    key: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, column: dict[str, Any] | None) -> "Blob | None":
        """What a row's column says; None where the row holds its content itself."""
        return None if column is None else cls(**column)

    def to_row(self) -> dict[str, Any]:
        """As the column has it."""
        return asdict(self)


class Blobs:
    """The blobs of all records."""

    def __init__(
        self,
        storage: CodeStorage | None,
        *,
        max_payload_bytes: int,
        max_result_bytes: int,
        transfers: int,
    ) -> None:
        """Keep them in `storage`; without one nothing larger than a row holds is taken.

        At most `transfers` are under way at once for callers, and as many for workers.
        """
        self._storage = storage
        most = INLINE_BYTES if storage is None else None
        self.max_payload_bytes = min(max_payload_bytes, most or max_payload_bytes)
        self.max_result_bytes = min(max_result_bytes, most or max_result_bytes)
        self._callers = asyncio.Semaphore(transfers)
        self._workers = asyncio.Semaphore(transfers)
        self._stored: dict[str, None] = {}

    @property
    def inline_bytes(self) -> int:
        """What of a payload is taken into the row."""
        return min(INLINE_BYTES, self.max_payload_bytes)

    async def keep_payload(
        self, invocation_id: UUID, chunks: AsyncIterator[bytes], field: str
    ) -> Blob:
        """Store a payload that comes in the request's `field`.

        Raises TooLarge, TooSlow, and StorageUnavailable; then nothing is kept.
        """
        if self._storage is None:
            raise _too_large(field, None, self.max_payload_bytes)
        measured = Measured(chunks, self.max_payload_bytes, field)
        key = f"{folder_of(invocation_id)}/{ids.show(ids.INVOCATION, invocation_id)}-payload"
        async with self._callers:
            await self._storage.put_stream(key, measured.through())
        return Blob(key, measured.size_bytes, measured.sha256)

    async def keep_result(self, blob: Blob, chunks: AsyncIterator[bytes]) -> None:
        """Store a result that a worker announced as `blob`.

        Raises TooLarge, InvalidField where something else came, and StorageUnavailable.
        """
        self.check_result_size(blob.size_bytes)
        measured = Measured(chunks, blob.size_bytes, "content")

        async def checked() -> AsyncIterator[bytes]:
            async for chunk in measured.through():
                yield chunk
            if (measured.size_bytes, measured.sha256) != (blob.size_bytes, blob.sha256):
                raise InvalidField.of("content", "is not what came: size or checksum differ")

        async with self._workers:
            await self._there.put_stream(blob.key, checked())
        while len(self._stored) >= MAX_REMEMBERED:
            del self._stored[next(iter(self._stored))]
        self._stored[blob.key] = None

    def check_result_size(self, size_bytes: int) -> None:
        """Raise TooLarge where no result so large is kept."""
        if size_bytes > self.max_result_bytes:
            raise _too_large("result", size_bytes, self.max_result_bytes)

    async def is_stored(self, blob: Blob) -> bool:
        """Whether it is there, in its size. Raises StorageUnavailable."""
        if blob.key in self._stored:
            return True
        if self._storage is None:
            return False
        found = await self._storage.find(blob.key)
        return found is not None and found.size_bytes == blob.size_bytes

    async def copy_payload(self, source: Blob, invocation_id: UUID) -> Blob:
        """A copy for another record, whose day may come later than the source's."""
        key = f"{folder_of(invocation_id)}/{ids.show(ids.INVOCATION, invocation_id)}-payload"
        try:
            await self._there.copy(source.key, key)
        except ObjectMissing as error:
            raise _lost(source) from error
        return Blob(key, source.size_bytes, source.sha256)

    async def read(self, blob: Blob, *, for_worker: bool = False) -> AsyncIterator[bytes]:
        """Its content, in chunks of at most CHUNK_BYTES. Raises StorageUnavailable."""
        async with self._workers if for_worker else self._callers:
            try:
                async with aclosing(self._there.get(blob.key)) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        for start in range(0, len(chunk), CHUNK_BYTES):
                            yield chunk[start : start + CHUNK_BYTES]
            except ObjectMissing as error:
                raise _lost(blob) from error

    async def discard(self, blob: Blob | None) -> None:
        """Remove what no record came to name; where that fails, it is left to `orphans`."""
        if blob is None or self._storage is None:
            return
        try:
            await self._storage.delete(blob.key)
        except StorageUnavailable as error:
            log.warning("could not discard a blob", key=blob.key, error=str(error))

    async def drop_day(self, day: date) -> None:
        """Remove all of a day, whose records are gone."""
        if self._storage is not None:
            await self._storage.delete_all(f"{FOLDER}/{day:%Y%m%d}")

    @property
    def _there(self) -> CodeStorage:
        if self._storage is None:
            raise StorageUnavailable("no storage is configured")
        return self._storage


class Measured:
    """Content on its way: gathered into larger chunks, counted, and summed."""

    def __init__(self, chunks: AsyncIterator[bytes], most_bytes: int, field: str) -> None:
        """Take `most_bytes` from `chunks`, which is the request's `field`."""
        self._chunks = chunks
        self._most_bytes = most_bytes
        self._field = field
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """Of what has come."""
        return self._digest.hexdigest()

    async def through(self) -> AsyncIterator[bytes]:
        """The content. Raises TooLarge and TooSlow."""
        gathered = bytearray()
        while (chunk := await self._next()) is not None:
            self.size_bytes += len(chunk)
            if self.size_bytes > self._most_bytes:
                raise _too_large(self._field, None, self._most_bytes)
            gathered += chunk
            if len(gathered) >= CHUNK_BYTES:
                self._digest.update(gathered)
                yield bytes(gathered)
                gathered.clear()
        self._digest.update(gathered)
        if gathered:
            yield bytes(gathered)

    async def _next(self) -> bytes | None:
        try:
            async with asyncio.timeout(STALL_S):
                return await anext(self._chunks, None)
        except TimeoutError:
            raise TooSlow(f"{self._field}: nothing came for {STALL_S:g} s.") from None


def folder_of(invocation_id: UUID) -> str:
    """The folder of an invocation's day."""
    return f"{FOLDER}/{day_of(invocation_id):%Y%m%d}"


def result_blob(
    invocation_id: UUID, attempt: int, boot: UUID, size_bytes: int, sha256: str
) -> Blob:
    """A result as the worker that has it names it: the key tells what must be in it."""
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise InvalidField.of("sha256", "must be 64 lower-case hexadecimal digits")
    shown = ids.show(ids.INVOCATION, invocation_id)
    key = f"{folder_of(invocation_id)}/{shown}-{attempt}-{boot}-{sha256}"
    return Blob(key, size_bytes, sha256)


async def one(data: bytes) -> AsyncIterator[bytes]:
    """Content that is there already, as chunks."""
    yield data


def _too_large(field: str, size_bytes: int | None, most: int) -> TooLarge:
    how = "is too large" if size_bytes is None else f"is {size_bytes} bytes"
    return TooLarge(
        f"{field}: {how}; at most {most} bytes are taken.", metadata={"limit_bytes": str(most)}
    )


def _lost(blob: Blob) -> MeshError:
    log.error("the storage has lost a blob", key=blob.key)
    return MeshError("The storage does not have the content that the record names any more.")
