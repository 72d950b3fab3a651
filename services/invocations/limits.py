"""The limits of concurrency, as FunctionService has them, kept up in the lanes."""

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import grpc.aio
import structlog

from faas.v1.function_registry_service_pb2 import ListConcurrencyLimitsRequest
from services import ids
from services.invocations.database import UNAVAILABLE
from services.invocations.feeder import Feeder
from services.invocations.lanes import Lanes

if TYPE_CHECKING:
    from faas.v1.function_registry_service_pb2_grpc import FunctionRegistryServiceAsyncStub

# A change is in force everywhere within about a second.
LOOK_S = 0.8
ANSWER_S = 5.0

log = structlog.get_logger()


class Limits:
    """Learns limits: from each invocation that is accepted, and by asking."""

    def __init__(
        self, lanes: Lanes, feeder: Feeder, functions: "FunctionRegistryServiceAsyncStub"
    ) -> None:
        """Ask `functions`, write `lanes`."""
        self._lanes = lanes
        self._feeder = feeder
        self._functions = functions
        self._known: dict[UUID, int] = {}

    async def note(self, function_id: UUID, most: int) -> None:
        """What a function's limit is now; 0: none. Written before anything is accepted by it."""
        if self._known.get(function_id, 0) != most:
            await self._lanes.set_limit(function_id, most or None)
            self._known[function_id] = most

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except grpc.aio.AioRpcError as error:
                log.debug("limits are as they were", error=error.details())
            except UNAVAILABLE as error:
                log.warning("noting limits has to wait", error=str(error))
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Ask once."""
        answer = await self._functions.ListConcurrencyLimits(
            ListConcurrencyLimitsRequest(), timeout=ANSWER_S
        )
        limits = {
            uuid: most
            for name, most in answer.max_concurrency.items()
            if (uuid := ids.parse(ids.FUNCTION, name)) is not None
        }
        if limits != self._known:
            await self._lanes.set_limits(limits)
            self._known = limits
            self._feeder.wake()
