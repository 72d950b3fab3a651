"""What a warm sandbox prints, told apart by invocation without a mark in it.

Two FIFOs in the sandbox's run directory, which its wrapper opens as stdout and stderr.
What a function has written before its answer was sent is in them when the answer is
read: whatever is there then is the invocation's, and what comes later is nobody's. Of
that a little is dropped; then it is read no more. What prints without end is read with
pauses: a function waits for its pipe, not the worker for the function.
"""

import asyncio
import fcntl
import os
import sys
import termios
import time
from pathlib import Path

from services.worker.output import PIECE_BYTES, READ_BYTES, Output, pause_after
from services.worker.runtime import Stream

# What a function may print that nobody has called.
UNASKED_BYTES = 1024 * 1024
# What is dropped is not hurried for: after so much there is a pause.
DROP_BYTES = 128 * 1024
DROP_PAUSE_S = 0.001

_NAMES = {Stream.STDOUT: "out", Stream.STDERR: "err"}


class Pipes:
    """The worker's ends of both."""

    def __init__(self, directory: Path) -> None:
        """Make them in `directory`. Raises OSError."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._output: Output | None = None
        self._unasked_bytes = 0
        self._dropped_bytes = 0
        self._ends: dict[Stream, int] = {}
        self._pauses: dict[Stream, asyncio.TimerHandle] = {}
        try:
            for stream, name in _NAMES.items():
                path = directory / name
                os.mkfifo(path)
                # Others may write and not read; umask has its say in mkfifo.
                path.chmod(0o622)
                # Open for both, or it would be at its end whenever nobody writes.
                self._ends[stream] = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise

    @property
    def quiet(self) -> bool:
        """Whether little enough has come that was nobody's."""
        return self._unasked_bytes <= UNASKED_BYTES

    def listen(self) -> None:
        """Read whatever comes from now on."""
        self._loop = asyncio.get_running_loop()
        for stream in self._ends:
            self._resume(stream)

    async def turn_to(self, output: Output) -> None:
        """What comes from now on is `output`'s."""
        await self._drain()
        if not self.quiet:
            self.listen()
        self._unasked_bytes = 0
        self._output = output

    async def turn_away(self) -> None:
        """All that is there was the last of the output that it was turned to."""
        await self._drain()
        if self._output is not None:
            for stream in Stream:
                self._output.end(stream)
        self._output = None

    def close(self) -> None:
        """Read no more."""
        self._stop()
        for end in self._ends.values():
            os.close(end)
        self._ends = {}

    def _stop(self) -> None:
        for pause in self._pauses.values():
            pause.cancel()
        self._pauses.clear()
        if self._loop is not None:
            for end in self._ends.values():
                self._loop.remove_reader(end)

    def _resume(self, stream: Stream) -> None:
        assert self._loop is not None
        self._pauses.pop(stream, None)
        self._loop.add_reader(self._ends[stream], self._on_readable, stream)

    def _on_readable(self, stream: Stream) -> None:
        began = time.monotonic()
        while self._read(stream) >= PIECE_BYTES:
            if pause_s := self._drop_pause() or pause_after(began):
                self._pause(stream, pause_s)
                break

    async def _drain(self) -> None:
        """Read what is there now; a writer that never stops does not hold us up."""
        for stream, end in self._ends.items():
            left, began = _unread_bytes(end), time.monotonic()
            while left > 0 and (size := self._read(stream)):
                left -= size
                if pause_s := pause_after(began):
                    await asyncio.sleep(pause_s)
                    began = time.monotonic()

    def _pause(self, stream: Stream, seconds: float) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._ends[stream])
        self._pauses[stream] = self._loop.call_later(seconds, self._resume, stream)

    def _drop_pause(self) -> float:
        """In seconds, once so much has been dropped since the last one."""
        if self._dropped_bytes < DROP_BYTES:
            return 0.0
        self._dropped_bytes = 0
        return DROP_PAUSE_S

    def _read(self, stream: Stream) -> int:
        """Read a piece; its bytes, 0 where nothing is there or is to be read any more."""
        end, output = self._ends[stream], self._output
        try:
            if output is not None and not output.truncated:
                data = os.read(end, PIECE_BYTES)
                output.feed(stream, data)
                return len(data)
            size = _drop(end)
        except BlockingIOError:
            return 0
        self._dropped_bytes += size
        if output is not None:
            output.count(size)
            return size
        self._unasked_bytes += size
        if self.quiet:
            return size
        self._stop()
        return 0


if hasattr(os, "splice"):
    _NOWHERE = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def _drop(pipe: int) -> int:
        """Empty a pipe of up to READ_BYTES. Raises BlockingIOError."""
        return os.splice(pipe, _NOWHERE, READ_BYTES, flags=os.SPLICE_F_NONBLOCK)

else:

    def _drop(pipe: int) -> int:
        """Empty a pipe of up to READ_BYTES. Raises BlockingIOError."""
        return len(os.read(pipe, READ_BYTES))


def _unread_bytes(pipe: int) -> int:
    """What is in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
