"""The platform under the benchmark: `faas up` in a directory of its own."""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from services.invocations.database import Database
from services.invocations.partitions import DAYS_AHEAD, Partitions
from services.supervisor.layout import Layout
from services.supervisor.postgres import Postgres

BIN = Path(sys.executable).parent
START_S = 600
STOP_S = 60


class Platform:
    """A running platform, as its callers and its machine see it."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]", data_dir: Path) -> None:
        """The one behind `port`."""
        self.data_dir = data_dir
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=180)
        self._process = process

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer to a call; raises where it is an error."""
        answer = self.http.request(method, path, json=body)
        if answer.is_error:
            raise RuntimeError(f"{method} {path} answered {answer.status_code}: {answer.text}")
        return answer.json()

    def create(self, name: str, runtime: str, code: str, **settings: object) -> str:
        """Deploy a function; its id."""
        body = {"name": name, "runtime": runtime, "code": code, **settings}
        return str(self.call("POST", "/functions", body)["id"])

    def invoke(self, function: str, payload: object = None, wait_s: int = 120) -> dict[str, Any]:
        """Invoke and wait; the record, which must say COMPLETED."""
        body = {"function_id": function, "payload": payload, "wait": f"{wait_s}s"}
        invocation: dict[str, Any] = self.call("POST", "/invoke", body)
        if invocation["status"] != "COMPLETED":
            raise RuntimeError(f"not completed: {json.dumps(invocation)}")
        return invocation

    def unfinished(self, function: str) -> int:
        """Whether something of this function is pending or running: 0, or more."""
        return sum(
            len(
                self.call("GET", f"/invocations?function_id={function}&status={s}&page_size=1")[
                    "invocations"
                ]
            )
            for s in ("PENDING", "RUNNING")
        )

    def completed(self, function: str) -> int:
        """How many records of this function say COMPLETED."""
        count, token = 0, ""
        while True:
            query = f"function_id={function}&status=COMPLETED&page_size=1000&page_token={token}"
            page = self.call("GET", f"/invocations?{query}")
            count += len(page["invocations"])
            token = page["next_page_token"]
            if not token:
                return count

    def wait_until_drained(self, function: str, timeout_s: float = 300) -> None:
        """Until nothing of this function is pending or running."""
        deadline = time.monotonic() + timeout_s
        while self.unfinished(function):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{function} is not drained after {timeout_s} s")
            time.sleep(0.05)

    def workers(self, verb: str) -> None:
        """Drain or resume all workers."""
        for worker in self.call("GET", "/workers")["workers"]:
            self.call("POST", f"/workers/{worker['id']}:{verb}", {})

    def age(self, days: int) -> None:
        """Give it the partitions that it would have after so many days."""

        async def ensure() -> None:
            database = Database(self._postgres.url, connections=1)
            await database.open()
            partitions, today = Partitions(database, retention_days=days), datetime.now(UTC).date()
            for ago in range(days, 0, -DAYS_AHEAD):
                await partitions.ensure(today - timedelta(days=ago))
            await database.close()

        asyncio.run(ensure())

    @property
    def _postgres(self) -> Postgres:
        return Postgres(self.data_dir / "postgres", Layout.of(self.data_dir).run_dir / "pg")

    @contextlib.contextmanager
    def forgetful(self) -> Iterator[None]:
        """While this is entered, PostgreSQL answers before its disk has what it commits."""
        with psycopg.connect(self._postgres.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_commit = off")
            connection.execute("SELECT pg_reload_conf()")
            try:
                yield
            finally:
                connection.execute("ALTER SYSTEM RESET synchronous_commit")
                connection.execute("SELECT pg_reload_conf()")

    def cpu_seconds(self) -> Counter[str]:
        """CPU time that each part has used so far."""
        used: Counter[str] = Counter()
        for part, process in self.parts():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used[part] += times.user + times.system
        return used

    def parts(self) -> list[tuple[str, psutil.Process]]:
        """Its processes, each with the name of its part."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found.append((_part(process), process))
        return found


@contextlib.contextmanager
def running(runtime: str, workers: int) -> Iterator[Platform]:
    """A platform, started and ended."""
    directory = Path(tempfile.mkdtemp(prefix="faas-bench-", dir="/tmp"))
    directory.chmod(0o755)
    port = _free_port()
    command = [BIN / "faas", "up", "--data-dir", directory / "data", "--port", str(port)]
    command += ["--runtime", runtime, "--workers", str(workers)]
    with (directory / "up.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    platform = Platform(port, process, directory / "data")
    try:
        _wait(platform, process, directory / "up.log")
        yield platform
    finally:
        platform.http.close()
        process.send_signal(signal.SIGINT)
        process.wait(STOP_S)
        shutil.rmtree(directory, ignore_errors=True)


def _wait(platform: Platform, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the platform does not serve:\n{log.read_text()}")
        with contextlib.suppress(httpx.TransportError):
            if platform.http.get("/health").status_code == 200:
                return
        time.sleep(0.2)


def _part(process: psutil.Process) -> str:
    line = process.cmdline()
    for word in line:
        if word.startswith("services."):
            return word.removeprefix("services.")
    name = Path(line[0]).name if line else process.name()
    return "postgres" if name.startswith("postgres") else name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
