"""PostgreSQL, by plain SQL on the driver: the paths here are hot (docs/performance.md)."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

import psycopg
import structlog
from psycopg import AsyncClientCursor, AsyncRawCursor
from psycopg.pq import ExecStatus
from psycopg.rows import BaseRowFactory, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from services import postgresql

Parameters = Mapping[str, Any]

UNAVAILABLE = postgresql.UNAVAILABLE
"""What is raised when PostgreSQL does not answer."""

log = structlog.get_logger()


class Database:
    """A pool of autocommitting connections; every state change is one statement."""

    def __init__(self, url: str, *, connections: int, timeout_s: float = 3.0) -> None:
        """Open at most `connections` to `url`; wait for one at most `timeout_s`."""
        self._pool = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=connections,
            timeout=timeout_s,
            # The pool's waits between tries double, up to minutes after a long outage:
            # it gives up early, and the next statement is the next try.
            reconnect_timeout=timeout_s,
            open=False,
            configure=_plan_once,
            kwargs={"autocommit": True},
        )

    async def open(self) -> None:
        """Start connecting; does not fail where PostgreSQL is away."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    async def fetch(
        self,
        query: str,
        parameters: Parameters | None = None,
        row_factory: BaseRowFactory[Any] = dict_row,
        *,
        prepare: bool = True,
    ) -> list[Any]:
        """Run one statement and return its rows.

        Statements that come often are prepared and then planned without their values;
        with `prepare` false it is planned for them each time.

        A statement whose connection broke is run once more on another, so it must
        be one that may run twice: conditional on the state that it leaves, or
        inserting a key that is known already.
        """
        try:
            return await self._fetch_once(query, parameters, row_factory, prepare)
        except UNAVAILABLE as error:
            if isinstance(error, PoolTimeout):
                raise
            log.warning("a database connection broke; trying another", error=str(error))
            # After a restart of PostgreSQL all idle connections are broken alike.
            await self._pool.check()
            try:
                return await self._fetch_once(query, parameters, row_factory, prepare)
            except PoolTimeout:
                # No connection for the second try: what is known is what the first one met.
                raise error from None

    async def execute(self, query: str, parameters: Parameters | None = None) -> int:
        """Run one statement, under the same condition, and return how many rows it met."""
        rows = await self.fetch(query + " RETURNING 1 AS met", parameters)
        return len(rows)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A connection for what needs more than one statement."""
        async with self._pool.connection() as connection:
            yield connection

    async def _fetch_once(
        self,
        query: str,
        parameters: Parameters | None,
        row_factory: BaseRowFactory[Any],
        prepare: bool,
    ) -> list[Any]:
        async with self._pool.connection() as connection:
            kind: type[psycopg.AsyncCursor[Any]] = AsyncRawCursor
            text, names = _numbered(query)
            values: Any = [parameters[name] for name in names] if parameters else None
            if not prepare:
                # Values that are in the text are planned for.
                kind, text, values = AsyncClientCursor, query.encode(), parameters
            async with kind(connection, row_factory=row_factory) as cursor:
                await cursor.execute(text, values)
                # Not asked of `description`, which describes every column.
                result = cursor.pgresult
                if result is None or result.status != ExecStatus.TUPLES_OK:
                    return []
                return await cursor.fetchall()


@lru_cache(maxsize=1000)
def _numbered(query: str) -> tuple[bytes, tuple[str, ...]]:
    """The query with `$1` for its first parameter, as PostgreSQL has it; and their names.

    psycopg does the same, and for long queries does it anew each time.
    """
    names: dict[str, int] = {}

    def number(found: "re.Match[str]") -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}"

    text = re.sub(r"%\((\w+)\)s", number, query)
    return text.encode(), tuple(names)


async def _plan_once(connection: "psycopg.AsyncConnection[Any]") -> None:
    """Planning for all partitions, at each call, was half of what a call cost PostgreSQL."""
    await connection.execute("SET plan_cache_mode = force_generic_plan")
