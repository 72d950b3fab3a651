"""PostgreSQL or the storage away: UNAVAILABLE, and all is well when it is back."""

import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from services.errors import DependencyUnavailable, InvalidField
from services.migrations.runner import migrate
from services.supervisor.accounts import run_as
from services.supervisor.postgres import Postgres
from tests.conftest import wait_until
from tests.integration.functions import Functions, a_zip, refused, serve


@contextmanager
def running(server: Postgres) -> Iterator[None]:
    """Run a PostgreSQL of one's own, and stop it as for a restart."""
    process = subprocess.Popen(
        server.command(),
        stderr=subprocess.DEVNULL,
        cwd=server.directory,
        **run_as(server.account),
    )
    try:
        wait_until(server.is_ready, "PostgreSQL is ready")
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A PostgreSQL that is prepared and does not run."""
    with tempfile.TemporaryDirectory(prefix="faas-pg-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        server = Postgres(Path(directory) / "data", Path(directory) / "socket")
        server.prepare()
        yield server


async def test_without_postgresql_calls_are_unavailable_until_it_is_back(
    server: Postgres, tmp_path: Path
) -> None:
    with running(server):
        server.create_database()
        migrate(server.url)
        async with serve(server.url, tmp_path) as functions:
            made = await functions.create("echo")
            # Several connections of the pool are open, and all will break.
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
            assert await functions.get("echo") == made
    async with serve(server.url, tmp_path) as functions:
        await all_unavailable(functions, made.id)
        with running(server):
            assert await functions.get("echo") == made
            assert (await functions.update("echo", memory_mb=64)).version == 2
        await all_unavailable(functions, made.id)
        with running(server):
            assert (await functions.get("echo")).version == 2
            await functions.create("other")


async def all_unavailable(functions: Functions, function_id: str) -> None:
    before = functions.objects()
    for call in (
        functions.create("new"),
        functions.get("echo"),
        functions.names(),
        functions.update("echo", memory_mb=64),
        functions.delete("echo"),
        functions.kept_version(function_id, 1),
        functions.fetch(function_id, 1),
    ):
        await refused(call, DependencyUnavailable)
    # Bad input is bad input all the same.
    await refused(functions.create("Wrong"), InvalidField, "name")
    assert functions.objects() == before


@pytest.fixture
async def no_storage(database_url: str, tmp_path: Path) -> AsyncIterator[Functions]:
    (tmp_path / "code").write_text("not a directory")
    async with serve(database_url, tmp_path) as functions:
        yield functions


async def test_without_storage_calls_are_unavailable_and_nothing_is_written(
    no_storage: Functions,
) -> None:
    await refused(no_storage.create("echo"), DependencyUnavailable)
    await refused(no_storage.upload(a_zip({"main.py": "x"})), DependencyUnavailable)
    assert no_storage.rows("functions") == no_storage.rows("uploads") == 0
    assert await no_storage.names() == []
