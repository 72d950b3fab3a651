"""Code: archives, uploads, downloads, and the sweeping of what nothing names."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import grpc.aio
import psycopg
import pytest
from google.api.httpbody_pb2 import HttpBody
from sqlalchemy import text

from faas.v1.function_pb2 import CodeFormat
from faas.v1.function_service_pb2 import DownloadCodeRequest, UploadCodeRequest
from services.channels import connect
from services.errors import (
    FunctionNotFound,
    InvalidArchive,
    MalformedRequest,
    MeshError,
    TooLarge,
    UploadNotFound,
    VersionNotFound,
)
from services.functions import keys
from services.functions.builds import Builds
from services.functions.database import Database
from services.functions.sweeper import Sweeper
from services.ids import new_uuid
from services.storage import CodeStorage, FileStorage
from tests.integration.functions import HANDLER, Functions, a_zip, refused, serve
from tests.mesh import eventually
from tests.unit.test_archive import a_tar

ZIP = a_zip({"main.py": HANDLER, "lib/data.txt": "x" * 5000})
JS = "exports.handler = (p) => p"


@pytest.fixture
async def functions(database_url: str, tmp_path: Path) -> AsyncIterator[Functions]:
    # Its own sweeper finds nothing old: it would be faster than the test's.
    async with serve(database_url, tmp_path, sweep_age_s=10**9) as functions:
        yield functions


def make_sweeper(database: Database, storage: CodeStorage) -> Sweeper:
    builds = Builds(database, storage, lease_s=15)
    return Sweeper(database=database, storage=storage, builds=builds, interval_s=3600, age_s=60)


@pytest.fixture
async def sweeper(functions: Functions) -> AsyncIterator[Sweeper]:
    """A sweeper that takes everything that is older than a minute."""
    database = Database(functions.database_url, connections=2)
    storage = FileStorage(functions.directory / "code")
    yield make_sweeper(database, storage)
    await database.close()


def age(functions: Functions) -> None:
    """Make all that is stored an hour old."""
    then = time.time() - 3600
    for path in functions.objects():
        os.utime(path, (then, then))


async def download(functions: Functions, reference: str, version: int = 0) -> tuple[str, bytes]:
    request = DownloadCodeRequest(function_id=reference, version=version)
    messages = [message async for message in functions.public.DownloadCode(request)]
    assert not any(message.content_type for message in messages[1:])
    return messages[0].content_type, b"".join(message.data for message in messages)


@pytest.mark.parametrize(
    ("runtime", "files", "handler"),
    [
        ("python", {"main.py": HANDLER}, "main.handler"),
        ("python", {"./main.py": "print(1)", "lib/a.py": ""}, "main"),
        ("node", {"main.js": JS}, "main.handler"),
        ("node", {"main.mjs": "export const handler = 1"}, "main.handler"),
        ("go", {"main.go": "package main\nfunc Handler() {}", "go.mod": ""}, "main.Handler"),
    ],
)
async def test_the_main_file_of_an_archive_decides_the_handler(
    functions: Functions, runtime: str, files: dict[str, str], handler: str
) -> None:
    made = await functions.create("echo", runtime=runtime, archive=a_zip(files))
    assert made.handler == handler


async def test_a_handler_may_be_in_another_module(functions: Functions) -> None:
    archive = a_zip({"app.py": HANDLER})
    made = await functions.create("echo", handler="app.handler", archive=archive)
    assert made.handler == "app.handler"


async def test_code_comes_back_as_it_was_handed_in(functions: Functions) -> None:
    tar = a_tar([("main.py", HANDLER.encode())])
    made = await functions.create("echo")
    await functions.update("echo", archive=ZIP)
    await functions.update("echo", archive=tar)
    assert await download(functions, "echo", 1) == ("text/plain; charset=utf-8", HANDLER.encode())
    assert await download(functions, made.id, 2) == ("application/zip", ZIP)
    assert await download(functions, "echo") == ("application/gzip", tar)
    assert (await functions.kept_version(made.id, 3)).code_format == CodeFormat.CODE_FORMAT_TAR_GZ
    assert await functions.fetch(made.id, 2) == ZIP
    wrong = DownloadCodeRequest(function_id="echo", version=4)
    await refused(anext(aiter(functions.public.DownloadCode(wrong))), VersionNotFound)
    wrong = DownloadCodeRequest(function_id="nobody")
    await refused(anext(aiter(functions.public.DownloadCode(wrong))), FunctionNotFound)


async def test_code_is_stored_under_its_hash(functions: Functions) -> None:
    made = await functions.create("echo")
    (path,) = functions.objects()
    key = f"functions/{made.id}/{made.code_sha256}/code"
    assert path == functions.directory / "code" / key


async def test_an_upload_becomes_a_function_once(functions: Functions) -> None:
    upload = await functions.upload(ZIP)
    assert upload.sha256 == hashlib.sha256(ZIP).hexdigest()
    assert (upload.size_bytes, upload.format) == (len(ZIP), CodeFormat.CODE_FORMAT_ZIP)
    assert upload.expires_at.seconds > time.time() + 3600
    made = await functions.create("echo", upload_id=upload.id)
    assert (made.handler, made.code_sha256) == ("main.handler", upload.sha256)
    assert await download(functions, "echo") == ("application/zip", ZIP)
    await refused(functions.create("other", upload_id=upload.id), UploadNotFound)
    assert len(functions.objects()) == 1
    assert functions.rows("uploads") == 0


async def test_an_upload_changes_a_function(functions: Functions) -> None:
    await functions.create("echo")
    upload = await functions.upload(ZIP)
    changed = await functions.update("echo", upload_id=upload.id)
    assert (changed.version, changed.code_sha256) == (2, upload.sha256)
    assert functions.rows("uploads") == 0


async def test_an_upload_is_taken_by_one_of_many(functions: Functions) -> None:
    upload = await functions.upload(ZIP)
    calls = (functions.create(f"f{n}", upload_id=upload.id) for n in range(8))
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [error for error in results if isinstance(error, grpc.aio.AioRpcError)]
    assert {error.code() for error in errors} == {grpc.StatusCode.NOT_FOUND}
    assert len(errors) == 7
    assert functions.rows("functions") == 1


async def test_a_refused_function_leaves_its_upload(functions: Functions) -> None:
    upload = await functions.upload(a_zip({"app.py": HANDLER}))
    await refused(functions.create("echo", upload_id=upload.id), InvalidArchive, "upload_id")
    await functions.create("echo", upload_id=upload.id, handler="app.handler")


async def test_large_uploads_go_through_and_too_large_ones_do_not(
    database_url: str, tmp_path: Path
) -> None:
    large = a_tar([("main.py", HANDLER.encode()), ("noise", os.urandom(5_000_000))])
    async with serve(database_url, tmp_path, max_upload_bytes=len(large)) as functions:
        upload = await functions.upload(large, chunk_bytes=1_000_000)
        made = await functions.create("echo", upload_id=upload.id)
        assert await functions.fetch(made.id, 1) == large
        error = await refused(functions.upload(large + b"x", 1_000_000), TooLarge)
        assert error.metadata == {"limit_bytes": str(len(large))}
        assert functions.rows("uploads") == 0


# So often that a write would meet the end of its call at least once.
OFTEN = 12


async def test_who_sends_on_hears_why_it_is_refused(database_url: str, tmp_path: Path) -> None:
    async with serve(database_url, tmp_path, max_upload_bytes=1_000_000) as functions:
        for _ in range(OFTEN):
            call = functions.upload(b"PK\x03\x04" + bytes(16_000_000), 1_000_000)
            error = await refused(call, TooLarge)
            assert error.metadata == {"limit_bytes": "1000000"}


async def test_who_sends_on_hears_that_a_message_is_none(functions: Functions) -> None:
    async with connect(functions.address) as channel:
        upload = channel.stream_unary("/faas.v1.FunctionService/UploadCode")
        good = UploadCodeRequest(chunk=HttpBody(data=bytes(65_536))).SerializeToString()
        for _ in range(OFTEN):
            messages = [good] * 16 + [b"\xff" * 65_536] * 200
            await refused(upload(iter(messages), timeout=60), MalformedRequest)


async def test_who_never_ends_is_refused_all_the_same(database_url: str, tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def chunks() -> AsyncIterator[UploadCodeRequest]:
        yield UploadCodeRequest(chunk=HttpBody(data=bytes(2000)))
        await ended.wait()

    async with serve(database_url, tmp_path, max_upload_bytes=1000) as functions:
        await refused(functions.public.UploadCode(chunks(), timeout=60), TooLarge)
    ended.set()


async def test_what_unpacks_to_too_much_is_refused(database_url: str, tmp_path: Path) -> None:
    bomb = a_zip({"main.py": HANDLER, "bomb": "0" * 1_000_000})
    async with serve(database_url, tmp_path, max_unpacked_bytes=500_000) as functions:
        await refused(functions.create(archive=bomb), InvalidArchive, "archive")
        await refused(functions.upload(bomb), InvalidArchive, "chunk")
        assert functions.objects() == []


@pytest.mark.parametrize("data", [b"", b"print(1)", ZIP[:-10]], ids=["empty", "text", "cut off"])
async def test_an_upload_must_be_an_archive(functions: Functions, data: bytes) -> None:
    await refused(functions.upload(data), InvalidArchive, "chunk")
    assert functions.rows("uploads") == 0
    assert functions.objects() == []


async def test_an_expired_upload_is_gone_and_swept(functions: Functions, sweeper: Sweeper) -> None:
    upload = await functions.upload(ZIP)
    kept = await functions.upload(ZIP)
    with psycopg.connect(functions.database_url) as connection:
        uuid = upload.id.removeprefix("upload-")
        connection.execute("UPDATE uploads SET expires_at = now() WHERE id = %s", [uuid])
    await refused(functions.create("echo", upload_id=upload.id), UploadNotFound)
    age(functions)
    assert await sweeper.sweep() == 1
    assert functions.rows("uploads") == 1
    await functions.create("echo", upload_id=kept.id)


async def test_a_crash_between_storing_and_committing_leaves_nothing_that_is_seen(
    functions: Functions, sweeper: Sweeper
) -> None:
    made = await functions.create("echo")
    file = functions.directory / "file"
    file.write_text("print('stored, and then the power failed')")
    storage = FileStorage(functions.directory / "code")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    orphans = [
        keys.of_function(new_uuid(), sha256),  # of a creation
        keys.of_function(UUID(made.id.removeprefix("func-")), sha256),  # of a change
        keys.of_upload(new_uuid(), sha256),
    ]
    for key in orphans:
        await storage.put(key, file)
    unfinished = (functions.directory / "code" / orphans[0]).with_name(".writing-x")
    unfinished.write_text("print('st")
    assert await functions.names() == ["echo"]
    assert await sweeper.sweep() == 0  # all could still be under way
    age(functions)
    assert await sweeper.sweep() == 4
    assert len(functions.objects()) == 1
    assert await functions.fetch(made.id, 1) == HANDLER.encode()


async def test_code_of_old_versions_and_deleted_functions_is_kept(
    functions: Functions, sweeper: Sweeper
) -> None:
    made = await functions.create("echo")
    await functions.update("echo", code="print(2)")
    await functions.delete("echo")
    age(functions)
    assert await sweeper.sweep() == 0
    assert await functions.fetch(made.id, 1) == HANDLER.encode()
    assert await functions.fetch(made.id, 2) == b"print(2)"


async def test_what_is_not_ours_is_left_alone(functions: Functions, sweeper: Sweeper) -> None:
    others = [functions.directory / "code" / "functions" / name for name in ("x", "func-1/y/code")]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    age(functions)
    assert await sweeper.sweep() == 0
    assert functions.objects() == sorted(others)


class PausedStorage(FileStorage):
    """A filesystem that waits before it deletes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.deleting, self.go_on = asyncio.Event(), asyncio.Event()

    async def delete(self, key: str) -> None:
        self.deleting.set()
        await self.go_on.wait()
        await super().delete(key)


