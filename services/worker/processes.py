"""Child processes with all that they start: run, waited for, and killed to the last.

A sandbox's processes are found in two ways, of which either suffices: by a mark in
their environment, and by descent. On Linux each child is made the reaper of what
is below it: what left its group, its session and its environment is still below it,
and is noted before the child may end.
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
from typing import IO

from services.worker.census import MARK, Census, descendants, process

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.02
_READ_BYTES = 64 * 1024
_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None) if _LINUX else None


class Child:
    """One child process, in a session of its own; it dies with this process."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        mark: str,
        census: Census,
    ) -> None:
        """Start `command`, both its streams on pipes. Raises OSError."""
        self._mark = mark
        self._census = census
        self._below: dict[int, bytes] = {}
        self._pipes: list[_Pipe] = []
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
            preexec_fn=before_exec,  # noqa: PLW1509
        )

    def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamReader]:
        """Its stdout and stderr, read from now on until their ends or `close`."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pipes = [_Pipe(self._process.stdout), _Pipe(self._process.stderr)]
        return self._pipes[0].reader, self._pipes[1].reader

    def close(self) -> None:
        """Read no more of it, whoever still holds its streams."""
        for pipe in self._pipes:
            pipe.close()

    async def wait(self) -> int:
        """Its return code, -n for signal n, once it has ended."""
        if _LINUX and self._process.poll() is None:
            await _ended(self._process.pid)
        while self._process.poll() is None:  # noqa: ASYNC110 - nothing tells of it elsewhere
            await asyncio.sleep(_POLL_S)
        return int(self._process.returncode)

    def note_below(self) -> None:
        """Remember what is below it now, to be killed even if it ends before."""
        if _LINUX and self._process.poll() is None:
            below = self._census.below(self._process.pid)
            self._below |= {
                pid: found.birth for pid, found in below.items() if pid != self._process.pid
            }

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
        for below, birth in self._below.items():
            # The number may be another's by now.
            if (found := process(below)) and found.birth == birth:
                _kill_tree(below)
        kill_marked(self._census, [self._mark])
        return code


class _Pipe:
    """One of a child's streams, read by the event loop into a `StreamReader`.

    Not by `connect_read_pipe`: uvloop closes its pipe twice, and in between the number
    may have become that of a file which another thread has just opened.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self.reader = asyncio.StreamReader()
        self._pipe = pipe
        self._loop = asyncio.get_running_loop()
        os.set_blocking(pipe.fileno(), False)
        self._loop.add_reader(pipe.fileno(), self._read)

    def close(self) -> None:
        if not self._pipe.closed:
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()
            self.reader.feed_eof()

    def _read(self) -> None:
        try:
            data = os.read(self._pipe.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self.reader.feed_data(data)
        else:
            self.close()


def kill_marked(census: Census, marks: Iterable[str]) -> None:
    """Kill what bears one of these marks; one that ends in a dash stands for all it begins."""
    if _LINUX:
        for pid in census.marked({mark.encode() for mark in marks}):
            _kill_tree(pid)


def _kill_tree(root: int) -> None:
    """Stop it and all below it, until nothing new appears; then kill them."""
    stopped: set[int] = set()
    while True:
        new = descendants(root) - stopped
        if not new:
            break
        for pid in new:
            _signal(pid, signal.SIGSTOP)
        stopped |= new
    for pid in stopped:
        _signal(pid, signal.SIGKILL)


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
