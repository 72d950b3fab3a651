"""Parts that are away, as callers of the gateway see it: 503 and no harm, or accepted."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2

from services.supervisor.postgres import Postgres
from services.supervisor.valkey import Valkey
from tests.conftest import new_database
from tests.integration.platform import Platform, running_platform
from tests.integration.relay import Relay
from tests.mesh import eventually

NEW = {"name": "new", "runtime": "python", "code": "def handler(p, c): return p"}


@dataclass
class Cut:
    """A platform whose PostgreSQL and Redis are behind relays."""

    platform: Platform
    postgres: Relay
    redis: Relay


@pytest.fixture
async def cut(
    run_dir: Path, tmp_path: Path, postgres_server: Postgres, valkey_server: Valkey
) -> AsyncIterator[Cut]:
    directory = run_dir / "outages"
    directory.mkdir(exist_ok=True)
    postgres = Relay(directory / ".s.PGSQL.5432", f"{run_dir}/pgsock/.s.PGSQL.5432")
    redis = Relay(directory / "redis.sock", f"{run_dir}/vk.sock")
    postgres.open()
    redis.open()
    with new_database(postgres_server) as url:
        behind = url.replace(f"{run_dir}/pgsock", str(directory))
        async with running_platform(behind, f"unix://{directory}/redis.sock") as platform:
            platform.mesh.database_url = url  # the tests' own look is not cut
            await platform.mesh.create("echo")
            yield Cut(platform, postgres, redis)
    postgres.close()
    redis.close()


@pytest.mark.parametrize("way", ["http", "grpc"])
async def test_without_postgresql_all_is_503_and_nothing_is_accepted(cut: Cut, way: str) -> None:
    before = cut.platform.written()
    cut.postgres.close()
    for rpc, fields in (
        ("Invoke", {"function_id": "echo"}),
        ("CreateFunction", NEW),
        ("GetFunction", {"function_id": "echo"}),
        ("ListFunctions", {}),
        ("ListInvocations", {}),
        ("DeleteFunction", {"function_id": "echo"}),
    ):
        answer = await cut.platform.ask(way, rpc, fields)
        assert answer.code == code_pb2.UNAVAILABLE, (rpc, answer)
        # An INSERT whose connection breaks may have been committed: that is not promised.
        unsure = {"OUTCOME_UNKNOWN"} if rpc == "Invoke" else set()
        assert answer.reason in {"DEPENDENCY_UNAVAILABLE", *unsure}
        assert way == "grpc" or answer.http_status == 503
        assert "PGSQL" not in answer.message
    assert cut.platform.written() == before
    cut.postgres.open()

    async def accepted() -> bool:
        return (await cut.platform.ask(way, "Invoke", {"function_id": "echo"})).code == 0

    await eventually("it is accepted again", accepted)


@pytest.mark.parametrize("way", ["http", "grpc"])
async def test_where_postgresql_goes_while_a_call_waits_it_is_answered_as_accepted(
    cut: Cut, way: str
) -> None:
    asked = {"function_id": "echo", "payload": 1, "wait": "5s"}
    asking = asyncio.create_task(cut.platform.ask(way, "Invoke", asked))
    await eventually("it is accepted", lambda: is_accepted(cut))
    cut.postgres.close()
    answer = await asking
    assert (answer.code, answer.body.get("status")) == (0, "PENDING"), answer
    cut.postgres.open()
    rows = cut.platform.mesh.rows("SELECT 'inv-' || id AS id FROM invocations")
    assert rows == [{"id": answer.body["id"]}]


@pytest.mark.parametrize("way", ["http", "grpc"])
async def test_a_service_lost_during_a_call_leaves_open_what_it_did(cut: Cut, way: str) -> None:
    asked = {"function_id": "echo", "payload": 1, "request_id": "once"}
    waiting = {**asked, "wait": "300s"}
    asking = asyncio.create_task(cut.platform.ask(way, "Invoke", waiting))
    await eventually("it is accepted", lambda: is_accepted(cut))
    await cut.platform.mesh.kill("invocations")
    answer = await asking
    assert (answer.code, answer.reason) == (code_pb2.UNAVAILABLE, "OUTCOME_UNKNOWN"), answer
    assert way == "grpc" or answer.http_status == 503
    await cut.platform.mesh.start("invocations")

    async def answered() -> dict[str, Any]:
        return (await cut.platform.ask(way, "Invoke", asked)).body

    again = await eventually("it is answered again", answered)
    rows = cut.platform.mesh.rows("SELECT 'inv-' || id AS id FROM invocations")
    assert rows == [{"id": again["id"]}]


async def is_accepted(cut: Cut) -> bool:
    return cut.platform.written()["invocations"] == 1


@pytest.mark.parametrize("way", ["http", "grpc"])
async def test_without_redis_work_is_accepted_and_offered_when_it_is_back(
    cut: Cut, way: str
) -> None:
    cut.redis.close()
    answer = await cut.platform.ask(way, "Invoke", {"function_id": "echo", "payload": 1})
    assert (answer.code, answer.body["status"]) == (0, "PENDING"), answer
    assert cut.platform.written()["invocations"] == 1
    cut.redis.open()
    await cut.platform.mesh.start("worker-1")
    record = await cut.platform.mesh.get(answer.body["id"], wait_s=60)
    assert record.result.number_value == 1


@pytest.mark.parametrize("way", ["http", "grpc"])
async def test_without_functionservice_nothing_is_accepted(cut: Cut, way: str) -> None:
    await cut.platform.mesh.kill("functions")
    for rpc, fields in (
        ("Invoke", {"function_id": "echo"}),
        ("GetFunction", {"function_id": "echo"}),
    ):
        answer = await cut.platform.ask(way, rpc, fields)
        assert answer.code == code_pb2.UNAVAILABLE, (rpc, answer)
        assert answer.reason == "DEPENDENCY_UNAVAILABLE"
        assert way == "grpc" or answer.http_status == 503
    assert cut.platform.written()["invocations"] == 0
