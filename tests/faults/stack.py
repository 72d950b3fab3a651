"""A stack of real processes, PostgreSQL and Valkey among them, each of which can be
killed, stopped and started again."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.migrations.runner import migrate
from services.supervisor.accounts import run_as
from services.supervisor.postgres import Postgres
from services.supervisor.valkey import Valkey
from services.worker.__main__ import EXIT_BOOT_LOST
from services.worker.sandbox_dirs import sandboxes
from tests.faults.wire import Wire
from tests.mesh import Mesh

# Says which starts it saw, beside all that the platform knows.
STEP = """
import os, time

def handler(payload, context):
    starts = os.open(payload["starts"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(starts, f"{context.invocation_id} {context.attempt}\\n".encode())
    os.close(starts)
    time.sleep(payload["sleep"])
    if "pad" in payload:
        return str(payload["n"]).encode().ljust(len(payload["pad"]))
    return payload["n"]
"""


def large_result(n: int, size: int) -> bytes:
    """What the function above answers to `n` with a pad of so many bytes."""
    return str(n).encode().ljust(size)


WORKERS = ("worker-1", "worker-2")
SERVICES = ("functions", "invocations")
# The first is there always; the workers' wire leads to all that are.
REPLICAS = ("invocations", "invocations-2", "invocations-3")
# For reading what a killed one has left, on a busy machine.
STORE_S = 180
# So that a boot is dead, and a loss found, in seconds.
QUICK = {
    "invocations": {
        "lease_s": 6,
        "recovery_interval_s": 0.5,
        "offer_grace_s": 1,
        "lost_backoff_s": 0.2,
        "sweep_interval_s": 1,
    },
    "worker": {"heartbeat_interval_s": 0.5, "concurrency": 4, "drain_timeout_s": 30},
}


class Stack(Mesh):
    """All parts; the workers reach service and Redis over wires."""

    @classmethod
    def make(cls, settings: dict[str, dict[str, Any]]) -> "Stack":
        """A stack in a directory of its own, not started yet."""
        directory = Path(tempfile.mkdtemp(prefix="faas-fault-", dir="/tmp"))
        directory.chmod(0o755)
        postgres = Postgres(directory / "pg", directory / "pgs")
        valkey = Valkey(directory / "vk", directory / "vk.sock")
        stack = cls(directory, postgres.url, valkey.url)
        stack.postgres, stack.valkey = postgres, valkey
        stack.settings = settings
        stack.wires, stack.prefixes, stack.own = {}, {}, {}
        stack.redis = Redis.from_url(valkey.url)
        return stack

    postgres: Postgres
    valkey: Valkey
    settings: dict[str, dict[str, Any]]
    wires: dict[str, Wire]
    prefixes: dict[str, list[str]]
    """What a part is run under, by its name."""
    own: dict[str, dict[str, object]]
    """Settings that one part alone has, by its name."""

    async def up(self) -> None:
        """Start everything, and the function that the load calls."""
        self.postgres.prepare()
        self.valkey.prepare()
        await self.start_store("postgres", "valkey")
        self.postgres.create_database()
        await asyncio.to_thread(migrate, self.database_url)
        self.wires = {
            "service": Wire(
                self.directory / "w.sock", *(f"{self.directory}/{name}.sock" for name in REPLICAS)
            ),
            "redis": Wire(self.directory / "r.sock", str(self.valkey.socket_path)),
        }
        await self.start(*SERVICES, *WORKERS)
        await self.create("step", STEP, timeout={"seconds": 60})

    async def down(self) -> None:
        """End everything and remove it."""
        for wire in self.wires.values():
            wire.mend()
        stores = {n: self.processes.pop(n) for n in ("postgres", "valkey") if n in self.processes}
        try:
            await self.__aexit__(None, None, None)
        finally:
            for process in stores.values():
                process.send_signal(signal.SIGINT)
                process.wait(30)
            for wire in self.wires.values():
                wire.close()
            shutil.rmtree(self.directory, ignore_errors=True)

    def keep_logs(self) -> Path:
        """Copy what the parts logged and the ledgers to where `down` leaves them."""
        kept = self.directory.with_name(f"{self.directory.name}-logs")
        kept.mkdir()
        for file in self.directory.iterdir():
            if file.suffix in (".log", ".ledger", ".starts"):
                shutil.copy(file, kept)
        return kept

    async def heal(self) -> None:
        """Start again what is not running, and mend the wires."""
        for wire in self.wires.values():
            wire.mend()
        for name in self.processes:
            self.signal(name, signal.SIGCONT)
        gone = [name for name, process in self.processes.items() if process.poll() is not None]
        for name in gone:
            del self.processes[name]
        await self.start_store(*({"postgres", "valkey"} - self.processes.keys()))
        for name in (*SERVICES, *WORKERS):
            if name not in self.processes:
                await self.start(name)

    async def supervise(self) -> None:
        """Start workers again that ended because their boot was lost, as a deployment does."""
        while True:
            for name in WORKERS:
                process = self.processes.get(name)
                if process is not None and process.poll() == EXIT_BOOT_LOST:
                    await self.start(name)
            await asyncio.sleep(0.2)

    async def start_store(self, *names: str) -> None:
        """Start PostgreSQL or Valkey, and wait until it answers."""
        for name in names:
            server = self.postgres if name == "postgres" else self.valkey
            self._begin_store(name, server)
            deadline = time.monotonic() + STORE_S
            while not await asyncio.to_thread(server.is_ready):
                process = psutil.Process(self.processes[name].pid)
                assert time.monotonic() < deadline, f"{name} is not ready: {process}"
                if self.processes[name].poll() is not None:
                    # As a deployment does: it may have come too early after its death.
                    self._begin_store(name, server)
                await asyncio.sleep(0.05)
            if name == "valkey":
                await self._reconnected()

    def _begin_store(self, name: str, server: Postgres | Valkey) -> None:
        account = run_as(self.postgres.account) if name == "postgres" else {}
        with (self.directory / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                server.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=server.directory,
                **account,
            )

    async def stop_store(self, name: str, number: signal.Signals) -> None:
        """End PostgreSQL or Valkey by a signal, with all its processes."""
        process = self.processes.pop(name)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        await asyncio.to_thread(process.wait, 60)
        # PostgreSQL's own notice that their parent is gone; the next start needs them away.
        await asyncio.to_thread(psutil.wait_procs, children, 30)

    async def died(self, name: str, timeout_s: float = 60) -> None:
        """Wait until a part has ended by itself."""
        process = self.processes[name]
        try:
            await asyncio.to_thread(process.wait, timeout_s)
        except subprocess.TimeoutExpired as error:
            process.send_signal(signal.SIGUSR2)
            await asyncio.sleep(1)
            tail = self.log(name)[-6000:]
            raise AssertionError(f"{name} does not end: {tail}") from error
        del self.processes[name]

    def freeze(self, name: str) -> list[psutil.Process]:
        """Stop a part with all its processes; which, to let them go on."""
        parent = psutil.Process(self.processes[name].pid)
        stopped = [parent, *parent.children(recursive=True)]
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        return stopped

    def thaw(self, stopped: list[psutil.Process]) -> None:
        """Let them go on."""
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def arm(self, name: str, point: str) -> None:
        """Let a part die at this point, the next time that it comes there."""
        self._rig(name).write_text(point)

    def died_at(self, name: str) -> str:
        """The invocation at whose point it died."""
        return self._rig(name).with_suffix(".at").read_text()

    def disarm(self, name: str) -> None:
        """Let nothing happen to it after all."""
        self._rig(name).unlink(missing_ok=True)

    def is_armed(self, name: str) -> bool:
        """Whether the rig has not gone off yet."""
        return self._rig(name).exists()

    def sandboxes(self) -> list[str]:
        """Directories of sandboxes that are there."""
        return [str(path) for path in sandboxes(self.directory / "work")]

    def function_processes(self) -> list[int]:
        """Processes of functions that are there."""
        mark = f"{self.directory}/".encode()
        found = []
        for process in psutil.process_iter():
            try:
                environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            except OSError:
                continue
            if b"FAAS_SANDBOX=" in environment and mark in environment:
                found.append(process.pid)
        return found

    def connect(self) -> "psycopg.Connection[Any]":
        """A connection to PostgreSQL, beside the services."""
        return psycopg.connect(self.database_url, autocommit=True, connect_timeout=5)

    async def _reconnected(self) -> None:
        await self.redis.aclose()
        self.redis = Redis.from_url(self.redis_url)
        deadline = time.monotonic() + 60
        while True:
            try:
                # It may still be reading its append-only file.
                await self.redis.ping()
                return
            except RedisError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    def command(self, name: str, part: str) -> list[str]:
        """Every part is rigged; unarmed, that changes nothing."""
        rigged = [sys.executable, "-m", "tests.faults.rigged", f"services.{part}"]
        return [*self.prefixes.get(name, ()), *rigged]

    def environment(self, name: str) -> dict[str, str]:
        """With the rig's file."""
        return {"PATH": os.environ["PATH"], "FAAS_RIG": str(self._rig(name))}

    def _rig(self, name: str) -> Path:
        return self.directory / f"{name}.rig"

    def _needed(self, name: str, part: str) -> dict[str, object]:
        needed = {**super()._needed(name, part), **self.settings.get(part, {})}
        if part == "worker":
            needed["invocations_address"] = f"unix:{self.directory}/w.sock"
            needed["redis_url"] = f"unix://{self.directory}/r.sock"
        return {**needed, **self.own.get(name, {})}
