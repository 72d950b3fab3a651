"""Does what the pool decides: starts, lends and closes warm sandboxes.

`lease` is the whole of it for its users: a sandbox that is theirs as long as the
block runs, and afterwards either ready for the next call or gone.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from services.worker.hardening import Limits
from services.worker.holdings import Holdings
from services.worker.pool import Assign, Demand, Pool, Retire, Slot, Start, StartKind, Ticket
from services.worker.runtime import FunctionSpec, RuntimeUnavailable
from services.worker.sandboxes import SandboxMaker, StillBorn, WarmSandbox

# A call that gets no sandbox for so long is given back, for another worker to take.
LEASE_S = 60.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Call(Demand):
    """What a call needs, and of which function it is."""

    spec: FunctionSpec = field(kw_only=True, compare=False)


@dataclass
class Lease:
    """A sandbox in the hands of one call."""

    sandbox: WarmSandbox
    kind: StartKind
    reusable: bool = False
    """To be set by its user, when the sandbox is as it was before."""
    cpu_s: float | None = None
    """What the call used, for the pool to learn from."""


class WarmSandboxes:
    """The warm sandboxes of one worker."""

    def __init__(self, pool: Pool, maker: SandboxMaker, prewarmed: Limits) -> None:
        """`prewarmed` are the limits of those that wait for a function."""
        self._pool = pool
        self._maker = maker
        self._prewarmed = prewarmed
        self._sandboxes: dict[Slot, WarmSandbox] = {}
        self._granted: dict[Ticket, asyncio.Future[Assign]] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    def begin(self) -> None:
        """Prewarm what is to be prewarmed."""
        self._act()

    def keep(self, wanted: Sequence[tuple[FunctionSpec, int]]) -> None:
        """Have so many of these versions from now on, whether anybody calls or not."""
        kept = self._pool.keep([(self._call(spec), number) for spec, number in wanted])
        for spec, number in wanted:
            if (less := kept.get((spec.function_id, spec.version), 0)) < number:
                log.warning(
                    "fewer sandboxes are kept ready than wanted: no more of the budget may be"
                    " (FAAS_WORKER_KEPT_SHARE)",
                    function_id=spec.function_id,
                    wanted=number,
                    kept=less,
                )
        self._act()

    def holdings(self) -> Holdings:
        """Those that there are now."""
        return Holdings(self._pool.slots(), self._pool.budget)

    @asynccontextmanager
    async def lease(self, spec: FunctionSpec) -> AsyncIterator[Lease]:
        """A sandbox for one call of a function; unless it says that it is reusable, it goes.

        Raises RuntimeUnavailable and StillBorn.
        """
        slot, kind = await self._granted_slot(spec)
        lease = Lease(self._sandboxes[slot], kind)
        try:
            if not lease.sandbox.fitted:
                await lease.sandbox.fit(spec, self._maker.limits(spec))
            yield lease
        finally:
            # It ends even if this is cancelled: a sandbox is never lost.
            await asyncio.shield(self._task(self._give_back(slot, lease), "give a sandbox back"))

    async def close(self) -> None:
        """Close all. Nothing is left."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._starting:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(self._close(slot) for slot in list(self._sandboxes)))

    async def _granted_slot(self, spec: FunctionSpec) -> tuple[Slot, StartKind]:
        demand = self._call(spec)
        if not self._pool.fits(demand):
            raise RuntimeUnavailable(
                f"the function needs {demand.memory_mb} MiB, which is more than this worker"
                " may use for all sandboxes together (FAAS_WORKER_SANDBOX_MEMORY_MB)"
            )
        ticket = self._pool.ask(demand)
        granted = self._granted[ticket] = asyncio.get_running_loop().create_future()
        self._act()
        try:
            async with asyncio.timeout(LEASE_S):
                assign = await granted
        except BaseException as error:
            self._granted.pop(ticket, None)
            self._pool.withdraw(ticket)
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                # It was given one in the same moment.
                self._pool.unused(granted.result().slot)
            self._act()
            if isinstance(error, TimeoutError):
                raise RuntimeUnavailable(
                    f"no sandbox came free on this worker within {LEASE_S:g} s"
                ) from error
            raise
        return assign.slot, assign.kind

    def _call(self, spec: FunctionSpec) -> Call:
        limits = self._maker.limits(spec)
        return Call(
            key=(spec.function_id, spec.version),
            runtime=spec.runtime,
            memory_mb=limits.memory_mb,
            # Of a running container /tmp keeps its size.
            prewarmed=limits.tmp_mb == self._prewarmed.tmp_mb,
            spec=spec,
        )

    async def _give_back(self, slot: Slot, lease: Lease) -> None:
        cpu_s = None if slot.uses == 1 else lease.cpu_s  # The first has the start's in it.
        kept = self._pool.released(slot, reusable=lease.reusable, cpu_s=cpu_s)
        self._act()
        if not kept:
            await self._close(slot)

    def _act(self) -> None:
        """Do what is to be done now, and look again when time may have changed it."""
        if self._closing:
            return
        for action in self._pool.decide():
            match action:
                case Assign(ticket, slot, _):
                    self._granted.pop(ticket).set_result(action)
                case Start(slot, demand):
                    starting = self._task(self._start(slot, demand), "start a sandbox")
                    self._starting.add(starting)
                    starting.add_done_callback(self._starting.discard)
                case Retire(slot):
                    self._task(self._close(slot), "close a sandbox")
        again_s = self._pool.look_again_s()
        loop = asyncio.get_running_loop()
        if again_s is not None and (
            self._timer is None or self._timer.when() > loop.time() + again_s
        ):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(again_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._act()

    async def _start(self, slot: Slot, demand: Demand | None) -> None:
        spec = demand.spec if isinstance(demand, Call) else None
        limits = self._maker.limits(spec) if spec else self._prewarmed
        try:
            sandbox = await self._maker.warm(slot.runtime, limits, spec)
        except (RuntimeUnavailable, StillBorn) as error:
            ticket = self._pool.failed(slot)
            if ticket is not None:
                self._granted.pop(ticket).set_exception(error)
            else:
                log.warning("a sandbox was not started", runtime=slot.runtime, reason=str(error))
        else:
            self._sandboxes[slot] = sandbox
            self._pool.started(slot)
            sandbox.exited.add_done_callback(lambda _: self._on_exit(slot))
        self._act()

    def _on_exit(self, slot: Slot) -> None:
        """One died; if nobody had it in hands it is closed here."""
        if not self._closing and self._pool.lost(slot):
            log.warning("a sandbox ended that nobody used", runtime=slot.runtime, key=slot.key)
            self._task(self._close(slot), "close a sandbox")

    async def _close(self, slot: Slot) -> None:
        sandbox = self._sandboxes.pop(slot, None)
        if sandbox is not None:
            await sandbox.close()
        self._pool.closed(slot)
        self._act()

    def _task(self, coroutine: Coroutine[None, None, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
