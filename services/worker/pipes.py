"""What a warm sandbox prints, told apart by invocation without a mark in it.

Two FIFOs in the sandbox's run directory, which its wrapper opens as stdout and stderr.
What a function has written before its answer was sent is in them when the answer is
read: whatever is there then is the invocation's, and what comes later is nobody's. Of
that a little is dropped; then it is read no more, and a function that goes on printing
waits for its pipe, not the worker for the function.
"""

import asyncio
import os
from pathlib import Path

from services.worker.output import READ_BYTES, Output
from services.worker.runtime import Stream

# What a function may print that nobody has called.
UNASKED_BYTES = 1024 * 1024

_NAMES = {Stream.STDOUT: "out", Stream.STDERR: "err"}


class Pipes:
    """The worker's ends of both."""

    def __init__(self, directory: Path) -> None:
        """Make them in `directory`. Raises OSError."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._output: Output | None = None
        self._unasked_bytes = 0
        self._ends: dict[Stream, int] = {}
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
        for stream, end in self._ends.items():
            self._loop.add_reader(end, self._read, stream)

    def turn_to(self, output: Output) -> None:
        """What comes from now on is `output`'s."""
        self._drain()
        if not self.quiet:
            self.listen()
        self._unasked_bytes = 0
        self._output = output

    def turn_away(self) -> None:
        """All that is there was the last of the output that it was turned to."""
        self._drain()
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
        if self._loop is not None:
            for end in self._ends.values():
                self._loop.remove_reader(end)

    def _drain(self) -> None:
        for stream in self._ends:
            # At most what a pipe holds: a writer that never stops does not hold us up.
            for _ in range(3):
                if not self._read(stream):
                    break

    def _read(self, stream: Stream) -> bool:
        try:
            data = os.read(self._ends[stream], READ_BYTES)
        except BlockingIOError:
            return False
        if self._output is not None:
            self._output.feed(stream, data)
        else:
            self._unasked_bytes += len(data)
            if not self.quiet:
                self._stop()
        return len(data) == READ_BYTES
