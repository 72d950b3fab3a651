"""Every constraint answers with the field's name, and nothing is written."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from faas.v1.function_registry_service_pb2 import GetVersionRequest, ResolveFunctionRequest
from faas.v1.function_service_pb2 import CreateFunctionRequest, DownloadCodeRequest
from services.errors import InvalidArchive, InvalidField, UploadNotFound
from tests.integration.functions import HANDLER, Functions, a_zip, refused, serve

LONG = "x" * 32769


@pytest.fixture
async def functions(database_url: str, tmp_path: Path) -> AsyncIterator[Functions]:
    async with serve(database_url, tmp_path) as functions:
        yield functions


SHARED: list[tuple[str, Any, str]] = [
    *(
        ("name", name, "name")
        for name in (
            "",
            "Echo",
            "1a",
            "a_b",
            "a b",
            "../x",
            "a\x00",
            "a\n",
            "é",
            "\u0430",
            "a" * 64,
        )
    ),
    ("name", "func-x", "name"),
    ("description", "x" * 1025, "description"),
    ("description", "a\x00b", "description"),
    *(("runtime", runtime, "runtime") for runtime in ("", "Python", "py thon", "x" * 33, "1")),
    *(
        ("handler", handler, "handler")
        for handler in ("a.b.c", ".x", "x.", "a/b", "../main", "main.x y", "x" * 129, "main\n")
    ),
    ("code", "", "code"),
    ("code", "x" * (1024 * 1024 + 1), "code"),
    ("archive", b"", "archive"),
    ("archive", b"x" * (3 * 1024 * 1024 + 1), "archive"),
    ("upload_id", "", "upload_id"),
    ("upload_id", "x" * 129, "upload_id"),
    *(("memory_mb", memory, "memory_mb") for memory in (-1, 0, 15, 32769, 2**31 - 1)),
    *(
        ("cpus", cpus, "cpus")
        for cpus in (0.0, -1.0, 0.009, 128.5, float("nan"), float("inf"), float("-inf"))
    ),
    ("timeout", Duration(), "timeout"),
    ("timeout", Duration(nanos=999_999), "timeout"),
    ("timeout", Duration(seconds=901), "timeout"),
    ("timeout", Duration(seconds=900, nanos=1), "timeout"),
    ("timeout", Duration(seconds=-1), "timeout"),
    *(
        ("env", {name: "x"}, f'env["{name}"]')
        for name in ("", "1A", "A-B", "A=B", "LD_PRELOAD", "FAAS_X", "FUNCTION_HANDLER", "é")
    ),
    ("env", {"A": "a\x00b"}, 'env["A"]'),
    ("env", {"A": LONG}, 'env["A"]'),
    ("env", {f"A{n}": "" for n in range(129)}, "env"),
    *(
        ("labels", {name: "x"}, f'labels["{name}"]')
        for name in ("", ".a", "a b", "x" * 64, "a\x00")
    ),
    ("labels", {"a": "x" * 257}, 'labels["a"]'),
    ("labels", {"a": "\x00"}, 'labels["a"]'),
    ("labels", {f"a{n}": "" for n in range(65)}, "labels"),
]
IDS = [f"{field}-{n}" for n, (field, _, _) in enumerate(SHARED)]


@pytest.mark.parametrize(("field", "value", "named"), SHARED, ids=IDS)
async def test_what_breaks_a_rule_is_named_and_nothing_is_written(
    functions: Functions, field: str, value: Any, named: str
) -> None:
    await refused(functions.create(**{field: value}), InvalidField, named)
    assert functions.rows("functions") == 0
    assert functions.objects() == []
    made = await functions.create("echo")
    await refused(functions.update("echo", **{field: value}), InvalidField, named)
    assert await functions.get("echo") == made
    assert functions.rows("function_versions") == 1


async def test_an_empty_handler_means_that_the_source_decides(functions: Functions) -> None:
    assert (await functions.create("echo", handler="")).handler == "main.handler"
    # In a change absent is absent, so an empty one is wrong.
    await refused(functions.update("echo", handler=""), InvalidField, "handler")


async def test_the_limits_themselves_are_good(functions: Functions) -> None:
    least = await functions.create(
        "a", memory_mb=16, cpus=0.01, timeout=Duration(nanos=1_000_000), code="x"
    )
    assert (least.memory_mb, least.cpus, least.timeout.nanos) == (16, 0.01, 1_000_000)
    most = await functions.create(
        "a" * 63,
        description="x" * 1024,
        memory_mb=32768,
        cpus=128.0,
        timeout=Duration(seconds=900),
        code="#" * 1024 * 1024,
        env={f"A{n}": "" for n in range(127)} | {"B": "x" * 32768},
        labels={f"a{n}": "x" * 256 for n in range(64)},
    )
    assert (most.memory_mb, most.cpus, most.timeout.seconds) == (32768, 128.0, 900)
    assert most == await functions.get("a" * 63)


async def test_all_that_is_wrong_is_named_at_once(functions: Functions) -> None:
    call = functions.create("Wrong", memory_mb=1, env={"LD_PRELOAD": "x"})
    await refused(call, InvalidField, "name", "memory_mb", 'env["LD_PRELOAD"]')


async def test_code_must_be_there(functions: Functions) -> None:
    request = CreateFunctionRequest(name="echo", runtime="python")
    await refused(functions.public.CreateFunction(request), InvalidField, "source")


async def test_other_calls_name_their_fields_too(functions: Functions) -> None:
    public, registry = functions.public, functions.registry
    await refused(functions.get(""), InvalidField, "function_id")
    await refused(functions.get("x" * 129), InvalidField, "function_id")
    await refused(functions.delete("", "x" * 129), InvalidField, "function_id", "etag")
    request = DownloadCodeRequest(function_id="x", version=-1)
    await refused(anext(aiter(public.DownloadCode(request))), InvalidField, "version")
    wrong = GetVersionRequest(version=0)
    await refused(registry.GetVersion(wrong), InvalidField, "function_id", "version")
    resolve = ResolveFunctionRequest(function_id="x", version=-1)
    await refused(registry.ResolveFunction(resolve), InvalidField, "version")


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(b"print('hello')", id="no archive"),
        pytest.param(a_zip({"main.py": HANDLER})[:-30], id="cut off"),
        pytest.param(a_zip({"main.py": HANDLER, "../../x": ""}), id="traversal"),
        pytest.param(a_zip({"main.py": HANDLER, "/etc/x": ""}), id="absolute"),
        pytest.param(a_zip({"other.py": HANDLER}), id="no main"),
        pytest.param(a_zip({"app/main.py": HANDLER}), id="main elsewhere"),
        pytest.param(a_zip({"main.js": ""}), id="another language"),
    ],
)
async def test_a_bad_archive_is_refused_and_nothing_is_written(
    functions: Functions, archive: bytes
) -> None:
    await refused(functions.create(archive=archive), InvalidArchive, "archive")
    assert functions.rows("functions") == 0
    assert functions.objects() == []
    made = await functions.create("echo")
    await refused(functions.update("echo", archive=archive), InvalidArchive, "archive")
    assert await functions.get("echo") == made


async def test_an_unknown_upload_is_not_found(functions: Functions) -> None:
    for upload in ("x", "upload-x", "upload-00000000-0000-7000-8000-000000000000", "a\x00"):
        await refused(functions.create(upload_id=upload), UploadNotFound)
    assert functions.rows("functions") == 0
