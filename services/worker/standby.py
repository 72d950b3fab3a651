"""Keeps ready what this worker is told to: its share of what functions want to have warm.

Each heartbeat's answer says all of it, so it is so again soon after a start of either
side. What cannot be had now (code, image) is tried again.
"""

import asyncio
from contextlib import suppress

import structlog

from faas.v1.execution_pb2 import Directive
from services.errors import MeshError
from services.worker.binaries import Binaries
from services.worker.code_cache import CodeCache
from services.worker.runtime import FunctionSpec, Runtime, RuntimeUnavailable

TRY_AGAIN_S = 10.0
# One that is being built is not waited for: others may be ready.
PREPARE_S = 30.0

Wanted = dict[tuple[str, int], int]
"""By function and version."""

log = structlog.get_logger()


class Standby:
    """What a worker is to keep ready."""

    def __init__(self, runtime: Runtime, cache: CodeCache, binaries: Binaries) -> None:
        """Keep it in `runtime`, with code from `cache`, or `binaries` where it is compiled."""
        self._runtime = runtime
        self._cache = cache
        self._binaries = binaries
        self._wanted: Wanted = {}
        self._changed = asyncio.Event()

    def want(self, kept: Directive.Kept) -> None:
        """Keep these ready from now on, and no others."""
        wanted = {(one.function_id, one.function_version): one.sandboxes for one in kept.functions}
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    async def run(self) -> None:
        """Have the runtime keep what is wanted, until cancelled."""
        complete = True
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if complete else TRY_AGAIN_S):
                    await self._changed.wait()
            self._changed.clear()
            complete = await self._keep(self._wanted)

    async def _keep(self, wanted: Wanted) -> bool:
        """Whether all of it could be had, or can never be."""
        ready, complete = [], True
        for (function_id, version), number in wanted.items():
            try:
                async with asyncio.timeout(PREPARE_S):
                    spec = await self._prepared(function_id, version)
            except (MeshError, OSError, RuntimeUnavailable) as error:
                complete = False
                log.warning(
                    "a function cannot be kept ready now",
                    function_id=function_id,
                    version=version,
                    reason=str(error),
                )
            else:
                if spec is not None:
                    ready.append((spec, number))
        self._runtime.keep(ready)
        return complete

    async def _prepared(self, function_id: str, version: int) -> FunctionSpec | None:
        """The version, ready to run; None where it does not compile, as its callers are told."""
        spec = await self._cache.get(function_id, version)
        if spec.runtime not in self._runtime.images():
            raise RuntimeUnavailable(f"this worker has no runtime {spec.runtime}")
        if spec.is_compiled and await self._binaries.get(spec) is not None:
            return None
        await self._runtime.prepare(spec)
        return spec
