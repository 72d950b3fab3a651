"""Containers of one worker: each is removed when its block ends, however it ends.

What could not be removed (the engine was away) and what came to be after its creator
had been cancelled is found again by its labels, and removed then.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from services.worker.engine import Attachment, Engine, EngineAway, EngineError, NotThere
from services.worker.hardening import Limits, Owner
from services.worker.output import Output
from services.worker.runtime import RuntimeUnavailable, Stream

# The engine tells of what killed a process after its end, but not much later.
EVENTS_LAG_S = 1.0
SIGNALLED = 128
"""An exit code of 128 + n is signal n."""
# What `docker kill`, `docker stop` and an interrupt end a container with.
_KILLED = {SIGNALLED + number for number in (2, 9, 15)}

log = structlog.get_logger()


@dataclass(frozen=True)
class Ending:
    """How a container ended by itself."""

    exit_code: int
    out_of_memory: bool


@dataclass(frozen=True)
class Usage:
    """What a container has used so far; None where the engine does not know."""

    cpu_time_s: float | None
    peak_memory_bytes: int | None


class Container:
    """One container that has been started."""

    def __init__(
        self,
        *,
        engine: Engine,
        container_id: str,
        image: str,
        started: float,
        exited: "asyncio.Task[int]",
        output_read: "asyncio.Task[None]",
    ) -> None:
        """`exited` has its exit code, `output_read` is done when all it printed is read.

        It was started after `started`: what befell it is looked for from then on.
        """
        self._engine = engine
        self._started = started
        self.id = container_id
        self.image = image
        """The digest of the image that it runs."""
        self.exited = exited
        self.output_read = output_read

    async def ending(self) -> Ending:
        """How it ended, once it has.

        Raises RuntimeUnavailable where that was not of its own doing.
        """
        try:
            exit_code = await asyncio.shield(self.exited)
        except (EngineAway, EngineError) as error:
            raise RuntimeUnavailable(f"its container's end is unknown: {error}") from error
        if exit_code in _KILLED:
            return Ending(exit_code, await self.ran_out_of_memory())
        # Nobody's order, but it may have been removed at the same time.
        return Ending(exit_code, (await self._state())["OOMKilled"])

    async def ran_out_of_memory(self) -> bool:
        """Whether a process in it that was killed was killed for that.

        Raises RuntimeUnavailable where it was killed by an order from outside.
        """
        if (await self._state())["OOMKilled"]:
            return True
        until = time.time() + EVENTS_LAG_S
        try:
            event = await self._engine.happened(
                self.id, ["oom", "kill"], since=self._started, until=until
            )
        except (EngineAway, EngineError) as error:
            raise RuntimeUnavailable(f"its container is out of sight: {error}") from error
        if event == "kill":
            raise RuntimeUnavailable("its container was killed by somebody else")
        return event == "oom"

    async def update(self, limits: Limits) -> None:
        """Give it other limits while it runs. Raises RuntimeUnavailable."""
        try:
            await self._engine.update(self.id, limits.to_engine())
        except (EngineAway, EngineError) as error:
            raise RuntimeUnavailable(f"a sandbox's limits cannot be set: {error}") from error

    async def usage(self) -> Usage:
        """What it has used, as far as can be known now."""
        try:
            stats = await self._engine.stats(self.id)
        except (EngineAway, EngineError):
            return Usage(None, None)
        cpu_ns = stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage")
        peak = stats.get("memory_stats", {}).get("max_usage")
        return Usage(cpu_ns / 1e9 if cpu_ns else None, peak or None)

    async def _state(self) -> Mapping[str, Any]:
        try:
            state: Mapping[str, Any] = (await self._engine.inspect(self.id))["State"]
        except NotThere as error:
            raise RuntimeUnavailable("its container was removed by somebody else") from error
        except (EngineAway, EngineError) as error:
            raise RuntimeUnavailable(f"its container is out of sight: {error}") from error
        return state


class Containers:
    """Starts and removes containers for one boot of a worker."""

    def __init__(self, engine: Engine, owner: Owner, starts_at_once: int) -> None:
        """They belong to `owner`; more starts at once would only make each slower."""
        self._engine = engine
        self._owner = owner
        self._starting = asyncio.Semaphore(starts_at_once)
        self._names: set[str] = set()

    @asynccontextmanager
    async def running(
        self, name: str, spec: Mapping[str, Any], output: Output | None = None
    ) -> AsyncIterator[Container]:
        """A container `faas-<name>`, started; killed and removed at the end of the block.

        What it prints is fed to `output`, or dropped. Raises RuntimeUnavailable.
        """
        name = f"faas-{name}"
        self._names.add(name)
        # Not to be interrupted: what is created has to be known, to be removed.
        creating = asyncio.create_task(self._engine.create(name, spec), name=f"create {name}")
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._remove, name, creating)
            try:
                container_id = await asyncio.shield(creating)
            except NotThere as error:
                raise RuntimeUnavailable(_missing(spec["Image"], error)) from error
            except (EngineAway, EngineError) as error:
                raise RuntimeUnavailable(f"no container could be created: {error}") from error
            try:
                reading = asyncio.create_task(
                    _feed(await self._engine.attach(container_id), output)
                    if output
                    else _nothing(),
                    name=f"read {name}",
                )
                stack.push_async_callback(_end, reading)
                exited = await self._engine.wait(container_id)
                stack.push_async_callback(_end, exited)
                async with self._starting:
                    started = time.time()
                    await self._engine.start(container_id)
                image = (await self._engine.inspect(container_id))["Image"]
            except (EngineAway, EngineError) as error:
                raise RuntimeUnavailable(f"no container could be started: {error}") from error
            yield Container(
                engine=self._engine,
                container_id=container_id,
                image=image,
                started=started,
                exited=exited,
                output_read=reading,
            )

    async def sweep(self, dead_boots: list[str]) -> None:
        """Remove what dead workers of the same stack left. Raises RuntimeUnavailable."""
        try:
            for container in await self._engine.containers(self._owner.stack_labels):
                if container["Labels"].get("faas.boot") in dead_boots:
                    log.warning("removing a dead worker's container", container=container["Id"])
                    await self._engine.remove(container["Id"])
        except (EngineAway, EngineError) as error:
            raise RuntimeUnavailable(
                f"what dead workers left cannot be removed: {error}"
            ) from error

    async def reconcile(self) -> None:
        """Remove what is this boot's and in nobody's hands. Raises EngineAway, EngineError."""
        known = set(self._names)
        for container in await self._engine.containers(self._owner.labels):
            name = container["Names"][0].removeprefix("/")
            # Looked at twice: it may have been created in the meantime.
            if name not in known and name not in self._names:
                log.warning("removing a container that was left", container=name)
                await self._engine.remove(container["Id"])

    async def _remove(self, name: str, creating: "asyncio.Task[str]") -> None:
        # It ends even if this is cancelled: nothing may be left running.
        await asyncio.shield(asyncio.create_task(self._removed(name, creating), name="remove"))

    async def _removed(self, name: str, creating: "asyncio.Task[str]") -> None:
        await asyncio.wait({creating})
        try:
            if not creating.cancelled() and not creating.exception():
                await self._engine.remove(creating.result())
        except (EngineAway, EngineError) as error:
            log.warning("a container will be removed later", container=name, reason=str(error))
        finally:
            self._names.discard(name)


async def _feed(attachment: Attachment, output: Output) -> None:
    try:
        async for stream, data in attachment.read():
            await output.take(stream, data)
        for stream in Stream:
            output.end(stream)
    finally:
        attachment.close()


async def _nothing() -> None:
    pass


async def _end(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # Whoever needed to know has asked.


def _missing(image: str, error: NotThere) -> str:
    return (
        f"the image {image} is not there: build it with `make images`, or load it with"
        f" `docker load` ({error})"
    )
