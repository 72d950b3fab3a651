"""Directories of sandboxes, and how those of dead workers are told from the living.

    <work_dir>/.boots/<token>                  one file per boot, locked while it lives
    <work_dir>/<function_id>/<token>-<n>/      one directory per sandbox

The lock (flock) ends with the process, however it ends, and is seen across
containers that mount the same directory. So what belongs to a boot file that
nobody holds, or that is gone, is left over and may be removed; a process id
would be reused, a timestamp would guess.
"""

import contextlib
import fcntl
import itertools
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

BOOTS = ".boots"
TOKEN_BYTES = 4  # short: the path of a socket below has 107 bytes at most


class SandboxDirs:
    """The sandbox directories of one boot of a worker. Its methods block, briefly."""

    def __init__(self, work_dir: Path, *, stack: str, worker_id: str, boot_id: str) -> None:
        """Below `work_dir`, for this boot of a worker of `stack`."""
        self._work_dir = work_dir
        self._about = {"stack": stack, "worker": worker_id, "boot": boot_id}
        self._token = ""
        self._lock = -1
        self._numbers = itertools.count(1)
        self._keeping = threading.Lock()

    @property
    def boot_file(self) -> Path:
        """The file that is locked while this boot lives; valid once `open` was called."""
        return self._work_dir / BOOTS / self._token

    def open(self) -> None:
        """Mark this boot as living. Raises OSError where the directory cannot be used."""
        boots = self._work_dir / BOOTS
        boots.mkdir(parents=True, exist_ok=True, mode=0o755)
        if self._work_dir.stat().st_uid not in (0, os.geteuid()):
            # Whoever owns it could replace a sandbox's code under our hands.
            raise PermissionError(f"{self._work_dir} belongs to another user")
        self._token = secrets.token_hex(TOKEN_BYTES)
        self._write_boot_file()

    def create(self, function_id: str) -> Path:
        """Make a sandbox's directory: empty, absolute, for the worker's eyes only."""
        with self._keeping:
            self._keep_boot_file()
        function_dir = self._work_dir.absolute() / function_id
        directory = function_dir / f"{self._token}-{next(self._numbers)}"
        while True:
            function_dir.mkdir(exist_ok=True, mode=0o755)
            try:
                directory.mkdir(mode=0o700)
            except FileNotFoundError:
                continue  # `remove` of another sandbox took the function's directory meanwhile
            return directory

    def remove(self, directory: Path) -> None:
        """Remove a sandbox's directory and all that is in it. Raises OSError if it cannot."""
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            pass
        except OSError:
            _make_writable(directory)
            shutil.rmtree(directory)
        with contextlib.suppress(OSError):
            directory.parent.rmdir()  # only if it is empty

    def sweep(self) -> list[Path]:
        """Remove the directories that dead boots of this stack left; which those were."""
        swept = []
        for boot_file in self._dead_boots():
            with contextlib.suppress(OSError):  # another user's: its file stays, for a next time
                for directory in self._work_dir.glob(f"*/{boot_file.name}-*"):
                    self.remove(directory)
                    swept.append(directory)
                boot_file.unlink(missing_ok=True)
        return swept

    def close(self) -> None:
        """Remove what is left of this boot, and its mark."""
        if self._lock < 0:
            return
        for directory in self._work_dir.glob(f"*/{self._token}-*"):
            self.remove(directory)
        self.boot_file.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1

    def _dead_boots(self) -> Iterator[Path]:
        for boot_file in (self._work_dir / BOOTS).iterdir():
            # Gone meanwhile, or no boot file at all.
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                about = json.loads(boot_file.read_text())
                if about["stack"] == self._about["stack"] and is_dead(boot_file):
                    yield boot_file

    def _keep_boot_file(self) -> None:
        """Keep the file from looking old to cleaners of /tmp; if one took it, make it anew."""
        os.utime(self._lock)
        if os.fstat(self._lock).st_nlink == 0:
            os.close(self._lock)
            self._write_boot_file()

    def _write_boot_file(self) -> None:
        """Locked before it has its name, so that nobody ever sees it unlocked."""
        self.boot_file.parent.mkdir(exist_ok=True)
        unnamed = self.boot_file.with_name(f".{self._token}")
        self._lock = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, json.dumps(self._about).encode())
        unnamed.rename(self.boot_file)


def is_dead(boot_file: Path) -> bool:
    """Whether the boot that this file marks has ended."""
    try:
        lock = os.open(boot_file, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        # Shared: two that look at once must not take each other for the living.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _make_writable(directory: Path) -> None:
    """Undo what a function did to the modes of its own directories."""
    directory.chmod(0o700)
    for root, names, _ in os.walk(directory):
        for name in names:
            path = Path(root, name)
            if not path.is_symlink():
                path.chmod(0o700)
