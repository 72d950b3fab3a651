"""A running `faas up`, as its users have it: the real command, on a free port."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from services.supervisor.accounts import Account, run_as
from services.supervisor.layout import Layout
from services.supervisor.state import PartStatus, StackStatus
from tests.conftest import wait_until

# A slow machine that does other things as well.
START_TIMEOUT_S = 150
ROOT = Path(__file__).parents[2]


@dataclass
class Stack:
    """One `faas up` and its data directory."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    output: Path
    """What the command prints."""

    @property
    def layout(self) -> Layout:
        """Where its files are."""
        return Layout.of(self.data_dir)

    @property
    def status(self) -> StackStatus:
        """Its state file."""
        found = StackStatus.read(self.layout.state)
        assert found is not None
        return found

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`, through Envoy."""
        return self.status.url

    @property
    def grpc_address(self) -> str:
        """`127.0.0.1:<port>`: gRPC on the same port."""
        return self.status.grpc_address

    @property
    def run_dir(self) -> Path:
        """Sockets of the parts: `<name>.sock`, and PostgreSQL's in `pg/`."""
        return Path(self.status.run_dir)

    @property
    def database_url(self) -> str:
        """Its PostgreSQL."""
        return f"postgresql://faas@/faas?host={self.run_dir}/pg"

    @property
    def redis_url(self) -> str:
        """Its Valkey."""
        return f"unix://{self.run_dir}/valkey.sock"

    def part(self, name: str) -> PartStatus:
        """One part, such as `worker-1`."""
        return next(part for part in self.status.parts if part.name == name)

    def log(self, name: str) -> str:
        """What a part has logged so far."""
        return self.layout.log(name).read_text(errors="replace")

    def client(self, **options: object) -> httpx.Client:
        """An HTTP client of it that asks no proxy."""
        values = {"base_url": self.url, "trust_env": False, "timeout": 60, **options}
        return httpx.Client(**values)

    def create(self, name: str, code: str, **fields: object) -> dict:
        """Create a function over HTTP."""
        with self.client() as client:
            body = {"name": name, "runtime": "python", "code": code, **fields}
            answer = client.post("/functions", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

    def invoke(self, function_id: str, payload: object = None, **fields: object) -> dict:
        """Invoke a function over HTTP and wait for its end."""
        with self.client() as client:
            body = {"function_id": function_id, "payload": payload, "wait": "50s", **fields}
            answer = client.post("/invoke", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

    def processes(self) -> list[psutil.Process]:
        """The supervisor and all below it, and the watchdog."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def is_healthy(self) -> bool:
        """What `/health` says."""
        try:
            with self.client() as client:
                return client.get("/health").status_code == 200
        except httpx.HTTPError:
            return False

    def wait_until_ready(self) -> None:
        """Wait until the command says that it is up."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(self.output.read_text())
            found = StackStatus.read(self.layout.state)
            return found is not None and found.ready and found.pid == self.process.pid

        wait_until(ready, "faas up is up", START_TIMEOUT_S)

    def stop(self) -> int:
        """End it as Ctrl-C does; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(90)
        finally:
            self.process.kill()


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; whoever adopts the dead may be slow to reap them."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def faas() -> str:
    """The command, as it is installed beside this Python."""
    return str(Path(sys.executable).with_name("faas"))


def launch(
    data_dir: Path,
    *options: str,
    runtime: str = "process",
    command: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    user: Account | None = None,
) -> Stack:
    """Start `faas up` and do not wait for it."""
    output = data_dir.with_name(f"{data_dir.name}.output")
    arguments = ["--data-dir", str(data_dir), "--port", "0", "--runtime", runtime, *options]
    ours = {k: v for k, v in os.environ.items() if not k.startswith("FAAS_")}
    with output.open("ab") as file:
        process = subprocess.Popen(
            [*(command or [faas()]), "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd="/",
            env={**ours, **(settings or {})},
            start_new_session=True,
            **run_as(user),
        )
    return Stack(process, data_dir, output)


@contextmanager
def running(data_dir: Path, *options: str, **more: object) -> Iterator[Stack]:
    """`faas up`, up, until the block ends; more is for `launch`."""
    stack = launch(data_dir, *options, **more)
    try:
        stack.wait_until_ready()
        yield stack
    finally:
        stack.stop()


@contextmanager
def a_directory() -> Iterator[Path]:
    """A directory that PostgreSQL's user reaches too, where we are root."""
    directory = Path(tempfile.mkdtemp(prefix="faas-up-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
