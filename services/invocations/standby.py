"""Who keeps how many sandboxes ready: what functions want, spread over the workers.

Every replica comes to the same by itself, from what FunctionService and the table of
workers say. A function's workers are ordered by a hash of both, so that functions
meet different ones, and one that comes or goes moves little. What a dead worker kept
is kept by others when its lease is over.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import structlog

from faas.v1.execution_pb2 import Directive
from faas.v1.function_registry_service_pb2 import ListMinWarmRequest, ListMinWarmResponse
from faas.v1.worker_pb2 import Worker
from services.channels import mesh_errors
from services.errors import MeshError
from services.invocations.database import UNAVAILABLE
from services.invocations.workers import Workers

if TYPE_CHECKING:
    from faas.v1.function_registry_service_pb2_grpc import FunctionRegistryServiceAsyncStub

LOOK_S = 2.0
ANSWER_S = 5.0

log = structlog.get_logger()


class Standby:
    """The share of each worker."""

    def __init__(self, functions: "FunctionRegistryServiceAsyncStub", workers: Workers) -> None:
        """Ask `functions` what is wanted, and `workers` who there is."""
        self._functions = functions
        self._workers = workers
        self._shares: Mapping[str, Directive.Kept] | None = None

    def share(self, worker_id: str) -> Directive.Kept | None:
        """What that worker is to keep ready; None: it is not known yet."""
        if self._shares is None:
            return None
        return self._shares.get(worker_id, Directive.Kept())

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except MeshError as error:
                log.debug("what is kept ready is as it was", error=str(error))
            except UNAVAILABLE as error:
                log.warning("spreading what is kept ready has to wait", error=str(error))
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once."""
        async with mesh_errors("FunctionService"):
            answer = await self._functions.ListMinWarm(ListMinWarmRequest(), timeout=ANSWER_S)
        workers = await self._workers.all() if answer.functions else []
        self._shares = spread(answer.functions, workers)


def spread(
    functions: Iterable[ListMinWarmResponse.Function], workers: Iterable[Worker]
) -> dict[str, Directive.Kept]:
    """By worker, its share: of each function as evenly as can be among those that can run it."""
    able = [w for w in workers if w.state == Worker.READY and w.keeps_warm]
    shares = {worker.id: Directive.Kept() for worker in able}
    for function in functions:
        names = [w.id for w in able if any(r.name == function.runtime for r in w.runtimes)]
        names.sort(key=lambda name: _rank(function.function_id, name))
        for place, name in enumerate(names):
            share = function.min_warm // len(names) + (place < function.min_warm % len(names))
            if share:
                shares[name].functions.add(
                    function_id=function.function_id,
                    function_version=function.version,
                    sandboxes=share,
                )
    return shares


def _rank(function_id: str, worker_id: str) -> bytes:
    return hashlib.sha256(f"{function_id} {worker_id}".encode()).digest()
