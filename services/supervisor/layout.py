"""Where everything of one stack is: its data directory, and its short run directory."""

import fcntl
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from services.supervisor.errors import Refused


def default_data_dir() -> Path:
    """`/var/lib/faas` for root, `~/.local/state/faas` for everybody else."""
    if os.geteuid() == 0:
        return Path("/var/lib/faas")
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local/state") / "faas"


@dataclass(frozen=True)
class Layout:
    """The paths of one stack."""

    data_dir: Path
    """Absolute, without links: one directory has one name."""

    @classmethod
    def of(cls, data_dir: Path | None) -> "Layout":
        """The layout of `data_dir`, or of the default one."""
        return cls((data_dir or default_data_dir()).expanduser().resolve())

    @property
    def run_dir(self) -> Path:
        """Sockets and what else does not outlive a run.

        A unix socket's path has some hundred bytes, and those of sandboxes need most
        of them: so it is in /tmp, whatever TMPDIR says.
        """
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:8]
        return Path("/tmp") / f"faas-{os.geteuid()}-{digest}"  # noqa: S108 - checked below

    @property
    def logs(self) -> Path:
        """A log for each part, and the supervisor's own."""
        return self.data_dir / "logs"

    @property
    def lock(self) -> Path:
        """Held as long as anything of the stack runs."""
        return self.data_dir / "lock"

    @property
    def state(self) -> Path:
        """What runs, for `faas status` and `faas down`."""
        return self.data_dir / "state.json"

    def log(self, name: str) -> Path:
        """The log of one part."""
        return self.logs / f"{name}.log"

    def socket(self, name: str) -> Path:
        """The unix socket of one part."""
        return self.run_dir / f"{name}.sock"

    def make_data_dir(self) -> None:
        """Make the data directory, closed to others. Raises Refused."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            if self.data_dir.stat().st_uid != os.geteuid():
                raise Refused(f"The data directory {self.data_dir} belongs to another user.")
            self.data_dir.chmod(_mode())
            for name in ("logs", "valkey", "code", "workers"):
                (self.data_dir / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise Refused(f"The data directory cannot be used: {error}.") from error

    def make_run_dir(self) -> int:
        """Make the run directory; a descriptor to hold while it is used. Raises Refused."""
        try:
            self.run_dir.mkdir(mode=0o700, exist_ok=True)
            found = self.run_dir.lstat()
        except OSError as error:
            raise Refused(f"The run directory cannot be used: {error}.") from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise Refused(f"The run directory {self.run_dir} belongs to another user.")
        self.run_dir.chmod(_mode())
        descriptor = os.open(self.run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Cleaners of /tmp leave a locked directory alone.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor

    def stack(self) -> str:
        """What this stack is called on containers and directories; made once."""
        file = self.data_dir / "stack"
        if not file.exists():
            written = file.with_suffix(".new")
            written.write_text(f"faas-{secrets.token_hex(6)}\n")
            written.rename(file)
        return file.read_text().strip()


def _mode() -> int:
    # PostgreSQL's unprivileged user passes through root's directories to its own.
    return 0o711 if os.geteuid() == 0 else 0o700
