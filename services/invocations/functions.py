"""What an invocation would run, as FunctionService resolves it; remembered for moments.

An answer is kept while FunctionService tells of changes, and for a second at the
most: so a change is in force for the next call of whoever made it, and everywhere
within that second, and most calls cost no call to FunctionService.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from faas.v1.function_registry_service_pb2 import (
    ResolveFunctionRequest,
    ResolveFunctionResponse,
    WatchChangesRequest,
)
from services.channels import mesh_errors

if TYPE_CHECKING:
    from faas.v1.function_registry_service_pb2_grpc import FunctionRegistryServiceAsyncStub

# FunctionService is next door: a restart takes less, longer means that it is away.
RESOLVE_S = 4.0
FRESH_S = 1.0
MAX_KEPT = 10_000
WATCH_AGAIN_S = 0.5

log = structlog.get_logger()


@dataclass(frozen=True)
class _Kept:
    answer: ResolveFunctionResponse
    until: float
    """On `time.monotonic()`'s scale."""


class Functions:
    """The functions that are invoked."""

    def __init__(self, registry: "FunctionRegistryServiceAsyncStub") -> None:
        """Resolve by `registry`."""
        self._registry = registry
        self._kept: dict[tuple[str, int], _Kept] = {}
        self._watching = False
        self._changes = 0

    async def resolve(
        self, name_or_id: str, version: int, request_id: str
    ) -> ResolveFunctionResponse:
        """What would run. Raises FunctionNotFound, VersionNotFound, DependencyUnavailable."""
        key = (name_or_id, version)
        asked, changes = time.monotonic(), self._changes
        kept = self._kept.get(key)
        if kept is not None and asked < kept.until:
            return kept.answer
        request = ResolveFunctionRequest(function_id=name_or_id, version=version)
        async with mesh_errors("FunctionService"):
            answer = await self._registry.ResolveFunction(
                request,
                timeout=RESOLVE_S,
                metadata=(("x-request-id", request_id),),
                # It may just be starting again: that is waited for, within the same time.
                wait_for_ready=True,
            )
        # A change that came meanwhile may have been of this function.
        if self._watching and self._changes == changes:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = _Kept(answer, asked + FRESH_S)
        return answer

    async def run(self) -> None:
        """Hear of changes until cancelled."""
        while True:
            try:
                await self._watch()
            except grpc.aio.AioRpcError as error:
                log.warning("watching functions has to wait", error=error.details())
            finally:
                self._watching = False
                self._forget_all()
            await asyncio.sleep(WATCH_AGAIN_S)

    async def _watch(self) -> None:
        heard: asyncio.Queue[int] = asyncio.Queue()
        heard.put_nowait(0)
        async for change in self._registry.WatchChanges(_acknowledgements(heard)):
            if change.function_id:
                self._forget(change.function_id)
                heard.put_nowait(change.number)
            else:
                self._watching = True

    def _forget(self, function_id: str) -> None:
        self._changes += 1
        gone = [
            key
            for key, kept in self._kept.items()
            if kept.answer.version.function_id == function_id
        ]
        for key in gone:
            del self._kept[key]

    def _forget_all(self) -> None:
        self._changes += 1
        self._kept.clear()


async def _acknowledgements(heard: "asyncio.Queue[int]") -> AsyncIterator[WatchChangesRequest]:
    while True:
        yield WatchChangesRequest(acknowledged=await heard.get())
