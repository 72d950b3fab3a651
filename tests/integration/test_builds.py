"""Builds as FunctionService keeps them: who has one, for how long, and what comes of it.

The workers here are calls of this test; what real ones make of it is in test_go_builds.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration

from faas.v1.function_build_service_pb2 import (
    AwaitBuildRequest,
    AwaitBuildResponse,
    FetchBinaryRequest,
    FetchSourceRequest,
    FinishBuildRequest,
    RenewBuildRequest,
    TakeBuildRequest,
    TakeBuildResponse,
)
from faas.v1.function_pb2 import Function, FunctionVersion
from faas.v1.function_service_pb2 import GetFunctionVersionRequest, ListFunctionVersionsRequest
from services.errors import (
    DependencyUnavailable,
    FunctionNotFound,
    InvalidCode,
    InvalidField,
    VersionNotFound,
)
from services.functions.builds import MAX_LOSSES, Builds
from services.functions.database import Database
from services.functions.sweeper import Sweeper
from services.ids import new_uuid
from services.storage import FileStorage
from tests.integration.functions import Functions, a_zip, refused, serve
from tests.mesh import eventually

CODE = "package main\n\nfunc Handler() {}\n"
TARGET = "linux/amd64 go1.26.1 shim-1"
BINARY = bytes(range(256)) * 5000  # more than one message has
SAID = "main.go:3:1: undefined: x"
BUILDING, READY, FAILED = FunctionVersion.BUILDING, FunctionVersion.READY, FunctionVersion.FAILED


@pytest.fixture
async def functions(database_url: str, tmp_path: Path) -> AsyncIterator[Functions]:
    async with serve(database_url, tmp_path, build_pickup_s=60) as functions:
        yield functions


async def create(functions: Functions, name: str = "built", **fields: Any) -> Function:
    return await functions.create(name, **{"runtime": "go", "code": CODE, **fields})


async def take(
    functions: Functions, target: str = TARGET, wait_s: int = 0, worker_id: str = "worker-1"
) -> TakeBuildResponse:
    wait = Duration(seconds=wait_s)
    request = TakeBuildRequest(worker_id=worker_id, runtime="go", target=target, wait=wait)
    return await functions.builds.TakeBuild(request)


async def finish(functions: Functions, grant: str, data: bytes = b"", **outcome: Any) -> bool:
    def messages() -> Iterator[FinishBuildRequest]:
        yield FinishBuildRequest(grant=grant, **outcome)
        for start in range(0, len(data), 500_000):
            yield FinishBuildRequest(data=data[start : start + 500_000])

    return (await functions.builds.FinishBuild(messages())).recorded


async def hand_in(functions: Functions, grant: str, data: bytes = BINARY) -> bool:
    binary = FinishBuildRequest.Binary(sha256=hashlib.sha256(data).hexdigest())
    return await finish(functions, grant, data, binary=binary)


async def renew(functions: Functions, grant: str) -> bool:
    return (await functions.builds.RenewBuild(RenewBuildRequest(grant=grant))).held


async def build(
    functions: Functions, function_id: str, version: int = 1, target: str = TARGET, wait_s: int = 0
) -> AwaitBuildResponse:
    request = AwaitBuildRequest(
        function_id=function_id, version=version, target=target, wait=Duration(seconds=wait_s)
    )
    return await functions.builds.AwaitBuild(request)


async def fetch(functions: Functions, function_id: str, target: str = TARGET) -> bytes:
    request = FetchBinaryRequest(function_id=function_id, version=1, target=target)
    return b"".join([chunk.data async for chunk in functions.builds.FetchBinary(request)])


async def state(functions: Functions, name: str = "built") -> tuple[int, str]:
    found = await functions.get(name)
    return found.state, found.state_reason


def change(functions: Functions, statement: str) -> None:
    """What time would do."""
    with psycopg.connect(functions.database_url, autocommit=True) as connection:
        connection.execute(statement.encode())


def end_leases(functions: Functions) -> None:
    change(functions, "UPDATE builds SET due_at = now()")


async def test_a_version_is_built_once_and_kept_beside_its_code(functions: Functions) -> None:
    made = await create(functions)
    assert (made.state, made.state_reason) == (BUILDING, "")
    taken = await take(functions)
    assert (taken.version.function_id, taken.version.handler) == (made.id, "main.Handler")
    assert taken.version.code_sha256 == hashlib.sha256(CODE.encode()).hexdigest()
    source = functions.builds.FetchSource(FetchSourceRequest(grant=taken.grant))
    assert b"".join([chunk.data async for chunk in source]) == CODE.encode()
    assert not (await take(functions)).grant
    assert await state(functions) == (BUILDING, "")
    assert await hand_in(functions, taken.grant)
    assert await state(functions) == (READY, "")
    assert not (await take(functions)).grant
    ended = await build(functions, made.id)
    assert (ended.state, ended.sha256) == (READY, hashlib.sha256(BINARY).hexdigest())
    assert await fetch(functions, made.id) == BINARY
    code, binary = sorted(functions.objects(), key=lambda path: path.stat().st_size)
    assert code.parent == binary.parent


async def test_what_is_not_compiled_is_ready_at_once(functions: Functions) -> None:
    made = await functions.create("python", validate=True)
    assert made.state == READY
    assert not (await take(functions)).grant
    assert functions.rows("builds") == 0


async def test_states_are_in_lists_too(functions: Functions) -> None:
    await create(functions)
    await finish(functions, (await take(functions)).grant, error=SAID)
    await functions.update("built", code=CODE + "// 2\n")
    listed = await functions.public.ListFunctionVersions(
        ListFunctionVersionsRequest(function_id="built")
    )
    assert [(v.state, v.state_reason) for v in listed.versions] == [(BUILDING, ""), (FAILED, SAID)]
    request = GetFunctionVersionRequest(function_id="built", version=1)
    assert (await functions.public.GetFunctionVersion(request)).state_reason == SAID


async def test_of_many_who_ask_at_once_one_gets_it(functions: Functions) -> None:
    await create(functions)
    taken = await asyncio.gather(*(take(functions) for _ in range(8)))
    assert len([one for one in taken if one.grant]) == 1


async def test_who_waits_gets_it_when_it_comes(functions: Functions) -> None:
    waiting = asyncio.create_task(take(functions, wait_s=60))
    made = await create(functions)
    taken = await waiting
    assert taken.version.function_id == made.id
    awaiting = asyncio.create_task(build(functions, made.id, wait_s=60))
    await hand_in(functions, taken.grant)
    assert (await awaiting).state == READY


async def test_a_lease_that_ends_is_somebody_else_s(functions: Functions) -> None:
    made = await create(functions)
    lost = await take(functions)
    assert await renew(functions, lost.grant)
    assert not (await take(functions)).grant
    end_leases(functions)
    taken = await take(functions, worker_id="worker-2")
    assert taken.grant
    # What the first still says changes nothing.
    assert not await renew(functions, lost.grant)
    assert not await hand_in(functions, lost.grant, b"of the first")
    assert not await finish(functions, lost.grant, error=SAID)
    source = functions.builds.FetchSource(FetchSourceRequest(grant=lost.grant))
    await refused(anext(aiter(source)), VersionNotFound)
    assert await state(functions) == (BUILDING, "")
    assert await hand_in(functions, taken.grant)
    assert await fetch(functions, made.id) == BINARY


async def test_what_kills_its_workers_is_given_up(functions: Functions) -> None:
    await create(functions)
    for _ in range(MAX_LOSSES):
        assert (await take(functions)).grant
        end_leases(functions)
    assert not (await take(functions)).grant
    found, reason = await state(functions)
    assert found == FAILED
    assert "3 workers were lost" in reason
    await functions.update("built", code=CODE)
    assert (await take(functions)).grant


async def test_a_build_that_is_given_back_is_tried_again(functions: Functions) -> None:
    made = await create(functions)
    taken = await take(functions)
    assert await finish(functions, taken.grant, given_back="no space left")
    assert await state(functions) == (BUILDING, "no space left")
    assert (await build(functions, made.id)).reason == "no space left"
    assert not (await take(functions)).grant  # not at once
    end_leases(functions)
    assert await hand_in(functions, (await take(functions)).grant)
    assert await state(functions) == (READY, "")


async def test_a_failure_stays_until_the_code_is_deployed_again(functions: Functions) -> None:
    made = await create(functions)
    await finish(functions, (await take(functions)).grant, error=SAID)
    assert await state(functions) == (FAILED, SAID)
    ended = await build(functions, made.id)
    assert (ended.state, ended.reason) == (FAILED, SAID)
    await functions.update("built", description="changed")
    assert not (await take(functions)).grant
    again = await functions.update("built", code=CODE)
    assert (again.version, again.state) == (1, BUILDING)
    assert await hand_in(functions, (await take(functions)).grant)
    assert await state(functions) == (READY, "")
    await functions.update("built", code=CODE)
    assert not (await take(functions)).grant


async def test_versions_of_one_source_share_its_build(functions: Functions) -> None:
    await create(functions)
    await hand_in(functions, (await take(functions)).grant)
    changed = await functions.update("built", memory_mb=512)
    assert (changed.version, changed.state) == (2, READY)
    other = await functions.update("built", handler="main.Other")
    assert (other.version, other.state) == (3, BUILDING)
    assert (await take(functions)).version.handler == "main.Other"


async def test_other_targets_have_builds_of_their_own(functions: Functions) -> None:
    made = await create(functions)
    await hand_in(functions, (await take(functions)).grant)
    assert not (await take(functions, "linux/arm64 go1.26.1 shim-1")).grant
    assert (await build(functions, made.id, target="linux/arm64 go1.26.1 shim-1")).state == BUILDING
    assert not (await take(functions)).grant
    taken = await take(functions, "linux/arm64 go1.26.1 shim-1")
    await hand_in(functions, taken.grant, b"of the other kind")
    assert await fetch(functions, made.id) == BINARY
    assert await fetch(functions, made.id, "linux/arm64 go1.26.1 shim-1") == b"of the other kind"


async def test_a_binary_that_came_wrong_is_refused(functions: Functions) -> None:
    await create(functions)
    grant = (await take(functions)).grant
    binary = FinishBuildRequest.Binary(sha256="0" * 64)
    await refused(finish(functions, grant, BINARY, binary=binary), InvalidField, "binary.sha256")
    assert len(functions.objects()) == 1
    assert await hand_in(functions, grant)


async def test_a_binary_that_is_too_large_is_a_failure(database_url: str, tmp_path: Path) -> None:
    async with serve(database_url, tmp_path, max_binary_bytes=1000) as functions:
        await create(functions)
        assert await hand_in(functions, (await take(functions)).grant)
        found, reason = await state(functions)
        assert found == FAILED
        assert "larger than 1000 bytes" in reason
        assert len(functions.objects()) == 1


@pytest.mark.parametrize("left", [None, BINARY[:-1], b""])
async def test_a_binary_that_the_storage_lost_is_built_again(
    functions: Functions, left: bytes | None
) -> None:
    made = await create(functions)
    await hand_in(functions, (await take(functions)).grant)
    (binary,) = [path for path in functions.objects() if path.name.startswith("binary-")]
    binary.unlink() if left is None else binary.write_bytes(left)
    await refused(fetch(functions, made.id), VersionNotFound)
    assert await state(functions) == (BUILDING, "")
    await hand_in(functions, (await take(functions)).grant)
    assert await fetch(functions, made.id) == BINARY


async def test_a_version_that_is_gone_takes_its_binary_along(functions: Functions) -> None:
    await create(functions)
    await hand_in(functions, (await take(functions)).grant)
    database = Database(functions.database_url, connections=2)
    storage = FileStorage(functions.directory / "code")
    builds = Builds(database, storage, lease_s=15)
    # Younger than nothing: all is old.
    sweeper = Sweeper(database=database, storage=storage, builds=builds, interval_s=3600, age_s=-60)
    assert await sweeper.sweep() == 0
    change(functions, "DELETE FROM function_versions")
    assert await sweeper.sweep() == 2
    assert functions.objects() == []
    assert functions.rows("builds") == 0
    await database.close()


async def validated(functions: Functions, call: Any, **outcome: Any) -> Any:
    """What `call` answers when a worker ends its build so."""
    asking = asyncio.create_task(call)
    taken = await take(functions, wait_s=30)
    if outcome:
        assert await finish(functions, taken.grant, **outcome)
    else:
        assert await hand_in(functions, taken.grant)
    return await asking


async def test_with_validate_what_compiles_is_created_ready(functions: Functions) -> None:
    made = await validated(functions, create(functions, validate=True))
    assert (made.version, made.state) == (1, READY)
    assert await fetch(functions, made.id) == BINARY
    changed = await validated(
        functions, functions.update("built", code=CODE + "// 2\n", validate=True)
    )
    assert (changed.version, changed.state) == (2, READY)
    assert not (await take(functions)).grant


async def test_with_validate_what_does_not_compile_is_not_created(functions: Functions) -> None:
    call = refused(
        validated(functions, create(functions, validate=True), error=SAID), InvalidCode, "code"
    )
    assert SAID in (await call).message
    await refused(functions.get("built"), FunctionNotFound)
    assert functions.objects() == []
    for table in ("functions", "function_versions", "builds"):
        assert functions.rows(table) == 0


async def test_with_validate_what_does_not_compile_changes_nothing(functions: Functions) -> None:
    before = await validated(functions, create(functions, validate=True))
    call = functions.update("built", code="package main", memory_mb=512, validate=True)
    await refused(validated(functions, call, error=SAID), InvalidCode, "code")
    call = functions.update("built", handler="main.Missing", validate=True)
    await refused(validated(functions, call, error=SAID), InvalidCode, "handler")
    assert await functions.get("built") == before
    assert functions.rows("builds") == 1


async def test_with_validate_an_upload_that_is_refused_can_be_taken_again(
    functions: Functions,
) -> None:
    upload = await functions.upload(a_zip({"main.go": CODE}))
    fields = {"runtime": "go", "upload_id": upload.id, "validate": True}
    call = functions.create("built", **fields)
    await refused(validated(functions, call, error=SAID), InvalidCode, "upload_id")
    made = await validated(functions, functions.create("built", **fields))
    assert made.state == READY


async def test_with_validate_and_no_worker_it_is_unavailable(
    database_url: str, tmp_path: Path
) -> None:
    async with serve(database_url, tmp_path, build_pickup_s=0.2) as functions:
        error = await refused(create(functions, validate=True), DependencyUnavailable)
        assert "No worker began to compile it" in error.message
        assert functions.objects() == []
        for table in ("functions", "function_versions", "builds"):
            assert functions.rows(table) == 0


async def test_with_validate_and_a_caller_who_leaves_nothing_is_created(
    functions: Functions,
) -> None:
    asking = asyncio.create_task(create(functions, validate=True))
    taken = await take(functions, wait_s=30)
    asking.cancel()

    async def forgotten() -> bool:
        return functions.rows("builds") == 0

    await eventually("the build is withdrawn", forgotten)
    assert not await hand_in(functions, taken.grant)
    assert functions.rows("functions") == 0


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (lambda s, _: s.TakeBuild(TakeBuildRequest(runtime="go", target="t")), "worker_id"),
        (lambda s, _: s.RenewBuild(RenewBuildRequest(grant="nobody's")), "grant"),
        (lambda s, _: s.FinishBuild(iter([FinishBuildRequest(error="x")])), "grant"),
        (lambda s, grant: s.FinishBuild(iter([FinishBuildRequest(grant=grant)])), "outcome"),
        (lambda s, _: s.FinishBuild(iter([])), "grant"),
        (lambda s, _: s.AwaitBuild(AwaitBuildRequest(function_id="f", version=1)), "target"),
    ],
)
async def test_bad_input_is_refused_by_name(
    functions: Functions, request_: Any, field: str
) -> None:
    await refused(request_(functions.builds, str(new_uuid())), InvalidField, field)
