"""What was resolved is remembered, and no change is missed for that."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from faas.v1.function_registry_service_pb2 import WatchChangesRequest
from services.errors import FunctionNotFound
from services.functions.changes import APPLICATION
from services.invocations.functions import Functions as Resolver
from tests.integration.functions import Functions, serve
from tests.mesh import eventually


class Counting:
    """A stub that counts how often it is asked to resolve."""

    def __init__(self, stub: Any) -> None:
        self.asked = 0
        self._stub = stub
        self.WatchChanges: Callable[..., Any] = stub.WatchChanges

    def ResolveFunction(self, request: Any, **options: Any) -> Any:
        self.asked += 1
        return self._stub.ResolveFunction(request, **options)


@asynccontextmanager
async def resolving(registry: Any) -> AsyncIterator[Resolver]:
    resolver = Resolver(registry)
    watching = asyncio.create_task(resolver.run())
    yield resolver
    watching.cancel()
    await asyncio.wait({watching})


@pytest.fixture
async def functions(database_url: str, tmp_path: Path) -> AsyncIterator[Functions]:
    async with serve(database_url, tmp_path) as service:
        yield service


async def version(resolver: Resolver, reference: str) -> int:
    return (await resolver.resolve(reference, 0, "request")).version.version


async def test_most_calls_ask_nobody(functions: Functions) -> None:
    await functions.create("echo")
    registry = Counting(functions.registry)
    async with resolving(registry) as resolver:

        async def remembered() -> bool:
            before = registry.asked
            for _ in range(10):
                await version(resolver, "echo")
            return registry.asked - before <= 1

        await eventually("what was resolved is remembered", remembered)


async def test_a_change_is_in_force_for_the_next_call(functions: Functions) -> None:
    function = await functions.create("echo")
    async with resolving(functions.registry) as resolver:
        for number in range(2, 30):
            # By name and by id: both are remembered.
            await asyncio.gather(version(resolver, "echo"), version(resolver, function.id))
            await functions.update("echo", memory_mb=100 + number)
            assert await version(resolver, "echo") == number
            assert await version(resolver, function.id) == number


async def test_calls_that_cross_a_change_keep_nothing_old(functions: Functions) -> None:
    await functions.create("echo")
    async with resolving(functions.registry) as resolver:
        for number in range(2, 20):
            calls = [asyncio.create_task(version(resolver, "echo")) for _ in range(20)]
            await functions.update("echo", memory_mb=100 + number)
            assert await version(resolver, "echo") == number
            assert set(await asyncio.gather(*calls)) <= {number - 1, number}


async def test_a_deletion_is_in_force_for_the_next_call(functions: Functions) -> None:
    async with resolving(functions.registry) as resolver:
        for _ in range(5):
            await functions.create("echo")
            await version(resolver, "echo")
            await functions.delete("echo")
            with pytest.raises(FunctionNotFound):
                await version(resolver, "echo")


async def test_who_never_acknowledges_stops_no_change(functions: Functions) -> None:
    await functions.create("echo")

    async def silent() -> AsyncIterator[WatchChangesRequest]:
        yield WatchChangesRequest()
        await asyncio.Event().wait()

    stream = functions.registry.WatchChanges(silent())
    assert (await anext(aiter(stream))).number == 0
    async with resolving(functions.registry) as resolver:
        await version(resolver, "echo")
        await functions.update("echo", memory_mb=200)
        assert await version(resolver, "echo") == 2
    stream.cancel()


async def test_a_change_at_another_replica(database_url: str, tmp_path: Path) -> None:
    async with serve(database_url, tmp_path) as one, serve(database_url, tmp_path) as other:
        await one.create("echo")
        await eventually("both replicas hear", lambda: hearing(database_url, 2))
        async with resolving(one.registry) as resolver:
            for number in range(2, 5):
                await version(resolver, "echo")
                await other.update("echo", memory_mb=100 + number)
                assert await version(resolver, "echo") == number


async def hearing(database_url: str, replicas: int) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND datname = %s"
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        values = (APPLICATION, connection.info.dbname)
        row = await (await connection.execute(query, values)).fetchone()
    return row == (replicas,)
