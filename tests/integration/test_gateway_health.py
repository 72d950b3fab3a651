"""`/health` with each part there and away, and the OpenAPI document, through Envoy."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from openapi_spec_validator import validate

from faas.v1.worker_pb2 import Worker
from services.supervisor.postgres import Postgres
from services.supervisor.valkey import Valkey
from tests.integration.gateway import Stack, reason, running_gateway, running_stack
from tests.integration.relay import Relay
from tests.mesh import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTS = {"postgresql", "redis", "functions", "invocations", "workers"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(run_dir: Path) -> AsyncIterator[Stack]:
    async with running_stack(run_dir / "gw-health") as running:
        yield running


async def _report(stack: Stack) -> tuple[int, dict[str, dict]]:
    async with stack.envoy.client() as http:
        answer = await http.get("/health")
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["status"] == ("SERVING" if answer.status_code == 200 else "NOT_SERVING")
    return answer.status_code, {part["name"]: part for part in body["parts"]}


async def _becomes(stack: Stack, *away: str) -> dict[str, dict]:
    """Each part's report, once exactly these are away."""

    async def look() -> dict[str, dict] | None:
        status, parts = await _report(stack)
        wrong = {name for name, part in parts.items() if part["status"] != "SERVING"}
        assert (status == 200) == (not wrong)
        return parts if wrong == set(away) else None

    return await eventually(f"away are {away}", look)


async def test_health_tells_of_each_part_and_of_its_return(
    run_dir: Path, postgres_server: Postgres, valkey_server: Valkey
) -> None:
    directory = run_dir / "gw-parts"
    async with running_stack(directory) as stack:
        postgres = Relay(directory / ".s.PGSQL.5432", f"{run_dir}/pgsock/.s.PGSQL.5432")
        redis = Relay(directory / "redis.sock", f"{run_dir}/vk.sock")
        postgres.open()
        redis.open()
        urls = {
            "database_url": postgres_server.url.replace(f"{run_dir}/pgsock", str(directory)),
            "redis_url": f"unix://{directory}/redis.sock",
        }
        async with running_gateway(directory, **urls, health_timeout_s=5):
            parts = await _becomes(stack, "workers")
            assert set(parts) == PARTS
            assert "no worker is ready" in parts["workers"]["detail"]
            stack.invocations.workers.append(Worker(id="worker-1", state=Worker.DRAINING))
            await _becomes(stack, "workers")
            stack.invocations.workers.append(Worker(id="worker-2", state=Worker.READY))
            parts = await _becomes(stack)
            assert parts["workers"]["detail"] == "1 ready"
            assert all(part["latency_ms"] >= 0 for part in parts.values())
            for name, relay in (("postgresql", postgres), ("redis", redis)):
                relay.close()
                parts = await _becomes(stack, name)
                assert str(directory) not in str(parts), "an address is nobody's business"
                relay.open()
                await _becomes(stack)
            await stack.servers["functions"].stop()
            await _becomes(stack, "functions")
            await stack.servers["invocations"].stop()
            await _becomes(stack, "functions", "invocations", "workers")
        postgres.close()
        redis.close()


async def test_the_openapi_document_is_served_and_valid(stack, run_dir):
    urls = {"database_url": "postgresql:///none?host=/none", "redis_url": "unix:///none"}
    async with running_gateway(run_dir / "gw-health", **urls), stack.envoy.client() as http:
        answer = await http.get("/openapi.json")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/json")
        document = answer.json()
        validate(document)
        assert document["openapi"].startswith("3.")
        # Every path that it has is one that Envoy knows, and its own pages are in it.
        for path, operations in document["paths"].items():
            for method in operations:
                there = await http.request(method, path.replace("{", "").replace("}", ""), json={})
                assert there.status_code != 404 or reason(there) != "UNKNOWN_PATH", path


async def test_the_pages_of_the_gateway_take_get_alone(stack, run_dir):
    urls = {"database_url": "postgresql:///none?host=/none", "redis_url": "unix:///none"}
    async with running_gateway(run_dir / "gw-health", **urls), stack.envoy.client() as http:
        for path in ("/health", "/openapi.json"):
            answer = await http.post(path, json={})
            assert answer.status_code == 404
            assert reason(answer) == "UNKNOWN_PATH"
