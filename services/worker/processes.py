"""Child processes with all that they start: run, waited for, and killed to the last.

A sandbox's processes are found in two ways, of which either suffices: by a mark in
their environment, and by descent. On Linux each child is made the reaper of what
is below it, and so is the worker of what its dead children leave: a process that
left its group, its session and its environment is still somebody's child.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

MARK = "FAAS_SANDBOX"

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.02
_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None) if _LINUX else None


def adopt_orphans() -> None:
    """Make this process the parent of what its dead children leave."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Child:
    """One child process, in a session of its own; it dies with this process."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], mark: str
    ) -> None:
        """Start `command`, both its streams on pipes. Raises OSError."""
        self._mark = mark
        parent = os.getpid()

        def before_exec() -> None:
            if _libc is not None:
                _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
                if os.getppid() != parent:
                    os._exit(1)

        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=before_exec,
        )
        _own.add(self._process.pid)

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamReader]:
        """Its stdout and stderr."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        loop = asyncio.get_running_loop()
        readers = []
        for pipe in (self._process.stdout, self._process.stderr):
            reader = asyncio.StreamReader()
            await loop.connect_read_pipe(lambda r=reader: asyncio.StreamReaderProtocol(r), pipe)  # type: ignore[misc]
            readers.append(reader)
        return readers[0], readers[1]

    async def wait(self) -> int:
        """Its return code, -n for signal n, once it has ended."""
        if _LINUX and self._process.poll() is None:
            await _ended(self._process.pid)
        while self._process.poll() is None:
            await asyncio.sleep(_POLL_S)
        return int(self._process.returncode)

    async def kill(self) -> int:
        """Kill it and all below it, and wait; its return code."""
        pid = self._process.pid
        if self._process.poll() is None:
            if _LINUX:
                _kill_tree(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            self._process.kill()
        code = await self.wait()
        _own.discard(pid)
        await kill_left({self._mark})
        return code


async def kill_left(marks: Iterable[str]) -> None:
    """Kill what bears one of these marks, and what dead children of this process left."""
    if not _LINUX:
        return
    wanted = {f"{MARK}={mark}".encode() for mark in marks}
    for _ in range(100):
        left = [pid for pid in _pids() if pid not in _own and _is_left(pid, wanted)]
        if not left:
            return
        for pid in left:
            _kill_tree(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        await asyncio.sleep(_POLL_S / 4)


async def kill_marked(prefixes: Iterable[str]) -> None:
    """Kill what bears a mark that begins with one of these."""
    if not _LINUX:
        return
    wanted = tuple(f"{MARK}={prefix}".encode() for prefix in prefixes)
    if not wanted:
        return
    for pid in _pids():
        if any(entry.startswith(wanted) for entry in _environment(pid)):
            _kill_tree(pid)


_own: set[int] = set()
"""Children that are to live: the others that this process has were adopted."""


def _is_left(pid: int, marks: set[bytes]) -> bool:
    if pid == os.getpid():
        return False
    if marks & _environment(pid):
        return True
    # A living child keeps its orphans: what came to us is a dead one's.
    return _parent(pid) == os.getpid() and bool(_marked_session(pid))


def _marked_session(pid: int) -> bool:
    """Whether it was started by a sandbox: nothing of the worker's is in another session."""
    with contextlib.suppress(OSError):
        return os.getsid(pid) != os.getsid(0)
    return False


def _kill_tree(root: int) -> None:
    """Stop it and all below it, until nothing new appears; then kill them."""
    stopped: set[int] = set()
    while True:
        new = _descendants(root) - stopped
        if not new:
            break
        for pid in new:
            _signal(pid, signal.SIGSTOP)
        stopped |= new
    for pid in stopped:
        _signal(pid, signal.SIGKILL)


def _descendants(root: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid in _pids():
        children.setdefault(_parent(pid), []).append(pid)
    found, pending = set(), [root]
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending += children.get(pid, [])
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()]  # noqa: PTH208 - many


def _parent(pid: int) -> int:
    """Its parent; -1 if it is gone."""
    try:
        # The name, in parentheses, may hold anything.
        return int((_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return -1


def _environment(pid: int) -> set[bytes]:
    try:
        return set((_PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


async def _ended(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
