"""A stack seen from outside: in the background, looked at, and ended."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.supervisor import processes
from services.supervisor.errors import Failed
from services.supervisor.layout import Layout
from services.supervisor.mesh import module
from services.supervisor.request import Request
from services.supervisor.state import PartState, StackStatus, is_locked, unlocked

# What the watchdog needs after a kill.
CLEARING_S = 15.0
_POLL_S = 0.05

EXIT_DEGRADED = 1
"""Something does not serve."""
EXIT_NOT_RUNNING = 3
"""As init scripts say it."""


def detached(request: Request) -> None:
    """Run `faas up` in the background; return when it is up. Raises Failed."""
    layout = Layout.of(request.data_dir)
    process = subprocess.Popen(
        [*module("services.supervisor"), *request.arguments()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    while process.poll() is None:
        found = StackStatus.read(layout.state)
        _show(process.stdout)
        if found is not None and found.ready and found.pid == process.pid:
            return
        time.sleep(_POLL_S)
    _show(process.stdout)
    raise Failed("It did not come up.")


def _show(pipe: Any) -> None:
    while text := pipe.read():
        sys.stdout.write(text.decode(errors="replace"))
        sys.stdout.flush()


@dataclass(frozen=True)
class Ended:
    """How `down` ended a stack."""

    url: str
    killed: bool
    """It did not end by itself."""


def down(data_dir: Path | None, timeout_s: float) -> Ended | None:
    """End the stack of a data directory; None: nothing runs there. Raises Failed.

    It is killed if it has not ended by itself within `timeout_s`.
    """
    layout = Layout.of(data_dir)
    if not is_locked(layout):
        return None
    found = StackStatus.read(layout.state)
    killed = False
    if found is not None and found.is_alive():
        processes.send(found.pid, signal.SIGTERM)
        if not unlocked(layout, timeout_s):
            killed = True
            if found.is_alive():
                processes.send(found.pid, signal.SIGKILL)
    if not unlocked(layout, CLEARING_S):
        raise Failed(
            f"Something still holds {layout.lock}, and the state file does not say what:"
            f" nothing was ended that might be a stranger."
        )
    # The lock is free a moment before its process has gone, and who is told of the end
    # may look for it.
    if found is not None and not processes.waited(lambda: not found.is_alive(), CLEARING_S):
        raise Failed(f"All of the stack has ended but for process {found.pid}.")
    return Ended(found.url if found else "", killed)


def status(data_dir: Path | None) -> tuple[StackStatus | None, int]:
    """What runs in a data directory, and the exit code that says how it is."""
    layout = Layout.of(data_dir)
    found = StackStatus.read(layout.state)
    if found is None or not found.is_alive() or not is_locked(layout):
        return None, EXIT_NOT_RUNNING
    serving = all(part.state is PartState.SERVING for part in found.parts)
    return found, 0 if found.ready and serving else EXIT_DEGRADED
