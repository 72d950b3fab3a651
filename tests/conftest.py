"""Real PostgreSQL and Valkey for all tests, from the wheels of the embedded default.

One server of each per test run; each test gets a database of its own, cloned from
a migrated template, and a Redis database of its own.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from redis.asyncio import Redis

from services.migrations.runner import migrate
from services.supervisor.accounts import run_as
from services.supervisor.postgres import Postgres
from services.supervisor.valkey import Valkey
from tests.mesh import Mesh

TEMPLATE = "template_faas"
# The last of the 16 belongs to tests.platform, for as long as the run lasts.
REDIS_DATABASES = 15


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    """Wait for a condition of another process, by asking it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def run_dir() -> Iterator[Path]:
    """A directory with a short path, for sockets, that PostgreSQL's user can reach too."""
    directory = Path(tempfile.mkdtemp(prefix="faas-test-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(run_dir: Path) -> Iterator[Postgres]:
    """A running PostgreSQL with a migrated template database."""
    server = Postgres(run_dir / "pg", run_dir / "pgsock")
    server.prepare()
    with (run_dir / "postgres.log").open("wb") as output:
        fast = ["-c", "fsync=off", "-c", "full_page_writes=off"]
        process = subprocess.Popen(
            [*server.command(), *fast],
            stderr=output,
            cwd=server.directory,
            **run_as(server.account),
        )
    try:
        wait_until(server.is_ready, "PostgreSQL is ready")
        server.create_database()
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(_url(server, TEMPLATE))
        yield server
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_databases = itertools.count()


@contextmanager
def new_database(postgres_server: Postgres) -> Iterator[str]:
    """The URL of a fresh, migrated database."""
    name = sql.Identifier(f"test_{os.getpid()}_{next(_databases)}")
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        clone = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(TEMPLATE))
        connection.execute(clone)
        yield _url(postgres_server, name.as_string().strip('"'))
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def database_url(postgres_server: Postgres) -> Iterator[str]:
    """The URL of a fresh, migrated database of this test's own."""
    with new_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def valkey_server(run_dir: Path) -> Iterator[Valkey]:
    """A running Valkey."""
    server = Valkey(run_dir / "vk", run_dir / "vk.sock")
    server.prepare()
    with (run_dir / "valkey.log").open("wb") as output:
        process = subprocess.Popen(server.command(), stdout=output)
    try:
        wait_until(server.is_ready, "Valkey is ready")
        yield server
    finally:
        process.terminate()
        process.wait(10)


_redis_databases = itertools.count()


@asynccontextmanager
async def new_redis(valkey_server: Valkey, number: int) -> AsyncIterator[str]:
    """The URL of an emptied Redis database."""
    url = f"{valkey_server.url}?db={number}"
    redis = Redis.from_url(url)
    await redis.flushdb()
    yield url
    await redis.aclose()


@pytest.fixture
async def redis_url(valkey_server: Valkey) -> AsyncIterator[str]:
    """The URL of an empty Redis database of this test's own."""
    number = next(_redis_databases) % (REDIS_DATABASES - 1)
    async with new_redis(valkey_server, number) as url:
        yield url


def _url(server: Postgres, database: str) -> str:
    return server.url.replace("/faas?", f"/{database}?")


@asynccontextmanager
async def new_mesh(database_url: str, redis_url: str) -> AsyncIterator[Mesh]:
    """A mesh without any part started yet, in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="faas-mesh-", dir="/tmp"))
    async with Mesh(directory, database_url, redis_url) as mesh:
        yield mesh
    shutil.rmtree(directory, ignore_errors=True)


DOCKER_SOCKET = Path("/var/run/docker.sock")
BUILD_IMAGES = Path(__file__).parent.parent / "runtimes" / "build.py"


@pytest.fixture(scope="session")
def docker_engine() -> Path:
    """The socket of a Docker engine that has the runtime images, as they are in the tree.

    Where there is none the test is skipped.
    """
    if not os.access(DOCKER_SOCKET, os.R_OK | os.W_OK):
        pytest.skip(f"no Docker engine on {DOCKER_SOCKET} that this user may use")
    built = subprocess.run(
        [sys.executable, BUILD_IMAGES], check=False, capture_output=True, text=True
    )
    if built.returncode != 0:
        pytest.skip(f"the runtime images cannot be built: {built.stderr}")
    return DOCKER_SOCKET


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With FAAS_TEST_REQUIRE_ALL=1 everything is really to run: a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get("FAAS_TEST_REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped, and nothing may be: {report.longrepr}"
    return report


@pytest.fixture
async def mesh(database_url: str, redis_url: str) -> AsyncIterator[Mesh]:
    """A mesh of this test's own without any part started yet."""
    async with new_mesh(database_url, redis_url) as mesh:
        yield mesh


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_mesh(postgres_server: Postgres, valkey_server: Valkey) -> AsyncIterator[Mesh]:
    """A whole mesh that the tests of a module share; they leave its parts as they are."""
    with new_database(postgres_server) as database_url:
        async with (
            new_redis(valkey_server, REDIS_DATABASES - 1) as redis_url,
            new_mesh(database_url, redis_url) as mesh,
        ):
            await mesh.start("functions", "invocations", "worker-1", "worker-2")
            yield mesh
