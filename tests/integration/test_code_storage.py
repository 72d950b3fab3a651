"""One suite over both code storages; S3 is a real server."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.storage import (
    CHUNK_BYTES,
    WRITING,
    CodeStorage,
    FileStorage,
    ObjectMissing,
    StorageUnavailable,
    open_storage,
)
from tests.conftest import wait_until

KEY = "functions/func-1/abc/code"
SECRETS = {"key_id": "faas-test", "secret": "faas-test-secret"}


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=1).close()
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 403  # it serves, and wants credentials
    except OSError:
        pass
    return False


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """A running S3 server that knows one key."""
    directory = Path(tempfile.mkdtemp(prefix="faas-s3-"))
    identity = {
        "name": "test",
        "credentials": [{"accessKey": SECRETS["key_id"], "secretKey": SECRETS["secret"]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    parts = ("master", "volume", "filer", "s3")
    names = [f"{part}.port{kind}" for part in parts for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [
        str(Path(sys.executable).with_name("weed")),
        *("server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-filer", "-s3", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.iam=false"),
        *("-master.volumeSizeLimitMB=64", "-volume.max=20", "-master.telemetry=false"),
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with (directory / "weed.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=directory)
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    try:
        wait_until(lambda: answers(endpoint), "the S3 server is ready", 60)
        yield endpoint
    finally:
        process.kill()  # nothing of it is needed; asked nicely it takes its time
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> CodeStorage:
    """An empty storage."""
    if request.param == "file":
        return open_storage(f"file://{tmp_path}/storage")
    endpoint = request.getfixturevalue("s3_endpoint")
    return open_storage(f"s3://code/{tmp_path.name}", endpoint=endpoint, **SECRETS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file to store."""
    path = tmp_path / "file"
    path.write_bytes(b"print('hello')\n")
    return path


async def read(storage: CodeStorage, key: str) -> bytes:
    return b"".join([chunk async for chunk in storage.get(key)])


async def keys(storage: CodeStorage, prefix: str) -> list[str]:
    return sorted([stored.key async for stored in storage.list_all(prefix)])


async def test_what_was_put_is_read_again(storage: CodeStorage, file: Path) -> None:
    await storage.put(KEY, file)
    assert await read(storage, KEY) == file.read_bytes()


async def test_large_objects_come_in_chunks(storage: CodeStorage, file: Path) -> None:
    data = bytes(range(256)) * 48 * 1024  # 12 MiB: more than one part of a multipart upload
    file.write_bytes(data)
    await storage.put(KEY, file)
    chunks = [chunk async for chunk in storage.get(KEY)]
    assert b"".join(chunks) == data
    assert len(chunks) > 1
    assert max(map(len, chunks)) < 4 * 1024 * 1024  # each fits into a message
    assert len(chunks[0]) >= CHUNK_BYTES


async def test_putting_again_is_fine(storage: CodeStorage, file: Path) -> None:
    await asyncio.gather(*(storage.put(KEY, file) for _ in range(4)))
    assert await keys(storage, "functions") == [KEY]
    assert await read(storage, KEY) == file.read_bytes()


async def test_what_is_not_there_is_missing(storage: CodeStorage) -> None:
    with pytest.raises(ObjectMissing):
        await read(storage, KEY)
    assert await storage.find(KEY) is None
    assert await keys(storage, "functions") == []
    await storage.delete(KEY)


