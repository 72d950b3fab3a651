"""A Docker engine over its unix socket: whether it is there, its images, our containers."""

import http.client
import json
import os
import socket
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

DEFAULT_SOCKET = Path("/var/run/docker.sock")
# An engine that takes longer to answer is as good as none.
TIMEOUT_S = 5.0
_REMOVERS = 8


class EngineAway(Exception):
    """No engine answers there; the text says why."""


@dataclass(frozen=True)
class Engine:
    """The engine that listens on a unix socket."""

    socket: Path

    @classmethod
    def find(cls) -> "Engine":
        """The engine that DOCKER_HOST names, or where one usually is. Raises EngineAway."""
        if host := os.environ.get("DOCKER_HOST", ""):
            if not host.startswith("unix://"):
                raise EngineAway(f"DOCKER_HOST is {host}, and only unix:// can be used")
            return cls(Path(host.removeprefix("unix://")))
        runtime_dir = os.environ.get("XDG_RUNTIME_DIR", "")
        places = (
            DEFAULT_SOCKET,
            *([Path(runtime_dir) / "docker.sock"] if runtime_dir else []),  # rootless
            Path.home() / ".docker/run/docker.sock",  # Docker Desktop
        )
        return cls(next((place for place in places if place.exists()), DEFAULT_SOCKET))

    def ping(self) -> None:
        """See that it answers. Raises EngineAway."""
        status, _ = self._call("GET", "/_ping")
        if status != http.client.OK:
            raise EngineAway(f"it answers with {status}")

    def has_image(self, name: str) -> bool:
        """Whether it has an image of this name. Raises EngineAway."""
        status, _ = self._call("GET", f"/images/{urllib.parse.quote(name, safe='')}/json")
        return status == http.client.OK

    def containers(self, stack: str) -> list[str]:
        """The ids of a stack's containers, running or not. Raises EngineAway."""
        filters = json.dumps({"label": [f"faas.stack={stack}"]})
        query = urllib.parse.urlencode({"all": "true", "filters": filters})
        _, body = self._call("GET", f"/containers/json?{query}")
        return [container["Id"] for container in json.loads(body)]

    def remove_containers(self, stack: str) -> None:
        """Kill and remove a stack's containers. Raises EngineAway."""
        with ThreadPoolExecutor(_REMOVERS) as pool:
            list(pool.map(self._remove, self.containers(stack)))

    def _remove(self, container: str) -> None:
        # 404 and 409 are answers too: somebody else did, or is doing it.
        self._call("DELETE", f"/containers/{container}?force=true&v=true")

    def _call(self, method: str, path: str) -> tuple[int, bytes]:
        connection = _Connection(self.socket)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineAway(f"{self.socket}: {error}") from error
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
