"""How each part is asked whether it serves."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from faas.v1 import invocation_service_pb2, worker_pb2
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub
from services.channels import connect
from services.gateway.health import NotServing, Probe
from services.gateway.public import FUNCTIONS, INVOCATIONS
from services.gateway.settings import Settings


@asynccontextmanager
async def probes(settings: Settings) -> AsyncIterator[dict[str, Probe]]:
    """Probes of all parts, by name; their connections close with the context."""
    async with AsyncExitStack() as stack:
        # A connection is kept, and made anew when it broke: being asked is cheap.
        pool = AsyncConnectionPool(
            settings.database_url,
            min_size=0,
            max_size=1,
            open=False,
            timeout=settings.health_timeout_s,
            # Its own waits between tries double: whoever asks is the next try instead.
            reconnect_timeout=settings.health_timeout_s,
            check=AsyncConnectionPool.check_connection,
            kwargs={"autocommit": True},
        )
        await stack.enter_async_context(pool)
        # Once more at once, for a connection that broke; no more: health is of now.
        redis = Redis.from_url(settings.redis_url, retry=Retry(NoBackoff(), 1))
        stack.push_async_callback(redis.aclose)
        functions = await stack.enter_async_context(connect(settings.functions_address))
        invocations = await stack.enter_async_context(connect(settings.invocations_address))
        yield {
            "postgresql": _postgresql(pool),
            "redis": _redis(redis),
            "functions": _grpc(functions, FUNCTIONS),
            "invocations": _grpc(invocations, INVOCATIONS),
            "workers": _workers(invocations),
        }


def _postgresql(pool: AsyncConnectionPool[psycopg.AsyncConnection]) -> Probe:
    async def ask() -> None:
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")

    return ask


def _redis(redis: Redis) -> Probe:
    async def ask() -> None:
        await redis.ping()

    return ask


def _grpc(channel: grpc.aio.Channel, service: str) -> Probe:
    stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stubs have no methods

    async def ask() -> None:
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise NotServing("says that it does not serve")

    return ask


def _workers(channel: grpc.aio.Channel) -> Probe:
    stub = InvocationServiceStub(channel)

    async def ask() -> str:
        request = invocation_service_pb2.ListWorkersRequest(page_size=1000)
        answer = await stub.ListWorkers(request)
        ready = sum(worker.state == worker_pb2.Worker.READY for worker in answer.workers)
        if not ready:
            raise NotServing("no worker is ready: invocations wait")
        return f"{ready} ready"

    return ask
