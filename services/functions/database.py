"""PostgreSQL, by SQLAlchemy on psycopg's async driver."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import exc
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from services import postgresql

UNAVAILABLE = (
    exc.OperationalError,
    exc.InterfaceError,
    exc.TimeoutError,
    *postgresql.UNAVAILABLE,
)
"""What is raised when PostgreSQL does not answer: the driver's own error for a COMMIT."""

# Seconds: the rest of a caller's patience is for other things.
CONNECT_TIMEOUT_S = 3


class Database:
    """A pool of connections; each is asked whether it lives before it is used."""

    def __init__(self, url: str, *, connections: int) -> None:
        """Open at most `connections` to `url` (libpq form), each when first needed."""
        self._engine = create_async_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=connections,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
        )
        # Rows are values: what was read stays as it was read.
        self._writes = async_sessionmaker(self._engine, expire_on_commit=False, autoflush=False)
        # A read is one statement, so BEGIN and COMMIT would be two trips for nothing.
        reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._reads = async_sessionmaker(reading, expire_on_commit=False, autoflush=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A transaction: committed at the end, rolled back by an exception.

        A connection that breaks before COMMIT has changed nothing. One that breaks
        with it leaves that open: then the driver's error is raised as it is.
        """
        async with self._writes() as session:
            yield session
            await session.flush()
            try:
                await session.commit()
            except exc.DBAPIError as error:
                if postgresql.is_unsure(error.orig):
                    raise error.orig from error  # type: ignore[misc]
                raise

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """For reads; each sees what is committed when it runs."""
        async with self._reads() as session:
            yield session

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()