async def test_code_that_is_named_while_it_is_swept_is_stored_again(functions: Functions) -> None:
    made = await functions.create("echo")
    file = functions.directory / "file"
    file.write_text("print(2)")
    storage = PausedStorage(functions.directory / "code")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    await storage.put(keys.of_function(UUID(made.id.removeprefix("func-")), sha256), file)
    age(functions)
    database = Database(functions.database_url, connections=2)
    sweeper = make_sweeper(database, storage)
    sweeping = asyncio.create_task(sweeper.sweep())
    await storage.deleting.wait()  # it has found the object old, and holds the row
    changing = asyncio.create_task(functions.update("echo", code="print(2)"))

    async def change_waits() -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        async with database.reading() as session:
            return bool((await session.execute(text(query))).scalar())

    await eventually("the change has stored its code and waits", change_waits)
    storage.go_on.set()
    assert await sweeping == 1
    assert (await changing).version == 2
    await database.close()
    assert await functions.fetch(made.id, 2) == b"print(2)"


async def test_the_service_sweeps_when_it_starts(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    storage = FileStorage(tmp_path / "code")
    key = keys.of_function(new_uuid(), "0" * 64)
    await storage.put(key, file)
    os.utime(tmp_path / "code" / key, (0, 0))
    async with serve(database_url, tmp_path) as functions:

        async def swept() -> bool:
            return not functions.objects()

        await eventually("the orphan is swept", swept)


async def test_code_that_was_lost_is_our_mistake(functions: Functions) -> None:
    made = await functions.create("echo")
    functions.objects()[0].unlink()
    await refused(functions.fetch(made.id, 1), MeshError)
