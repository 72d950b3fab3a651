"""Docker's engine, over its unix socket: what sandboxes need of its API, and no more.

Spoken on the event loop: a call takes no thread, and waiting for a container's end
or reading its output costs a connection each and nothing while it is silent.
"""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from services.worker.runtime import Stream

# Creating and starting take seconds on a machine that is busy; more is a failure.
CALL_S = 60.0
OLDEST_API = (1, 41)
"""Of Docker 20.10."""
NEWEST_API = (1, 47)
"""What this was written for; a newer engine speaks it too."""

_OUTPUT_HEADER = struct.Struct(">BxxxI")
_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}


class EngineError(Exception):
    """The engine refused; the text says why."""

    def __init__(self, status: int, message: str) -> None:
        """With the engine's HTTP status."""
        super().__init__(message)
        self.status = status


class EngineAway(Exception):
    """The engine does not answer, or not within a minute."""


class NotThere(EngineError):
    """The container or image is not there."""


class Attachment:
    """The output of one container from before its start."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Read it from `response`."""
        self._response = response

    async def read(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """What it prints, in pieces as they come, to its end."""
        header = b""
        stream, left = Stream.STDOUT, 0
        try:
            async for data in self._response.content.iter_any():
                rest = memoryview(data)
                while rest:
                    if left == 0:
                        missing = _OUTPUT_HEADER.size - len(header)
                        header, rest = header + bytes(rest[:missing]), rest[missing:]
                        if len(header) == _OUTPUT_HEADER.size:
                            number, left = _OUTPUT_HEADER.unpack(header)
                            stream, header = _STREAMS.get(number, Stream.STDERR), b""
                        continue
                    piece, rest = rest[:left], rest[left:]
                    left -= len(piece)
                    yield stream, bytes(piece)
        except aiohttp.ClientError:
            # The engine went away, and what was to come with it.
            return

    def close(self) -> None:
        """Read no more."""
        self._response.close()


class Engine:
    """One engine."""

    def __init__(self, socket: Path) -> None:
        """Behind `socket`."""
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None
        self._api = ""

    async def open(self) -> Mapping[str, Any]:
        """Agree on a version of its API; what the engine says of its machine.

        Raises EngineAway and EngineError.
        """
        # Waiting and attaching hold connections: no limit.
        connector = aiohttp.UnixConnector(str(self._socket), limit=0)
        self._session = aiohttp.ClientSession(connector=connector)
        version = await self._call("GET", "/version")
        newest = tuple(map(int, version["ApiVersion"].split(".")))
        if newest < OLDEST_API:
            raise EngineError(
                0, f"Docker {version['Version']} is too old: at least 20.10 is needed"
            )
        self._api = "/v{}.{}".format(*min(newest, NEWEST_API))
        info: Mapping[str, Any] = await self._call("GET", "/info")
        return info

    async def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()

    async def image_id(self, reference: str) -> str:
        """The digest of an image. Raises NotThere."""
        found = await self._call("GET", f"/images/{reference}/json")
        return str(found["Id"])

    async def create(self, name: str, spec: Mapping[str, Any]) -> str:
        """A new container's id. Raises NotThere if its image is not there."""
        created = await self._call("POST", "/containers/create", {"name": name}, spec)
        return str(created["Id"])

    async def attach(self, container: str) -> Attachment:
        """Its output from now on."""
        path = f"/containers/{container}/attach"
        query = {"stream": "1", "stdout": "1", "stderr": "1"}
        return Attachment(await self._request("POST", path, query, timeout_s=None))

    async def start(self, container: str) -> None:
        """Start it; it runs when this returns."""
        await self._call("POST", f"/containers/{container}/start")

    async def wait(self, container: str) -> "asyncio.Task[int]":
        """A task that ends when the container next does, with its exit code.

        To be called before the start. The task raises EngineAway and NotThere.
        """
        path = f"/containers/{container}/wait"
        response = await self._request("POST", path, {"condition": "next-exit"}, timeout_s=None)
        return asyncio.create_task(_exit_code(response), name=f"wait for {container[:12]}")

    async def inspect(self, container: str) -> Mapping[str, Any]:
        """What the engine knows of it. Raises NotThere."""
        found: Mapping[str, Any] = await self._call("GET", f"/containers/{container}/json")
        return found

    async def stats(self, container: str) -> Mapping[str, Any]:
        """One sample of what it uses. Raises NotThere."""
        query = {"stream": "0", "one-shot": "1"}
        path = f"/containers/{container}/stats"
        found: Mapping[str, Any] = await self._call("GET", path, query)
        return found

    async def update(self, container: str, limits: Mapping[str, Any]) -> None:
        """Give it other limits while it runs."""
        await self._call("POST", f"/containers/{container}/update", body=limits)

    async def remove(self, container: str) -> None:
        """Kill and remove it; it is gone when this returns, whoever removed it."""
        try:
            await self._call("DELETE", f"/containers/{container}", {"force": "1", "v": "1"})
        except NotThere:
            return
        except EngineError as error:
            # 409: somebody else is removing it.
            if error.status != 409:
                raise
            await self._gone(container)

    async def containers(self, labels: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """All containers with these labels, running or not."""
        wanted = [f"{name}={value}" for name, value in labels.items()]
        query = {"all": "1", "filters": json.dumps({"label": wanted})}
        found: list[Mapping[str, Any]] = await self._call("GET", "/containers/json", query)
        return found

    async def happened(
        self, container: str, actions: Collection[str], *, since: float, until: float
    ) -> str:
        """The first of `actions` that befell a container between two times, or nothing.

        Waits for it until then. Raises EngineAway and EngineError.
        """
        filters = json.dumps({"container": [container], "event": list(actions)})
        query = {"since": f"{since:.9f}", "until": f"{until:.9f}", "filters": filters}
        response = await self._request("GET", "/events", query)
        try:
            line = await response.content.readline()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineAway(f"Docker's engine hung up: {error}") from error
        finally:
            response.close()
        return str(json.loads(line)["Action"]) if line else ""

    async def _gone(self, container: str) -> None:
        async with asyncio.timeout(CALL_S):
            while True:
                try:
                    await self.inspect(container)
                except NotThere:
                    return
                await asyncio.sleep(0.05)

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        response = await self._request(method, path, query, body)
        text = await _read(response)
        return json.loads(text) if text else None

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout_s: float | None = CALL_S,
    ) -> aiohttp.ClientResponse:
        """The response, its headers read. Raises EngineAway, EngineError and NotThere."""
        assert self._session is not None, "the engine is not open"
        try:
            response = await self._session.request(
                method,
                f"http://docker{self._api}{path}",
                params=query,
                json=body,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineAway(
                f"Docker's engine does not answer on {self._socket}: {error}"
            ) from error
        if response.status >= 400:
            message = _message(await _read(response))
            raise (NotThere if response.status == 404 else EngineError)(response.status, message)
        return response


async def _exit_code(response: aiohttp.ClientResponse) -> int:
    ended = json.loads(await _read(response))
    if error := (ended.get("Error") or {}).get("Message"):
        raise EngineError(500, error)
    return int(ended["StatusCode"])


async def _read(response: aiohttp.ClientResponse) -> str:
    try:
        return await response.text()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise EngineAway(f"Docker's engine hung up: {error}") from error


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:1000]
