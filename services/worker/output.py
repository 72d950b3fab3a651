"""What a sandbox prints, as lines: capped while it is read, whatever it is."""

import asyncio
import codecs
import time
from collections.abc import Callable
from datetime import UTC, datetime

from services.worker.runtime import Line, OutputLimits, Stream

MAX_LINE_BYTES = 64 * 1024
# What a line costs beside its text: its time, stream and place in every message and record
# on its way. Empty ones are not free.
LINE_BYTES = 64
READ_BYTES = 64 * 1024
# Read at once while it is still split into lines, which is what takes time.
PIECE_BYTES = 8 * 1024
# After so much work a reader pauses for twice as long: a flood has a third of the event
# loop at most, and its writer waits for its pipe.
SLICE_S = 0.002
PAUSE_FACTOR = 2


class Output:
    """Both streams of one execution. Feed it bytes as they come, in pieces of any size.

    It holds at most one unfinished line of each stream, so a line without an end
    costs no more memory than a short one.
    """

    def __init__(self, on_line: Callable[[Line], None], limits: OutputLimits) -> None:
        """Call `on_line` for every line within `limits`."""
        self._on_line = on_line
        self._limits = limits
        self._streams = {stream: _LineSplitter() for stream in Stream}
        self._kept_bytes = 0
        self._read_bytes = 0
        self.truncated = False
        """Something was dropped."""
        self.flooded = asyncio.Event()
        """It printed more than `kill_bytes`: to be killed."""

    def feed(self, stream: Stream, data: bytes) -> None:
        """Take what was printed next on `stream`; beyond the caps it is dropped."""
        self.count(len(data))
        if not self.truncated:
            self._emit(stream, self._streams[stream].feed(data))

    def count(self, size: int) -> None:
        """Note that so many bytes were printed, kept or not."""
        self._read_bytes += size
        if self._read_bytes > self._limits.kill_bytes:
            self.flooded.set()

    async def take(self, stream: Stream, data: bytes) -> None:
        """Feed it, and pause where that was much: its sender is to wait meanwhile."""
        began = time.monotonic()
        for at in range(0, len(data), PIECE_BYTES):
            self.feed(stream, data[at : at + PIECE_BYTES])
            if pause_s := pause_after(began):
                await asyncio.sleep(pause_s)
                began = time.monotonic()

    def end(self, stream: Stream) -> None:
        """`stream` is at its end: what it has printed since the last newline is a line too."""
        if not self.truncated:
            self._emit(stream, self._streams[stream].end())

    async def drain(self, stream: Stream, reader: asyncio.StreamReader) -> None:
        """Feed all that `reader` has, to its end."""
        while data := await reader.read(READ_BYTES):
            self.feed(stream, data)
        self.end(stream)

    def _emit(self, stream: Stream, lines: list[bytes]) -> None:
        now = datetime.now(UTC)
        for line in lines:
            room = self._limits.log_bytes - self._kept_bytes
            self._kept_bytes += len(line) + LINE_BYTES
            if self._kept_bytes > self._limits.log_bytes:
                self.truncated = True
                if rest := line[: _boundary(line, max(room - LINE_BYTES, 0))]:
                    self._on_line(Line(now, stream, rest.decode()))
                return
            self._on_line(Line(now, stream, line.decode()))


def pause_after(began: float) -> float:
    """How long to read nothing more, in seconds, having read since `began`; mostly 0."""
    worked_s = time.monotonic() - began
    return PAUSE_FACTOR * worked_s if worked_s > SLICE_S else 0.0


class _LineSplitter:
    """Bytes of one stream into lines of valid UTF-8 without NUL, which PostgreSQL cannot hold."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = b""

    def feed(self, data: bytes, *, final: bool = False) -> list[bytes]:
        text = self._decoder.decode(data, final).replace("\0", "\ufffd").encode()
        *ended, self._rest = (self._rest + text).split(b"\n")
        lines = [part for line in ended for part in _parts(line)]
        if len(self._rest) > MAX_LINE_BYTES:
            *full, self._rest = _parts(self._rest)
            lines += full
        return lines

    def end(self) -> list[bytes]:
        lines = self.feed(b"", final=True)
        return [*lines, self._rest] if self._rest else lines


def _parts(line: bytes) -> list[bytes]:
    """`line` in pieces of at most MAX_LINE_BYTES, cut between characters."""
    parts = []
    while len(line) > MAX_LINE_BYTES:
        cut = _boundary(line, MAX_LINE_BYTES)
        parts.append(line[:cut])
        line = line[cut:]
    return [*parts, line]


def _boundary(text: bytes, index: int) -> int:
    """The last index at or before `index` where a character of `text` begins."""
    while 0 < index < len(text) and text[index] & 0xC0 == 0x80:
        index -= 1
    return index