async def test_objects_are_found_and_listed_by_folder(storage: CodeStorage, file: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 counts whole seconds
    for key in (KEY, "functions/func-2/abc/code", "uploads/upload-1/abc/code"):
        await storage.put(key, file)
    assert await keys(storage, "functions") == [KEY, "functions/func-2/abc/code"]
    found = await storage.find(KEY)
    assert found is not None
    assert found.key == KEY
    assert before < found.written_at < datetime.now(UTC) + timedelta(seconds=2)
    assert [s async for s in storage.list_all("functions/func-1")] == [found]


async def test_what_was_deleted_is_gone(storage: CodeStorage, file: Path) -> None:
    other = "functions/func-2/abc/code"
    await storage.put(KEY, file)
    await storage.put(other, file)
    await storage.delete(KEY)
    await storage.delete(KEY)
    assert await keys(storage, "functions") == [other]
    assert await storage.find(KEY) is None
    await storage.put(KEY, file)
    assert await read(storage, KEY) == file.read_bytes()


async def test_putting_and_deleting_neighbours_at_once_loses_nothing(
    storage: CodeStorage, file: Path
) -> None:
    async def put_and_delete(name: str) -> None:
        for _ in range(20):
            await storage.put(f"functions/f/{name}/code", file)
            await storage.delete(f"functions/f/{name}/code")

    await asyncio.gather(*(put_and_delete(name) for name in "abc"))
    assert await keys(storage, "functions") == []


async def test_a_stream_is_kept_whole_or_not_at_all(storage: CodeStorage) -> None:
    async def chunks(count: int, error: Exception | None = None) -> AsyncIterator[bytes]:
        for number in range(count):
            yield bytes([number]) * CHUNK_BYTES
        if error is not None:
            raise error

    await storage.put_stream(KEY, chunks(44))  # 11 MiB: more than two parts of an upload
    assert await read(storage, KEY) == b"".join([chunk async for chunk in chunks(44)])
    found = await storage.find(KEY)
    assert found is not None
    assert found.size_bytes == 44 * CHUNK_BYTES
    other = "functions/func-2/abc/code"
    for count in (0, 1, 44):
        with pytest.raises(LookupError, match="broke off"):
            await storage.put_stream(other, chunks(count, LookupError("broke off")))
    assert await keys(storage, "functions") == [KEY]


async def test_a_copy_is_an_object_of_its_own(storage: CodeStorage, file: Path) -> None:
    copy = "functions/func-2/abc/code"
    await storage.put(KEY, file)
    before = datetime.now(UTC) - timedelta(seconds=2)
    await storage.copy(KEY, copy)
    await storage.copy(KEY, copy)
    found = await storage.find(copy)
    assert found is not None
    assert found.written_at > before
    await storage.delete(KEY)
    assert await read(storage, copy) == file.read_bytes()
    with pytest.raises(ObjectMissing):
        await storage.copy(KEY, "functions/func-3/abc/code")
    assert await keys(storage, "functions") == [copy]


async def test_folders_are_listed_and_removed_whole(storage: CodeStorage, file: Path) -> None:
    for key in ("days/1/a", "days/1/b", "days/2/c", "days/22/d"):
        await storage.put(key, file)
    assert sorted(await storage.folders("days")) == ["1", "2", "22"]
    await storage.delete_all("days/2")
    await storage.delete_all("days/2")
    assert await keys(storage, "days") == ["days/1/a", "days/1/b", "days/22/d"]
    assert await storage.folders("nothing") == []


async def test_a_file_that_cannot_be_read_leaves_nothing(
    storage: CodeStorage, tmp_path: Path
) -> None:
    with pytest.raises((StorageUnavailable, FileNotFoundError)):
        await storage.put(KEY, tmp_path / "gone")
    assert await keys(storage, "functions") == []


async def test_an_unfinished_write_is_listed_but_never_read(tmp_path: Path, file: Path) -> None:
    storage = FileStorage(tmp_path / "storage")
    await storage.put(KEY, file)
    left = (tmp_path / "storage" / KEY).with_name(f"{WRITING}abc")
    left.write_bytes(b"print('he")
    assert str(left.relative_to(tmp_path / "storage")) in await keys(storage, "functions")
    assert await read(storage, KEY) == file.read_bytes()


async def test_a_storage_that_does_not_answer_says_so(tmp_path: Path, file: Path) -> None:
    (port,) = free_ports(1)
    storage = open_storage("s3://code/x", endpoint=f"http://127.0.0.1:{port}", **SECRETS)
    (tmp_path / "occupied").write_text("")
    for broken in (storage, FileStorage(tmp_path / "occupied")):
        with pytest.raises(StorageUnavailable):
            await broken.put(KEY, file)


async def test_wrong_credentials_are_refused(s3_endpoint: str, file: Path) -> None:
    storage = open_storage("s3://code/x", endpoint=s3_endpoint, key_id="faas-test", secret="wrong")
    with pytest.raises(StorageUnavailable):
        await storage.put(KEY, file)


@pytest.mark.parametrize("url", ["", "ftp://host/x", "/directory"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="file:///directory or s3://bucket/prefix"):
        open_storage(url)
