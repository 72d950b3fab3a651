"""Where code is kept: a filesystem or S3, as objects under keys.

Objects are written once, under a key that holds their checksum, and appear whole or
not at all.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

CHUNK_BYTES = 256 * 1024
WRITING = ".writing-"
"""What begins so is not complete yet, or never will be."""
# Then S3 does not answer, and the caller is told.
S3_PATIENCE = timedelta(seconds=10)


class StorageUnavailable(Exception):
    """The code storage does not answer."""


class ObjectMissing(Exception):
    """There is no object under that key."""


@dataclass(frozen=True)
class StoredObject:
    """One object of a listing."""

    key: str
    written_at: datetime


class CodeStorage(Protocol):
    """Objects under keys such as `functions/{function_id}/{sha256}/code`.

    Every call raises StorageUnavailable where the storage does not answer.
    """

    async def put(self, key: str, file: Path) -> None:
        """Keep a copy of `file`; on return it is durable."""

    def get(self, key: str) -> AsyncIterator[bytes]:
        """The object in chunks. Raises ObjectMissing."""

    async def delete(self, key: str) -> None:
        """Remove the object, if it is there."""

    async def find(self, key: str) -> StoredObject | None:
        """The object of this key, without its content; None where there is none."""

    def list_all(self, prefix: str) -> AsyncIterator[StoredObject]:
        """All objects whose key begins with the folder `prefix`."""


def open_storage(
    url: str, *, endpoint: str = "", region: str = "", key_id: str = "", secret: str = ""
) -> CodeStorage:
    """The storage at `url`: `file:///directory` or `s3://bucket/prefix`."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FileStorage(Path(parts.path))
    if parts.scheme == "s3":
        given = {"aws_access_key_id": key_id, "aws_secret_access_key": secret, "endpoint": endpoint}
        store = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            region=region,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=3),
            },
            retry_config={"max_retries": 3, "retry_timeout": S3_PATIENCE},
            **{name: value for name, value in given.items() if value},  # type: ignore[arg-type]
        )
        return S3Storage(store)
    raise ValueError(f"{url}: code storage is file:///directory or s3://bucket/prefix")


class FileStorage:
    """Objects as files below a directory."""

    def __init__(self, directory: Path) -> None:
        """Keep them below `directory`."""
        self._directory = directory

    async def put(self, key: str, file: Path) -> None:
        """See CodeStorage."""
        try:
            await asyncio.to_thread(self._put, key, file)
        except OSError as error:
            raise StorageUnavailable(str(error)) from error

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """See CodeStorage."""
        try:
            file = await asyncio.to_thread((self._directory / key).open, "rb")
        except FileNotFoundError as error:
            raise ObjectMissing(key) from error
        except OSError as error:
            raise StorageUnavailable(str(error)) from error
        with file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

    async def delete(self, key: str) -> None:
        """See CodeStorage."""
        try:
            await asyncio.to_thread(self._delete, key)
        except OSError as error:
            raise StorageUnavailable(str(error)) from error

    async def find(self, key: str) -> StoredObject | None:
        """See CodeStorage."""
        try:
            return await asyncio.to_thread(self._stat, self._directory / key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageUnavailable(str(error)) from error

    async def list_all(self, prefix: str) -> AsyncIterator[StoredObject]:
        """See CodeStorage."""
        for stored in await asyncio.to_thread(lambda: list(self._walk(prefix))):
            yield stored

    def _put(self, key: str, file: Path) -> None:
        target = self._directory / key
        descriptor, name = _beside(target)
        try:
            with os.fdopen(descriptor, "wb") as output, file.open("rb") as source:
                shutil.copyfileobj(source, output)
                output.flush()
                os.fsync(output.fileno())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)

    def _delete(self, key: str) -> None:
        target = self._directory / key
        target.unlink(missing_ok=True)
        for parent in target.parents:
            if parent == self._directory:
                return
            try:
                parent.rmdir()
            except OSError:
                return  # in use, or gone

    def _walk(self, prefix: str) -> Iterator[StoredObject]:
        for directory, _, names in os.walk(self._directory / prefix):
            for name in names:
                # What is removed while we look is not there.
                with contextlib.suppress(FileNotFoundError):
                    yield self._stat(Path(directory) / name)

    def _stat(self, path: Path) -> StoredObject:
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return StoredObject(str(path.relative_to(self._directory)), written)


class S3Storage:
    """Objects in an S3 bucket."""

    def __init__(self, store: S3Store) -> None:
        """Keep them in `store`."""
        self._store = store

    async def put(self, key: str, file: Path) -> None:
        """See CodeStorage."""
        try:
            await obstore.put_async(self._store, key, file)
        except BaseError as error:
            raise StorageUnavailable(str(error)) from error

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """See CodeStorage."""
        try:
            result = await obstore.get_async(self._store, key)
            async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)
        except FileNotFoundError as error:
            raise ObjectMissing(key) from error
        except BaseError as error:
            raise StorageUnavailable(str(error)) from error

    async def delete(self, key: str) -> None:
        """See CodeStorage."""
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except BaseError as error:
            raise StorageUnavailable(str(error)) from error

    async def find(self, key: str) -> StoredObject | None:
        """See CodeStorage."""
        try:
            found = await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise StorageUnavailable(str(error)) from error
        return StoredObject(key, found["last_modified"])

    async def list_all(self, prefix: str) -> AsyncIterator[StoredObject]:
        """See CodeStorage."""
        try:
            async for batch in obstore.list(self._store, prefix):
                for found in batch:
                    yield StoredObject(found["path"], found["last_modified"])
        except BaseError as error:
            raise StorageUnavailable(str(error)) from error


def _beside(target: Path) -> tuple[int, str]:
    """A new, open file in `target`'s directory, which is made if need be."""
    while True:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            return tempfile.mkstemp(dir=target.parent, prefix=WRITING)
        except FileNotFoundError:
            continue  # removed as empty between the two lines, by `_delete`


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
