"""Hostile archives, by every way in: refused by name, and nothing is kept."""

import base64
import io
import tarfile
import zipfile
from collections.abc import AsyncIterator

import grpc.aio
import pytest
import pytest_asyncio
from google.rpc import code_pb2

from faas.v1.function_service_pb2 import UploadCodeRequest
from faas.v1.function_service_pb2_grpc import FunctionServiceStub
from services.supervisor.postgres import Postgres
from services.supervisor.valkey import Valkey
from tests.conftest import new_database
from tests.integration.platform import (
    Answer,
    Platform,
    answer_of,
    answer_of_error,
    running_platform,
)
from tests.mesh import ECHO

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_UPLOAD_BYTES = 4 * 1024 * 1024
MAX_UNPACKED_BYTES = 8 * 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(postgres_server: Postgres, valkey_server: Valkey) -> AsyncIterator[Platform]:
    settings = {"max_upload_bytes": MAX_UPLOAD_BYTES, "max_unpacked_bytes": MAX_UNPACKED_BYTES}
    with new_database(postgres_server) as database_url:
        async with running_platform(database_url, valkey_server.url, **settings) as platform:
            yield platform


def a_zip(**files: str | bytes) -> bytes:
    """A zip with a good `main.py` beside `files`; `__` stands for `/`."""
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("main.py", ECHO)
        for name, data in files.items():
            made.writestr(name.replace("__", "/"), data)
    return output.getvalue()


def a_zip_with(name: str, data: bytes = b"x", mode: int = 0) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("main.py", ECHO)
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        made.writestr(info, data)
    return output.getvalue()


def a_tar_with(name: str, **fields: object) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as made:
        main = tarfile.TarInfo("main.py")
        main.size = len(ECHO)
        made.addfile(main, io.BytesIO(ECHO.encode()))
        info = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(info, field, value)
        made.addfile(info)
    return output.getvalue()


BOMB = bytes(MAX_UNPACKED_BYTES + 1)
HOSTILE = {
    "no archive": b"print('hello')",
    "empty zip": b"PK\x05\x06" + bytes(18),
    "cut off": a_zip()[:-30],
    "traversal in a zip": a_zip_with("../../etc/x"),
    "traversal in a tar": a_tar_with("a/../../x"),
    "absolute in a zip": a_zip_with("/etc/x"),
    "absolute in a tar": a_tar_with("/etc/x"),
    "backslashes": a_zip_with("..\\x"),
    "drive": a_zip_with("C:x"),
    "newline": a_zip_with("a\nb"),
    "link in a zip": a_zip_with("link", b"/etc/passwd", mode=0o120777),
    "link in a tar": a_tar_with("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": a_tar_with("link", type=tarfile.LNKTYPE, linkname="main.py"),
    "device": a_tar_with("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "pipe": a_tar_with("pipe", type=tarfile.FIFOTYPE),
    "bomb in a zip": a_zip(bomb=BOMB),
    "file as a folder": a_zip(**{"main.py__x": "x"}),
}


async def handed_in(platform: Platform, way: str, data: bytes) -> Answer:
    """What CreateFunction or UploadCode answers to this archive."""
    fields = {
        "name": "new",
        "runtime": "python",
        "archive": base64.b64encode(data).decode(),
    }
    if way in ("http", "grpc"):
        return await platform.ask(way, "CreateFunction", fields)
    if way == "PUT":
        return answer_of(await platform.http.put("/uploads", content=data))

    async def chunks() -> AsyncIterator[UploadCodeRequest]:
        for start in range(0, len(data), 65536):
            request = UploadCodeRequest()
            request.chunk.data = data[start : start + 65536]
            yield request

    try:
        upload = await FunctionServiceStub(platform.channel).UploadCode(chunks())
    except grpc.aio.AioRpcError as error:
        return answer_of_error(error)
    return Answer(0, body={"id": upload.id})


@pytest.mark.parametrize("way", ["http", "grpc", "PUT", "UploadCode"])
@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
async def test_it_is_refused_and_nothing_is_kept(platform, way, data):
    answer = await handed_in(platform, way, data)
    assert answer.code == code_pb2.INVALID_ARGUMENT, answer
    assert answer.reason == "INVALID_ARCHIVE"
    assert answer.fields == {"archive" if way in ("http", "grpc") else "chunk"}
    assert answer.message
    assert way in ("grpc", "UploadCode") or answer.http_status == 400
    assert set(platform.written().values()) == {0}


@pytest.mark.parametrize("way", ["PUT", "UploadCode"])
async def test_who_sends_on_hears_why_it_is_refused(platform, way):
    data = b"PK\x03\x04" + bytes(10 * MAX_UPLOAD_BYTES)
    for _ in range(12):
        answer = await handed_in(platform, way, data)
        assert answer.reason == "TOO_LARGE", answer


@pytest.mark.parametrize("way", ["PUT", "UploadCode"])
async def test_an_upload_beyond_the_limit_is_too_large(platform, way):
    data = b"PK\x03\x04" + bytes(MAX_UPLOAD_BYTES)
    answer = await handed_in(platform, way, data)
    assert answer.reason == "TOO_LARGE", answer
    assert str(MAX_UPLOAD_BYTES) in answer.message
    assert set(platform.written().values()) == {0}


@pytest.mark.parametrize("way", ["http", "grpc"])
async def test_an_archive_without_the_handlers_file_is_refused(platform, way):
    for fields, data in (
        ({}, _without_main()),
        ({"handler": "other.handler"}, a_zip()),
        ({"runtime": "node"}, a_zip()),
        ({"runtime": "go", "handler": "main.Handler"}, a_zip()),
    ):
        body = {"name": "new", "runtime": "python", **fields}
        body["archive"] = base64.b64encode(data).decode()
        answer = await platform.ask(way, "CreateFunction", body)
        assert (answer.reason, answer.fields) == ("INVALID_ARCHIVE", {"archive"}), answer
        assert "main." in answer.message or "other.py" in answer.message
        assert set(platform.written().values()) == {0}


def _without_main() -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as made:
        made.writestr("app/main.py", ECHO)
    return output.getvalue()


async def test_a_good_archive_is_taken_by_every_way(platform):
    """So what is refused above is refused for what it is."""
    data = a_zip(lib__a="A = 1")
    for way in ("PUT", "UploadCode"):
        upload = await handed_in(platform, way, data)
        body = {"name": f"by-{way.lower()}", "runtime": "python", "upload_id": upload.body["id"]}
        made = await platform.ask("http", "CreateFunction", body)
        assert made.body["code_size_bytes"] == str(len(data)), made
        again = await platform.ask("http", "CreateFunction", {**body, "name": "again"})
        assert again.reason == "UPLOAD_NOT_FOUND", "an upload is good for one function"
        code = await platform.http.get(f"/functions/{made.body['id']}/code")
        assert code.content == data
    for way in ("http", "grpc"):
        made = await handed_in(platform, way, data)
        assert made.code == 0, made
        await platform.ask(way, "DeleteFunction", {"function_id": "new"})
