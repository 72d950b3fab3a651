"""Where code and large content are kept: a filesystem or S3, as objects under keys.

Objects are written once, never changed, and appear whole or not at all.
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
from typing import IO, Protocol
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

CHUNK_BYTES = 256 * 1024
WRITING = ".writing-"
"""What begins so is not complete yet, or never will be."""
# Then S3 does not answer, and the caller is told.
S3_PATIENCE = timedelta(seconds=10)
# Parts of one upload that are in memory at once, 5 MiB each.
S3_PARTS = 2


class StorageUnavailable(Exception):
    """The code storage does not answer."""


class ObjectMissing(Exception):
    """There is no object under that key."""


@dataclass(frozen=True)
class StoredObject:
    """One object of a listing."""

    key: str
    written_at: datetime
    size_bytes: int


class CodeStorage(Protocol):
    """Objects under keys such as `functions/{function_id}/{sha256}/code`.

    Every call raises StorageUnavailable where the storage does not answer.
    """

    async def put(self, key: str, file: Path) -> None:
        """Keep a copy of `file`; on return it is durable."""

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep what comes; on return it is durable. Where `chunks` raises, nothing is kept."""

    async def copy(self, source: str, key: str) -> None:
        """Keep the object `source` under `key` too. Raises ObjectMissing."""

    def get(self, key: str) -> AsyncIterator[bytes]:
        """The object in chunks. Raises ObjectMissing."""

    async def delete(self, key: str) -> None:
        """Remove the object, if it is there."""

    async def delete_all(self, prefix: str) -> None:
        """Remove all objects whose key begins with the folder `prefix`."""

    async def find(self, key: str) -> StoredObject | None:
        """The object of this key, without its content; None where there is none."""

    def list_all(self, prefix: str) -> AsyncIterator[StoredObject]:
        """All objects whose key begins with the folder `prefix`."""

    async def folders(self, prefix: str) -> list[str]:
        """The names of the folders that are directly in the folder `prefix`."""


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

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """See CodeStorage."""
        target = self._directory / key
        name = None
        try:
            descriptor, name = await asyncio.to_thread(_beside, target)
            with os.fdopen(descriptor, "wb", buffering=0) as output:
                async for chunk in chunks:
                    await asyncio.to_thread(_write_all, output, chunk)
                await asyncio.to_thread(os.fsync, descriptor)
            await asyncio.to_thread(self._settle, Path(name), target)
        except OSError as error:
            raise StorageUnavailable(str(error)) from error
        finally:
            if name is not None:
                await asyncio.to_thread(Path(name).unlink, missing_ok=True)

    async def copy(self, source: str, key: str) -> None:
        """See CodeStorage."""
        try:
            await asyncio.to_thread(self._copy, self._directory / source, self._directory / key)
        except FileNotFoundError as error:
            raise ObjectMissing(source) from error
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

    async def delete_all(self, prefix: str) -> None:
        """See CodeStorage."""
        try:
            await asyncio.to_thread(shutil.rmtree, self._directory / prefix)
        except FileNotFoundError:
            return
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

    async def folders(self, prefix: str) -> list[str]:
        """See CodeStorage."""
        try:
            return await asyncio.to_thread(_folders, self._directory / prefix)
        except OSError as error:
            raise StorageUnavailable(str(error)) from error

    def _put(self, key: str, file: Path) -> None:
        target = self._directory / key
        descriptor, name = _beside(target)
        try:
            with os.fdopen(descriptor, "wb") as output, file.open("rb") as source:
                shutil.copyfileobj(source, output)
                output.flush()
                os.fsync(output.fileno())
            self._settle(Path(name), target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _copy(self, source: Path, target: Path) -> None:
        # A link has its source's age, by which sweepers tell what may still be under way.
        os.utime(source)
        while True:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(source)
                break
            except FileExistsError:
                return  # copied before: objects never change
            except FileNotFoundError:
                os.utime(source)  # or the directory was removed as empty, by `_delete`
            except OSError:  # a file system without links
                self._put(str(target.relative_to(self._directory)), source)
                return
        self._sync_parents(target)

    def _settle(self, file: Path, target: Path) -> None:
        """Give a file that is complete its place, for good."""
        file.replace(target)
        self._sync_parents(target)

    def _sync_parents(self, target: Path) -> None:
        for parent in target.parents:
            _sync_directory(parent)
            if parent == self._directory:
                return

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
        found = path.stat()
        written = datetime.fromtimestamp(found.st_mtime, UTC)
        return StoredObject(str(path.relative_to(self._directory)), written, found.st_size)


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

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """See CodeStorage."""
        raised: list[Exception] = []

        async def watched() -> AsyncIterator[bytes]:
            try:
                async for chunk in chunks:
                    yield chunk
            except Exception as error:
                raised.append(error)
                raise

        try:
            await obstore.put_async(self._store, key, watched(), max_concurrency=S3_PARTS)
        except Exception as error:
            # What the chunks raised comes back in the store's words.
            if raised:
                raise raised[0] from None
            if isinstance(error, BaseError):
                raise StorageUnavailable(str(error)) from error
            raise

    async def copy(self, source: str, key: str) -> None:
        """See CodeStorage."""
        try:
            await obstore.copy_async(self._store, source, key)
        except FileNotFoundError as error:
            raise ObjectMissing(source) from error
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
        return StoredObject(key, found["last_modified"], found["size"])

    async def list_all(self, prefix: str) -> AsyncIterator[StoredObject]:
        """See CodeStorage."""
        try:
            async for batch in obstore.list(self._store, prefix):
                for found in batch:
                    yield StoredObject(found["path"], found["last_modified"], found["size"])
        except BaseError as error:
            raise StorageUnavailable(str(error)) from error

    async def delete_all(self, prefix: str) -> None:
        """See CodeStorage."""
        try:
            async for batch in obstore.list(self._store, prefix):
                await obstore.delete_async(self._store, [found["path"] for found in batch])
        except BaseError as error:
            raise StorageUnavailable(str(error)) from error

    async def folders(self, prefix: str) -> list[str]:
        """See CodeStorage."""
        try:
            found = await obstore.list_with_delimiter_async(self._store, prefix)
        except BaseError as error:
            raise StorageUnavailable(str(error)) from error
        return [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]


def _beside(target: Path) -> tuple[int, str]:
    """A new, open file in `target`'s directory, which is made if need be."""
    while True:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            return tempfile.mkstemp(dir=target.parent, prefix=WRITING)
        except FileNotFoundError:
            continue  # removed as empty between the two lines, by `_delete`


def _write_all(output: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[output.write(rest) :]


def _folders(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
