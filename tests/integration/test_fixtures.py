"""The real parts that the other tests stand on."""

import psycopg
from redis.asyncio import Redis


async def test_a_test_has_a_migrated_database_of_its_own(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        row = await (await connection.execute("SELECT version_num FROM alembic_version")).fetchone()
    assert row is not None


async def test_a_test_has_an_empty_redis_of_its_own(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    assert await redis.dbsize() == 0
    await redis.aclose()
