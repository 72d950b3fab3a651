"""Creating, reading, changing and deleting functions."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from faas.v1.function_pb2 import CodeFormat, FunctionVersion
from faas.v1.function_registry_service_pb2 import ListMinWarmRequest, ResolveFunctionRequest
from faas.v1.function_service_pb2 import GetFunctionVersionRequest, ListFunctionVersionsRequest
from services.errors import (
    EtagMismatch,
    FunctionExists,
    FunctionNotFound,
    InvalidArchive,
    InvalidField,
    InvalidPageToken,
    UnknownRuntime,
    VersionNotFound,
)
from tests.integration.functions import HANDLER, Functions, a_zip, refused, serve


@pytest.fixture
async def functions(database_url: str, tmp_path: Path) -> AsyncIterator[Functions]:
    async with serve(database_url, tmp_path) as functions:
        yield functions


def a_mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


async def test_name_runtime_and_code_are_enough(functions: Functions) -> None:
    made = await functions.create("echo")
    assert made.id.startswith("func-")
    assert (made.name, made.runtime, made.handler) == ("echo", "python", "main.handler")
    assert (made.memory_mb, made.cpus, made.timeout.seconds) == (128, 1.0, 30)
    assert (made.description, dict(made.env), dict(made.labels)) == ("", {}, {})
    assert made.version == 1
    assert made.code_sha256 == hashlib.sha256(HANDLER.encode()).hexdigest()
    assert made.code_size_bytes == len(HANDLER)
    assert made.created_at == made.updated_at
    assert made.etag


async def test_everything_can_be_said(functions: Functions) -> None:
    made = await functions.create(
        "full",
        description="It's “full”.",
        runtime="node",
        handler="main.run",
        code="exports.run = () => 1",
        memory_mb=256,
        cpus=0.5,
        timeout=Duration(seconds=1, nanos=500_000_000),
        env={"A": "1", "B": ""},
        labels={"team": "search", "app.example/tier": "2"},
    )
    assert made == await functions.get("full")
    assert made.description == "It's “full”."
    assert (made.runtime, made.handler) == ("node", "main.run")
    assert (made.memory_mb, made.cpus) == (256, 0.5)
    assert made.timeout == Duration(seconds=1, nanos=500_000_000)
    assert dict(made.env) == {"A": "1", "B": ""}
    assert dict(made.labels) == {"team": "search", "app.example/tier": "2"}


async def test_a_function_is_read_by_id_and_by_name(functions: Functions) -> None:
    made = await functions.create("echo")
    assert made == await functions.get("echo") == await functions.get(made.id)


@pytest.mark.parametrize(
    "reference",
    [
        "no-such",
        "func-00000000-0000-7000-8000-000000000000",
        "func-x",
        "ECHO",
        "a\x00",
        "é",
        "' --",
    ],
)
async def test_what_is_not_there_is_not_found(functions: Functions, reference: str) -> None:
    await functions.create("echo")
    await refused(functions.get(reference), FunctionNotFound)
    await refused(functions.update(reference, description="x"), FunctionNotFound)
    await refused(functions.delete(reference), FunctionNotFound)
    await refused(
        functions.registry.ResolveFunction(ResolveFunctionRequest(function_id=reference)),
        FunctionNotFound,
    )


async def test_a_name_is_taken_once(functions: Functions) -> None:
    await functions.create("echo")
    error = await refused(functions.create("echo"), FunctionExists)
    assert error.metadata == {"name": "echo"}
    assert len(functions.objects()) == 1


async def test_a_name_is_taken_once_by_many_at_the_same_time(functions: Functions) -> None:
    results = await asyncio.gather(
        *(functions.create("echo") for _ in range(12)), return_exceptions=True
    )
    errors = [error for error in results if isinstance(error, grpc.aio.AioRpcError)]
    assert len(errors) == 11
    assert {error.code() for error in errors} == {grpc.StatusCode.ALREADY_EXISTS}
    assert functions.rows("functions") == functions.rows("function_versions") == 1


async def test_what_does_not_parse_is_accepted(functions: Functions) -> None:
    made = await functions.create("broken", code="def handler(:\n")
    assert made.version == 1


async def test_what_is_present_changes(functions: Functions) -> None:
    made = await functions.create("echo", env={"A": "1"}, labels={"l": "1"})
    changed = await functions.update(made.id, memory_mb=512)
    assert changed.memory_mb == 512
    assert (changed.version, made.version) == (2, 1)
    assert dict(changed.env) == {"A": "1"}
    assert changed.etag != made.etag
    assert changed.created_at == made.created_at
    assert changed.updated_at.ToNanoseconds() > made.updated_at.ToNanoseconds()
    assert changed == await functions.get("echo")


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "def handler(p, c): return 2"},
        {"handler": "main.other"},
        {"runtime": "node"},
        {"memory_mb": 129},
        {"cpus": 2.0},
        {"timeout": Duration(seconds=5)},
        {"env": {"A": "2"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_what_decides_how_it_runs_makes_a_version(
    functions: Functions, fields: dict[str, Any]
) -> None:
    made = await functions.create("echo")
    first = await functions.kept_version(made.id, 1)
    changed = await functions.update("echo", **fields)
    assert changed.version == 2
    assert await functions.kept_version(made.id, 1) == first
    for name, value in fields.items():
        if name != "code":
            assert getattr(changed, name) == value


@pytest.mark.parametrize(
    "fields", [{"name": "other"}, {"description": "d"}, {"labels": {"a": "b"}}]
)
async def test_what_is_for_people_makes_none(functions: Functions, fields: dict[str, Any]) -> None:
    made = await functions.create("echo")
    changed = await functions.update("echo", **fields)
    assert changed.version == 1
    assert changed.etag != made.etag
    assert functions.rows("function_versions") == 1


async def test_a_change_to_what_is_there_already_changes_nothing(functions: Functions) -> None:
    values: dict[str, Any] = {
        "name": "echo",
        "description": "d",
        "runtime": "python",
        "handler": "main.handler",
        "code": HANDLER,
        "memory_mb": 64,
        "cpus": 0.1,
        "timeout": Duration(nanos=1_000_000),
        "env": {"A": "1"},
        "labels": {"b": "2"},
    }
    made = await functions.create(**values)
    assert await functions.update(made.id, **values) == made
    assert await functions.update(made.id) == made
    assert functions.rows("function_versions") == 1


async def test_a_mask_limits_and_clears(functions: Functions) -> None:
    made = await functions.create(
        "echo",
        description="d",
        memory_mb=512,
        cpus=2.0,
        timeout=Duration(seconds=9),
        env={"A": "1"},
        labels={"b": "2"},
    )
    limited = await functions.update(
        "echo", description="e", memory_mb=64, update_mask=a_mask("description")
    )
    assert (limited.description, limited.memory_mb, limited.version) == ("e", 512, 1)
    mask = a_mask("description", "memory_mb", "cpus", "timeout", "env", "labels")
    cleared = await functions.update("echo", memory_mb=100, update_mask=mask)
    assert cleared.version == 2
    assert (cleared.description, dict(cleared.env), dict(cleared.labels)) == ("", {}, {})
    assert (cleared.memory_mb, cleared.cpus, cleared.timeout.seconds) == (100, 1.0, 30)
    assert cleared.code_sha256 == made.code_sha256


async def test_a_mask_lets_the_source_decide_the_handler_again(functions: Functions) -> None:
    await functions.create("echo", handler="main.other")
    changed = await functions.update("echo", update_mask=a_mask("handler"))
    assert changed.handler == "main.handler"


async def test_a_handler_stays_with_new_code_and_is_found_anew_with_a_new_runtime(
    functions: Functions,
) -> None:
    await functions.create("echo")
    assert (await functions.update("echo", code="print(1)")).handler == "main.handler"
    code = "package main\n\nfunc Handler(ctx context.Context) {}\n"
    assert (await functions.update("echo", runtime="go", code=code)).handler == "main.Handler"


@pytest.mark.parametrize("path", ["no_such", "etag", "function_id", "labels.team", "name", "code"])
async def test_a_mask_of_what_cannot_be_is_refused(functions: Functions, path: str) -> None:
    made = await functions.create("echo")
    mask = a_mask("description", path)
    call = functions.update("echo", description="x", update_mask=mask)
    error = await refused(call, InvalidField, "update_mask")
    assert path in error.message
    assert await functions.get("echo") == made


async def test_an_etag_guards_changes(functions: Functions) -> None:
    made = await functions.create("echo")
    changed = await functions.update("echo", description="1", etag=made.etag)
    await refused(functions.update("echo", description="2", etag=made.etag), EtagMismatch)
    await refused(functions.update("echo", description="2", etag="made up"), EtagMismatch)
    await refused(functions.delete("echo", made.etag), EtagMismatch)
    assert await functions.get("echo") == changed
    await functions.delete("echo", changed.etag)


async def test_one_of_many_with_one_etag_wins(functions: Functions) -> None:
    made = await functions.create("echo")
    calls = (functions.update("echo", memory_mb=100 + n, etag=made.etag) for n in range(10))
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [error for error in results if isinstance(error, grpc.aio.AioRpcError)]
    assert {error.code() for error in errors} == {grpc.StatusCode.ABORTED}
    assert len(errors) == 9
    assert functions.rows("function_versions") == 2


async def test_changes_at_the_same_time_lose_nothing(functions: Functions) -> None:
    await functions.create("echo")
    await asyncio.gather(
        functions.update("echo", memory_mb=64),
        functions.update("echo", cpus=3.0),
        functions.update("echo", env={"A": "1"}),
        functions.update("echo", description="d"),
        functions.update("echo", code="print(1)"),
    )
    now = await functions.get("echo")
    assert (now.memory_mb, now.cpus, dict(now.env)) == (64, 3.0, {"A": "1"})
    assert (now.description, now.version) == ("d", 5)
    assert await functions.fetch(now.id, 5) == b"print(1)"


async def test_renaming_to_a_name_that_is_taken_is_refused(functions: Functions) -> None:
    await functions.create("a")
    await functions.create("b")
    await refused(functions.update("b", name="a", memory_mb=64), FunctionExists)
    assert (await functions.get("b")).version == 1
    await functions.update("b", name="c")
    await refused(functions.get("b"), FunctionNotFound)
    await functions.create("b")


async def test_a_new_handler_must_be_in_the_code_that_is_there(functions: Functions) -> None:
    archive = a_zip({"main.py": HANDLER, "other.py": HANDLER})
    made = await functions.create("echo", archive=archive)
    await refused(functions.update("echo", handler="third.handler"), InvalidArchive, "handler")
    await refused(functions.update("echo", runtime="node"), InvalidArchive, "handler")
    assert await functions.get("echo") == made
    assert (await functions.update("echo", handler="other.handler")).version == 2


async def test_text_has_but_the_module_main(functions: Functions) -> None:
    await refused(functions.create("echo", handler="other.handler"), InvalidField, "handler")
    await functions.create("echo")
    await refused(functions.update("echo", handler="other.x"), InvalidField, "handler")


async def test_an_unknown_runtime_is_refused_with_those_that_are_there(
    functions: Functions,
) -> None:
    error = await refused(functions.create("echo", runtime="ruby"), UnknownRuntime, "runtime")
    assert error.metadata == {"runtimes": "python, node, go"}
    await functions.create("echo")
    await refused(functions.update("echo", runtime="ruby"), UnknownRuntime, "runtime")


async def test_a_deployment_says_which_runtimes_it_has(database_url: str, tmp_path: Path) -> None:
    async with serve(database_url, tmp_path, runtimes="ruby,python") as functions:
        assert (await functions.create("r", runtime="ruby", code="x")).handler == "main"
        await refused(functions.create("n", runtime="node"), UnknownRuntime, "runtime")


async def test_a_deleted_function_is_gone_and_its_name_is_free(functions: Functions) -> None:
    made = await functions.create("echo")
    await functions.delete("echo")
    for reference in ("echo", made.id):
        await refused(functions.get(reference), FunctionNotFound)
        await refused(functions.delete(reference), FunctionNotFound)
        await refused(functions.update(reference, memory_mb=64), FunctionNotFound)
        request = GetFunctionVersionRequest(function_id=reference, version=1)
        await refused(functions.public.GetFunctionVersion(request), FunctionNotFound)
        resolve = ResolveFunctionRequest(function_id=reference)
        await refused(functions.registry.ResolveFunction(resolve), FunctionNotFound)
    assert await functions.names() == []
    again = await functions.create("echo")
    assert again.id != made.id
    assert (await functions.get("echo")).id == again.id


async def test_the_mesh_reads_versions_of_deleted_functions(functions: Functions) -> None:
    made = await functions.create("echo")
    before = await functions.kept_version(made.id, 1)
    await functions.delete("echo")
    assert await functions.kept_version(made.id, 1) == before
    assert await functions.fetch(made.id, 1) == HANDLER.encode()


async def test_the_mesh_resolves_by_name_and_version(functions: Functions) -> None:
    made = await functions.create("echo")
    await functions.update("echo", memory_mb=64)
    for reference in ("echo", made.id):
        for asked, version, memory in ((0, 2, 64), (1, 1, 128), (2, 2, 64)):
            request = ResolveFunctionRequest(function_id=reference, version=asked)
            found = await functions.registry.ResolveFunction(request)
            assert found.function_name == "echo"
            assert found.version.function_id == made.id
            assert (found.version.version, found.version.memory_mb) == (version, memory)
    request = ResolveFunctionRequest(function_id="echo", version=3)
    await refused(functions.registry.ResolveFunction(request), VersionNotFound)


@pytest.mark.parametrize(
    "reference", ["echo", "func-x", "func-00000000-0000-7000-8000-000000000000"]
)
async def test_the_mesh_reads_versions_by_id_alone(functions: Functions, reference: str) -> None:
    await functions.create("echo")
    await refused(functions.kept_version(reference, 1), VersionNotFound)
    await refused(functions.fetch(reference, 1), VersionNotFound)


async def test_versions_are_read_and_listed(functions: Functions) -> None:
    made = await functions.create("echo")
    for memory in (200, 300, 400):
        await functions.update("echo", memory_mb=memory)
    request = GetFunctionVersionRequest(function_id="echo", version=2)
    second = await functions.public.GetFunctionVersion(request)
    assert (second.function_id, second.version, second.memory_mb) == (made.id, 2, 200)
    assert second.code_format == CodeFormat.CODE_FORMAT_TEXT
    missing = GetFunctionVersionRequest(function_id="echo", version=5)
    await refused(functions.public.GetFunctionVersion(missing), VersionNotFound)
    pages, token = [], ""
    while True:
        request = ListFunctionVersionsRequest(function_id="echo", page_size=3, page_token=token)
        page = await functions.public.ListFunctionVersions(request)
        pages.append([version.version for version in page.versions])
        token = page.next_page_token
        if not token:
            break
    assert pages == [[4, 3, 2], [1]]
    forged = ListFunctionVersionsRequest(function_id="echo", page_token="x")
    await refused(functions.public.ListFunctionVersions(forged), InvalidPageToken, "page_token")
    nobody = ListFunctionVersionsRequest(function_id="nobody")
    await refused(functions.public.ListFunctionVersions(nobody), FunctionNotFound)


async def test_the_kind_of_sandbox_is_a_versions_and_min_warm_the_functions(
    functions: Functions,
) -> None:
    made = await functions.create("echo", min_warm=2)
    assert (made.min_warm, made.sandbox) == (2, FunctionVersion.SANDBOX_UNSPECIFIED)
    more = await functions.update("echo", min_warm=3)
    assert (more.min_warm, more.version) == (3, 1)
    await refused(
        functions.update("echo", sandbox=FunctionVersion.ONE_SHOT), InvalidField, "min_warm"
    )
    fresh = await functions.update("echo", min_warm=0, sandbox=FunctionVersion.ONE_SHOT)
    assert (fresh.min_warm, fresh.sandbox, fresh.version) == (0, FunctionVersion.ONE_SHOT, 2)
    await refused(functions.update("echo", min_warm=1), InvalidField, "min_warm")
    back = await functions.update("echo", update_mask=a_mask("sandbox"))
    assert (back.sandbox, back.version) == (FunctionVersion.SANDBOX_UNSPECIFIED, 3)


async def test_what_is_to_be_kept_ready_is_told_to_the_mesh(functions: Functions) -> None:
    async def listed() -> list[tuple[str, int, str, int]]:
        response = await functions.registry.ListMinWarm(ListMinWarmRequest())
        return [(o.function_id, o.version, o.runtime, o.min_warm) for o in response.functions]

    await functions.create("other")
    first, second = [await functions.create(name, min_warm=n) for name, n in (("b", 2), ("a", 1))]
    await functions.update("b", memory_mb=64)
    assert await listed() == [(first.id, 2, "python", 2), (second.id, 1, "python", 1)]
    await functions.update("b", min_warm=0)
    await functions.delete("a")
    assert await listed() == []
