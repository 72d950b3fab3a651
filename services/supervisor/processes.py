"""Other processes: whether they are still who they were, and their end with all below them."""

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

_PROC = Path("/proc")
_POLL_S = 0.05


def birth(pid: int) -> str:
    """When the process began: with its number, it is this one and no other. "": it is gone."""
    if sys.platform != "linux":
        try:
            process = psutil.Process(pid)
            dead = process.status() == psutil.STATUS_ZOMBIE
            return "" if dead else str(process.create_time())
        except psutil.NoSuchProcess:
            return ""
    try:
        # The name, in parentheses, may hold anything.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        state, ticks = fields[0], fields[19]
    except (OSError, IndexError):
        return ""
    # In ticks since the machine began, so which beginning that was belongs to it.
    return "" if state in "ZX" else f"{_boot()}-{ticks}"


@functools.cache
def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text()[:8]
    except OSError:  # a sandbox that shows less of /proc
        return ""


def is_alive(pid: int, born: str) -> bool:
    """Whether the process that began then still runs."""
    return bool(born) and birth(pid) == born


def waited(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for what other processes do; whether it came to that in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; nothing, if there is nobody any more."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_tree(pid: int) -> None:
    """SIGKILL to the process and all below it: stopped first, so that nothing new begins."""
    stopped: set[int] = set()
    while new := _tree(pid) - stopped:
        for one in new:
            send(one, signal.SIGSTOP)
        stopped |= new
    for one in stopped:
        send(one, signal.SIGKILL)


def describe(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _tree(pid: int) -> set[int]:
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return set()
    return {pid, *(process.pid for process in below)}
