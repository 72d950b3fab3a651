"""Verdicts on this machine's disk until they are recorded.

A verdict is appended as soon as it is known, and so outlives the worker's process;
what is not recorded a moment later is flushed, all of it by one fdatasync, and so
outlives the machine's power. Reporting does not wait for that: whichever is durable
first will do. A worker that starts again under the same state directory finds what
earlier boots of it had not told.

Space is allocated before work is taken, so that a full disk keeps work away instead
of losing its result. A segment whose verdicts are all recorded is written from its
beginning again; frames are numbered, so what is left of an earlier round is told
from what follows.

A large result is a file beside them, flushed before its verdict is appended. Large
payloads lie there too while they are in use.
"""

import asyncio
import errno
import fcntl
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from faas.v1.execution_pb2 import Report
from services.worker.runtime import INLINE_BYTES, FileContent

# Of a frame: its length, its checksum, its number.
_HEADER = struct.Struct("<IIQ")
# Error, stack and metrics beside a result.
_BESIDE_RESULT_BYTES = 256 * 1024
SEGMENT_BYTES = 8 * 1024 * 1024
# What is recorded within this needs no flush.
FLUSH_S = 0.02
_SUFFIX = ".spool"

log = structlog.get_logger()


class StateInUse(Exception):
    """Another worker runs with this state directory."""


@dataclass(frozen=True)
class Legacy:
    """What an earlier boot has left."""

    boot_id: str
    verdicts: list[Report.Finished]
    files: list[Path]
    large: Path
    """Where large results are."""

    def large_result(self, report: Report.Finished) -> FileContent:
        """The large result of one of its verdicts."""
        content = report.large_result
        file = _large_result(self.large, self.boot_id, report.invocation_id, report.attempt)
        return FileContent(file, content.size_bytes, content.sha256)

    def remove(self) -> None:
        """It has been told."""
        for report in self.verdicts:
            if report.HasField("large_result"):
                self.large_result(report).file.unlink(missing_ok=True)
        for file in self.files:
            file.unlink(missing_ok=True)


@dataclass
class _Segment:
    path: Path
    descriptor: int
    size: int
    end: int = 0
    kept: set[int] = field(default_factory=set)
    """Numbers of the frames that are not recorded yet."""


@dataclass(frozen=True)
class Entry:
    """One verdict in the spool."""

    segment: _Segment
    number: int


