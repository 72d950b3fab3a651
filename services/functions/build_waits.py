"""Waiting for builds: workers for work, invocations for binaries, deployments for both.

What is changed by this replica is seen at once; what others change, at the next look.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from faas.v1.function_pb2 import FunctionVersion
from services.errors import DependencyUnavailable, InvalidCode, ShuttingDown
from services.functions.builds import Builds, Source, State
from services.functions.tables import BuildRow, VersionRow

LOOK_S = 1.0
# Of workers there may be many, and they wait always.
LOOK_FOR_WORK_S = 3.0

_BUILDING = FunctionVersion.BUILDING


@dataclass
class BuildWaits:
    """Waits that end with the process's draining."""

    builds: Builds
    pickup_s: float
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _closing: bool = False

    def tell(self) -> None:
        """Wake those who wait: something changed."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def close(self) -> None:
        """End all waits: the server is going."""
        self._closing = True
        self.tell()

    async def take(
        self, runtime: str, target: str, worker_id: str, wait_s: float
    ) -> BuildRow | None:
        """A build for a worker; None: none came up in this time."""
        deadline = time.monotonic() + wait_s
        while True:
            changed = self._changed
            build = await self.builds.take(runtime, target, worker_id)
            if build is not None:
                self.tell()
                return build
            if not await self._again(changed, deadline, LOOK_FOR_WORK_S):
                return None

    async def ended(self, source: Source, target: str, wait_s: float) -> BuildRow:
        """A build when it has ended, or as it is after this time."""
        deadline = time.monotonic() + wait_s
        if (await self.builds.find(source, target)).status == "pending":
            self.tell()
        while True:
            changed = self._changed
            build = await self.builds.find(source, target)
            if build.status in ("ready", "failed") or not await self._again(changed, deadline):
                return build

    async def validate(self, version: VersionRow, field_: str) -> None:
        """Have a version's source built; return when it is.

        Raises InvalidCode, naming `field_`, and DependencyUnavailable where no worker
        takes it up. Of a source that no version has, nothing is left then.
        """
        source = Source.of(version)
        if not source.is_compiled:
            return
        built = False
        try:
            await self.builds.try_again(source, version.code_format)
            self.tell()
            state = await self._settled(version, source)
            built = state.state == FunctionVersion.READY
            if not built:
                raise InvalidCode.of(field_, f"does not compile:\n{state.reason}")
        finally:
            if not built:
                await asyncio.shield(self.builds.withdraw(source))

    async def _settled(self, version: VersionRow, source: Source) -> State:
        deadline = time.monotonic() + self.pickup_s
        while True:
            changed = self._changed
            state = (await self.builds.states([version]))[source]
            if state.state != _BUILDING:
                return state
            if await self.builds.is_taken(source):
                deadline = time.monotonic() + self.pickup_s
            if not await self._again(changed, deadline):
                if self._closing:
                    raise ShuttingDown
                why = f" The last one said: {state.reason}" if state.reason else ""
                raise DependencyUnavailable(
                    f"No worker began to compile it within {self.pickup_s:g} s: none that can is"
                    " connected, or all that can are busy. Nothing was changed; try again, or"
                    f" deploy without `validate`.{why}"
                )

    async def _again(self, changed: asyncio.Event, deadline: float, look_s: float = LOOK_S) -> bool:
        """Wait for a change, or for the time to look for others'; False: the wait is over."""
        left_s = deadline - time.monotonic()
        if left_s <= 0 or self._closing:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(look_s, left_s)):
                await changed.wait()
        return True
