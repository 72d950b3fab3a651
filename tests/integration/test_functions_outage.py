"""PostgreSQL or the storage away: UNAVAILABLE, and all is well when it is back."""

import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg
import pytest

from services.errors import DependencyUnavailable, InvalidField, OutcomeUnknown
from services.migrations.runner import migrate
from services.supervisor.accounts import run_as
from services.supervisor.postgres import Postgres
from tests.conftest import wait_until
from tests.integration.functions import Functions, a_zip, refused, serve
from tests.integration.relay import Relay

GO = """package main

func Handler(payload any) any { return payload }
"""


@dataclass
class Cut:
    """A service whose PostgreSQL is behind a relay."""

    functions: Functions
    relay: Relay


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
async def cut(run_dir: Path, database_url: str, tmp_path: Path) -> AsyncIterator[Cut]:
    directory = run_dir / "functions-outage"
    directory.mkdir(exist_ok=True)
    relay = Relay(directory / ".s.PGSQL.5432", f"{run_dir}/pgsock/.s.PGSQL.5432")
    relay.open()
    behind = database_url.replace(f"{run_dir}/pgsock", str(directory))
    async with serve(behind, tmp_path) as functions:
        yield Cut(functions, relay)
    relay.close()


CREATING = (b"INSERT INTO functions", b"INSERT INTO function_versions", b"COMMIT")


@pytest.mark.parametrize("when", ["asked", "done"])
async def test_a_break_before_commit_has_changed_nothing(
    cut: Cut, when: Literal["asked", "done"]
) -> None:
    cut.relay.cut_at(*CREATING[:-1], when=when)
    await refused(cut.functions.create("echo"), DependencyUnavailable)
    cut.relay.open()
    assert await cut.functions.names() == []


@pytest.mark.parametrize(("when", "done"), [("asked", False), ("done", True)])
async def test_a_break_with_commit_leaves_open_what_was_done(
    cut: Cut, when: Literal["asked", "done"], done: bool
) -> None:
    functions, relay = cut.functions, cut.relay
    relay.cut_at(*CREATING, when=when)
    await refused(functions.create("new"), OutcomeUnknown)
    relay.open()
    assert await functions.names() == ["new"] * done

    there = await functions.create("echo")
    relay.cut_at(b"UPDATE functions", b"COMMIT", when=when)
    await refused(functions.update("echo", memory_mb=64), OutcomeUnknown)
    relay.open()
    assert (await functions.get("echo")).version == there.version + done

    relay.cut_at(b"UPDATE functions", b"COMMIT", when=when)
    await refused(functions.delete("echo"), OutcomeUnknown)
    relay.open()
    assert ("echo" in await functions.names()) != done

    relay.cut_at(b"INSERT INTO uploads", b"COMMIT", when=when)
    await refused(functions.upload(a_zip({"main.py": "x"})), OutcomeUnknown)
    relay.open()
    assert functions.rows("uploads") == done


async def test_what_is_done_is_not_said_to_have_changed_nothing(cut: Cut) -> None:
    functions, relay = cut.functions, cut.relay
    # What is compiled is looked up once more, for the answer.
    relay.cut_at(*CREATING, when="answered")
    await refused(functions.create("made", runtime="go", code=GO), OutcomeUnknown)
    relay.open()
    assert (await functions.get("made")).version == 1
    relay.cut_at(b"UPDATE functions", b"COMMIT", when="answered")
    await refused(functions.update("made", code=f"{GO}// again\n"), OutcomeUnknown)
    relay.open()
    assert (await functions.get("made")).version == 2


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
