"""Ends what a killed supervisor leaves: `python -m services.supervisor.watchdog`.

Its stdin is a pipe that only the supervisor writes to: a line for each child that
begins or has ended. When the pipe ends, the supervisor has, and everything that is
still on the list must be gone within five seconds.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from services.supervisor import processes
from services.supervisor.docker import Engine, EngineAway

# What keeps data may take so long to end by itself.
GRACE_S = 3.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Ward:
    """One child of the supervisor."""

    pid: int
    birth: str
    stop_signal: int
    keeps_data: bool

    def is_alive(self) -> bool:
        """Whether it runs."""
        return processes.is_alive(self.pid, self.birth)

    def kill(self) -> None:
        """End it with all below it."""
        if self.is_alive():
            processes.kill_tree(self.pid)


class Watchdog:
    """The supervisor's side: starts the watchdog, and tells it of children."""

    def __init__(self, stack: str, *, engine: Engine | None, run_dir: Path, lock: int) -> None:
        """Watch over `stack`, and its containers in `engine`; hold `lock` with it."""
        module = ("-P", "-m", "services.supervisor.watchdog")
        self._command = [sys.executable, *module, stack, str(run_dir)]
        if engine:
            self._command.append(str(engine.socket))
        self._lock = lock
        self._wards: dict[int, Ward] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def ensure(self) -> None:
        """Start it, unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=[self._lock],
            bufsize=0,
        )
        for ward in self._wards.values():
            self._tell(asdict(ward))

    def add(self, ward: Ward) -> None:
        """A child began."""
        self._wards[ward.pid] = ward
        self._tell(asdict(ward))

    def remove(self, pid: int) -> None:
        """A child has ended."""
        self._wards.pop(pid, None)
        self._tell({"gone": pid})

    def close(self) -> None:
        """Let it end: it removes containers and the run directory, and lets go of the lock."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()

    def _tell(self, message: dict[str, object]) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            self.ensure()


def end(wards: Iterable[Ward], stack: str, engine: Engine | None) -> None:
    """Kill, the stores last and by their own way of ending; and remove the containers."""
    living = [ward for ward in wards if ward.is_alive()]
    stores = [ward for ward in living if ward.keeps_data]
    for ward in living:
        if not ward.keeps_data:
            ward.kill()
    for store in stores:
        processes.send(store.pid, signal.Signals(store.stop_signal))
    _remove_containers(stack, engine)
    deadline = time.monotonic() + GRACE_S
    while any(store.is_alive() for store in stores) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for store in stores:
        store.kill()
    # What a worker had asked for just before its end may have come since.
    _remove_containers(stack, engine)


def _remove_containers(stack: str, engine: Engine | None) -> None:
    if engine:
        with contextlib.suppress(EngineAway):
            engine.remove_containers(stack)


def main() -> None:
    """Read the list until the supervisor is gone; then end what is on it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wards: dict[int, Ward] = {}
    for line in sys.stdin:
        message = json.loads(line)
        if "gone" in message:
            wards.pop(message["gone"], None)
        else:
            ward = Ward(**message)
            wards[ward.pid] = ward
    stack, run_dir, *engines = sys.argv[1:]
    end(wards.values(), stack, Engine(Path(engines[0])) if engines else None)
    shutil.rmtree(run_dir, ignore_errors=True)


if __name__ == "__main__":
    main()