class Spool:
    """The spool of one boot of a worker."""

    def __init__(self, directory: Path, *, boot_id: str, max_result_bytes: int, slots: int) -> None:
        """Keep verdicts in `directory`, of which at most `slots` come at once."""
        self._directory = directory
        self._large = directory / "large"
        self._boot_id = boot_id
        self._max_result_bytes = max_result_bytes
        self._entry_bytes = min(max_result_bytes, INLINE_BYTES) + _BESIDE_RESULT_BYTES
        self._segment_bytes = max(SEGMENT_BYTES, 2 * slots * self._entry_bytes)
        self._lock: int | None = None
        self._active: _Segment | None = None
        self._segments = 0
        self._number = 0
        self._written = asyncio.Event()
        self._full = False

    def open(self) -> list[Legacy]:
        """Lock the directory, and find what earlier boots left. Raises StateInUse, OSError."""
        self._large.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise StateInUse(f"another worker runs in {self._directory}") from error
        self._lock = lock
        found: dict[str, list[Path]] = {}
        for file in sorted(self._directory.glob(f"*{_SUFFIX}")):
            found.setdefault(file.name.partition("_")[0], []).append(file)
        legacies = [self._legacy(boot, files) for boot, files in found.items()]
        self._forget_large(legacies)
        self._active = self._new_segment()
        return legacies

    def payload_file(self, invocation_id: str, attempt: int) -> Path:
        """Where a large payload goes. Whoever puts one there removes it."""
        return self._large / f"{self._boot_id}_{invocation_id}_{attempt}.payload"

    def result_file(self, invocation_id: str, attempt: int) -> Path:
        """Where a large result goes, flushed, before its verdict is appended.

        Whoever puts one there removes it, once its verdict is released.
        """
        return _large_result(self._large, self._boot_id, invocation_id, attempt)

    def close(self) -> None:
        """Let the directory go. A segment with nothing to tell goes too."""
        if self._active is not None:
            if not self._active.kept:
                self._active.path.unlink(missing_ok=True)
            os.close(self._active.descriptor)
            self._active = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def has_room(self, verdicts: int) -> bool:
        """Whether the disk has room for so many verdicts, and for a large result of one."""
        needed = verdicts * self._entry_bytes
        try:
            free = shutil.disk_usage(self._large).free
            if self._max_result_bytes > INLINE_BYTES and free < self._max_result_bytes:
                raise OSError(errno.ENOSPC, f"{free} bytes are free")
            if self._active is None or self._active.size - self._active.end < needed:
                self._start_segment()
        except OSError as error:
            if not self._full:
                log.error("no room in the spool; taking no work", error=str(error))
            self._full = True
            return False
        self._full = False
        return True

    def append(self, report: Report.Finished) -> Entry | None:
        """Keep a verdict. None: it could not be kept, and must do without."""
        body = report.SerializeToString()
        frame_bytes = _HEADER.size + len(body)
        try:
            if self._active is None or self._active.size - self._active.end < frame_bytes:
                self._start_segment()
            segment = self._active
            assert segment is not None
            self._number += 1
            header = _HEADER.pack(len(body), zlib.crc32(body), self._number)
            os.pwrite(segment.descriptor, header + body, segment.end)
        except OSError as error:
            log.error(
                "a verdict could not be spooled",
                invocation_id=report.invocation_id,
                error=str(error),
            )
            return None
        segment.end += frame_bytes
        segment.kept.add(self._number)
        self._written.set()
        return Entry(segment, self._number)

    def release(self, entry: Entry) -> None:
        """Forget a verdict: it is recorded."""
        segment = entry.segment
        segment.kept.discard(entry.number)
        if segment.kept:
            return
        if segment is self._active:
            segment.end = 0
            os.pwrite(segment.descriptor, bytes(_HEADER.size), 0)
        else:
            os.close(segment.descriptor)
            segment.path.unlink(missing_ok=True)

    async def run(self) -> None:
        """Flush what is not recorded soon, until cancelled."""
        while True:
            await self._written.wait()
            self._written.clear()
            number = self._number
            await asyncio.sleep(FLUSH_S)
            segment = self._active
            # What has come since has its own round.
            if segment is None or min(segment.kept, default=number + 1) > number:
                continue
            # A descriptor of its own: the segment may be closed meanwhile.
            descriptor = os.dup(segment.descriptor)
            try:
                await asyncio.to_thread(_flush, descriptor)
            except OSError as error:
                log.error("the spool could not be flushed", error=str(error))
            finally:
                os.close(descriptor)

    def _legacy(self, boot: str, files: list[Path]) -> Legacy:
        found = [report for file in files for report in verdicts_in(file)]
        legacy = Legacy(boot, found, files, self._large)
        for report in list(found):
            if report.HasField("large_result"):
                content = legacy.large_result(report)
                if not content.file.exists() or content.file.stat().st_size != content.size_bytes:
                    # Told before, and a frame of an earlier round; or else it is run again.
                    found.remove(report)
        return legacy

    def _forget_large(self, legacies: list[Legacy]) -> None:
        """Remove what no verdict names: payloads, and results of what was killed."""
        named = {
            legacy.large_result(report).file
            for legacy in legacies
            for report in legacy.verdicts
            if report.HasField("large_result")
        }
        for file in self._large.iterdir():
            if file not in named:
                file.unlink(missing_ok=True)

    def _start_segment(self) -> None:
        old = self._active
        if old is not None and not old.kept:
            old.end = 0
            return
        self._active = self._new_segment()
        if old is not None:
            # What it holds is flushed before nobody looks at it any more.
            _flush(old.descriptor)

    def _new_segment(self) -> _Segment:
        self._segments += 1
        path = self._directory / f"{self._boot_id}_{self._segments:06}{_SUFFIX}"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            _allocate(descriptor, self._segment_bytes)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return _Segment(path, descriptor, self._segment_bytes)


def _large_result(directory: Path, boot_id: str, invocation_id: str, attempt: int) -> Path:
    return directory / f"{boot_id}_{invocation_id}_{attempt}.result"


def verdicts_in(file: Path) -> Iterator[Report.Finished]:
    """The verdicts in a file, as far as it is whole and of one round."""
    data = file.read_bytes()
    position, last = 0, None
    while position + _HEADER.size <= len(data):
        length, checksum, number = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        body = data[position : position + length]
        if not length or (last is not None and number != last + 1) or zlib.crc32(body) != checksum:
            return
        last = number
        position += length
        yield Report.Finished.FromString(body)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _flush(descriptor: int) -> None:
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)
