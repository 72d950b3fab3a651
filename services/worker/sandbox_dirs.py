"""Directories of sandboxes, `<work_dir>/<function_id>/<sandbox>/`, and whose they are.

A sandbox is named `<boot>-<number>`. Each running worker holds a lock on a file of
its boot in `<work_dir>/.boots/<stack>/`: the kernel lets go of it when the worker
ends, however it ends, and containers that mount the same directory see it. So a
boot file that nobody holds is a dead worker's, and what bears its name may be
removed; other stacks' files are not even looked at.
"""

import asyncio
import contextlib
import fcntl
import itertools
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.worker.runtime import RuntimeUnavailable

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, one of them a NUL.
MAX_SOCKET_PATH_BYTES = 103
_BOOTS = ".boots"
_LONGEST_NAME = len("/func-01234567-89ab-cdef-0123-456789abcdef/0123456789ab-fffffff/run/s")


@dataclass(frozen=True)
class SandboxDir:
    """One sandbox's directory; it goes with everything in it."""

    name: str
    """Unique among all sandboxes: labels containers and marks processes."""
    path: Path
    """Closed to other users."""

    @property
    def run_dir(self) -> Path:
        """Socket and payload. Open to the sandbox's user, who reaches it by a mount."""
        return self.path / "run"

    @property
    def socket(self) -> Path:
        """The worker's socket; short enough to be bound."""
        return self.run_dir / "s"

    @property
    def payload(self) -> Path:
        """The file that holds the payload."""
        return self.run_dir / "payload"


class SandboxDirs:
    """Makes and removes the sandboxes' directories of one worker's boot."""

    def __init__(self, work_dir: Path, *, stack: str, boot_id: str) -> None:
        """Below `work_dir`, which workers and stacks may share."""
        self._work_dir = work_dir
        self._boots = work_dir / _BOOTS / stack
        self._boot = short_boot(boot_id)
        self._numbers = itertools.count(1)
        self._lock: int | None = None

    @property
    def boot(self) -> str:
        """What this boot's sandboxes are named after."""
        return self._boot

    @property
    def boot_file(self) -> Path:
        """The file whose lock is held while this boot lives."""
        return (self._boots / self._boot).absolute()

    def open(self) -> list[str]:
        """Say that this boot lives, and remove what dead boots of this stack left.

        Returns the names of the dead boots; they may have left more than directories.
        Their files stay until `bury`. Raises RuntimeUnavailable.
        """
        if len(os.fsencode(self._work_dir)) + _LONGEST_NAME > MAX_SOCKET_PATH_BYTES:
            raise RuntimeUnavailable(
                f"the work directory {self._work_dir} has too long a path for unix sockets:"
                f" at most {MAX_SOCKET_PATH_BYTES - _LONGEST_NAME} bytes"
            )
        try:
            self._make_directories()
            self._lock = _hold(self.boot_file)
            # Names with a dot are boots that are about to be.
            boots = [boot for boot in _names(self._boots) if not boot.startswith(".")]
            dead = [boot for boot in boots if is_dead(self._boots / boot)]
            for boot in dead:
                self._remove_all(boot)
        except OSError as error:
            raise RuntimeUnavailable(f"the work directory cannot be used: {error}") from error
        return dead

    def bury(self, boots: list[str]) -> None:
        """Nothing of these dead boots is left: forget them."""
        for boot in boots:
            (self._boots / boot).unlink(missing_ok=True)

    def close(self) -> None:
        """End this boot; nothing of it is left."""
        if self._lock is not None:
            self._remove_all(self._boot)
            self.boot_file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    @asynccontextmanager
    async def sandbox(self, function_id: str) -> AsyncIterator[SandboxDir]:
        """A new sandbox's directory, as long as the block runs. Raises RuntimeUnavailable."""
        try:
            directory = self._create(function_id)
        except OSError as error:
            raise RuntimeUnavailable(f"no directory for a sandbox: {error}") from error
        try:
            yield directory
        finally:
            # In a thread: a function may have left many files. It ends even if this is cancelled.
            await asyncio.shield(asyncio.to_thread(_remove, directory.path))

    def _create(self, function_id: str) -> SandboxDir:
        self._stay_marked()
        name = f"{self._boot}-{next(self._numbers):x}"
        path = self._work_dir / function_id / name
        while True:
            path.parent.mkdir(mode=0o755, exist_ok=True)
            try:
                path.mkdir(mode=0o700)
                break
            except FileNotFoundError:
                # The function's last sandbox went, and took the directory along.
                continue
        directory = SandboxDir(name, path)
        directory.run_dir.mkdir()
        directory.run_dir.chmod(0o755)
        return directory

    def _stay_marked(self) -> None:
        """Keep the boot file from looking old to cleaners of /tmp; make it anew if one took it."""
        if self._lock is None:
            return
        os.utime(self._lock)
        if os.fstat(self._lock).st_nlink == 0:
            self._make_directories()
            os.close(self._lock)
            self._lock = _hold(self.boot_file)

    def _make_directories(self) -> None:
        if not self._work_dir.is_dir():
            self._work_dir.mkdir(parents=True, exist_ok=True)
            # Shared, as /tmp is: stacks of several users may use one directory.
            self._work_dir.chmod(0o1777)
        if self._work_dir.stat().st_uid not in (0, os.geteuid()):
            # Its owner could put other code into our sandboxes.
            raise PermissionError(f"{self._work_dir} belongs to another user")
        if not self._boots.parent.is_dir():
            self._boots.parent.mkdir(exist_ok=True)
            self._boots.parent.chmod(0o1777)
        self._boots.mkdir(mode=0o700, exist_ok=True)

    def _remove_all(self, boot: str) -> None:
        for directory in sandboxes(self._work_dir):
            if directory.name.startswith(f"{boot}-"):
                _remove(directory)


def sandboxes(work_dir: Path) -> Iterator[Path]:
    """The directories of all sandboxes below `work_dir`; some may go while it looks."""
    for function_id in _names(work_dir):
        if function_id != _BOOTS:
            for name in _names(work_dir / function_id):
                yield work_dir / function_id / name


def short_boot(boot_id: str) -> str:
    """The random end of a boot's UUID: enough to tell boots apart, short enough for sockets."""
    return boot_id.replace("-", "")[-12:]


def is_dead(boot_file: Path) -> bool:
    """Whether the boot that this file marks has ended."""
    try:
        descriptor = os.open(boot_file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        # Shared: two that look at once must not take each other for the living.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _hold(file: Path) -> int:
    """A descriptor that holds `file`'s lock until it is closed.

    The file is locked before it has its name: nobody can see it and take it for dead.
    """
    nameless = file.with_name(f".{file.name}")
    descriptor = os.open(nameless, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    nameless.rename(file)
    return descriptor


def _names(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _remove(directory: Path) -> None:
    """Remove `directory`, whatever a function has done to what is in it."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        # Closed directories, or nested deeper than Python's stack.
        subprocess.run(["chmod", "-R", "u+rwX", directory], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", directory], check=False, stderr=subprocess.DEVNULL)
    # Fails where other sandboxes of the function are there.
    with contextlib.suppress(OSError):
        directory.parent.rmdir()
