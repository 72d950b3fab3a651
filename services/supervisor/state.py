"""What runs in a data directory: a lock that says so, and a file that says what."""

import enum
import fcntl
import json
import os
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from services.supervisor import processes
from services.supervisor.layout import Layout


class PartState(enum.StrEnum):
    """Where a part is in its life."""

    WAITING = "waiting"
    """For those that it starts after, or for its next start."""
    STARTING = "starting"
    SERVING = "serving"
    STOPPED = "stopped"


@dataclass
class PartStatus:
    """One part, as it is now."""

    name: str
    state: PartState = PartState.WAITING
    pid: int = 0
    birth: str = ""
    restarts: int = 0
    log: str = ""
    stop_signal: int = signal.SIGTERM
    keeps_data: bool = False

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return bool(self.pid) and processes.is_alive(self.pid, self.birth)


@dataclass
class StackStatus:
    """All of one stack, as the state file has it."""

    pid: int
    birth: str
    """Of the supervisor."""
    url: str
    grpc_address: str
    runtime: str
    engine: str
    """Socket of the Docker engine that functions run in; "": they run as processes."""
    stack: str
    data_dir: str
    run_dir: str
    version: str
    ready: bool = False
    """It has served as a whole; from then on its parts are kept running."""
    parts: list[PartStatus] = field(default_factory=list)

    def is_alive(self) -> bool:
        """Whether the supervisor runs."""
        return processes.is_alive(self.pid, self.birth)

    def write(self, file: Path) -> None:
        """Replace the state file by this."""
        written = file.with_suffix(".new")
        written.write_text(json.dumps(asdict(self), indent=2) + "\n")
        written.rename(file)

    @classmethod
    def read(cls, file: Path) -> "StackStatus | None":
        """What the state file says; None: there is none, or none that can be understood."""
        try:
            found: dict[str, Any] = json.loads(file.read_text())
            parts = [
                PartStatus(**{**part, "state": PartState(part["state"])}) for part in found["parts"]
            ]
            return cls(**{**found, "parts": parts})
        except (OSError, ValueError, TypeError, KeyError):
            return None


def take_lock(layout: Layout) -> int | None:
    """A descriptor that holds the data directory's lock until it is closed; None: it is held.

    The watchdog holds it too: it is free when nothing of the stack runs any more.
    """
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(layout: Layout) -> bool:
    """Whether something of the stack runs."""
    if not layout.lock.exists():
        return False
    descriptor = take_lock(layout)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def unlocked(layout: Layout, timeout_s: float) -> bool:
    """Wait until nothing of the stack runs; whether it came to that in time."""
    return processes.waited(lambda: not is_locked(layout), timeout_s)
