"""What a part of the mesh is to its supervisor: a command, and how to tell that it serves."""

import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.supervisor.accounts import Account


@dataclass(frozen=True)
class Part:
    """One child process that is to run, always."""

    name: str
    command: tuple[str, ...]
    directory: Path
    """Its working directory."""
    ready: Callable[[], bool]
    """Whether it serves now. May block for a moment: it is asked in a thread."""
    stops: int
    """When all ends, parts end in ascending order of this; those of equal order together."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """All of it: nothing is inherited."""
    after: tuple[str, ...] = ()
    """Parts that must serve before this one is first started."""
    account: Account | None = None
    """Whom it runs as; None: as the supervisor."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    """It is killed if it has not ended so long after that signal."""
    keeps_data: bool = False
    """It deserves a moment for a clean end even where everything must go at once."""
    stdout: str = ""
    """A log of its own for what it prints to stdout."""


def accepts(path: Path) -> bool:
    """Whether somebody listens on the unix socket `path`."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def listens(host: str, port: int) -> bool:
    """Whether somebody listens on that TCP port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
