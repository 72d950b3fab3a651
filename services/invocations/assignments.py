"""Free slots of the workers whose streams are at this replica, for calls that wait.

A waiting call of a function that a worker has run already, and so has warm, is
accepted and granted to it in one statement, and sent down its stream: no queue, no
question. Where none of its slots is free, the call waits here for a moment, before it
is accepted; then it goes through the queue like all others. Nothing here is the
truth: the worker may give back what it is assigned, and the record says who has it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

# A call waits so long for a slot before it is accepted into the queue.
HOLD_S = 0.1
# What is assigned to a worker that has been silent for longer might lie there.
SILENT_S = 8.0
# After it gave something back: by then it knows better than we do what it can take.
DECLINED_S = 1.0
MAX_WARM = 1000

Version: TypeAlias = tuple[UUID, int]
"""A function and its version."""


class Slots:
    """One worker's, as its stream tells of them."""

    def __init__(
        self, worker: UUID, boot: UUID, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """None, until the worker says how many it has."""
        self._clock = clock
        self.worker = worker
        self.boot = boot
        self.held: set[UUID] = set()
        """What it has in hands, or is about to have."""
        self._size = 0
        self._warm: dict[Version, None] = {}
        self._unnamed: set[UUID] = set()
        self._heard_at = float("-inf")
        self._declined_at = float("-inf")

    def heard(self, size: int, *, ready: bool) -> None:
        """Note a heartbeat: how many slots it has, and whether it takes work."""
        self._heard_at = self._clock()
        self._size = size if ready else 0

    def named(self, named: set[UUID]) -> None:
        """Note what a heartbeat names as being in its hands."""
        # Not named once, it may be on its way to the worker; twice, it is not.
        unnamed = self.held - named
        self.held -= unnamed & self._unnamed
        self._unnamed = unnamed
        self.held |= named

    def declined(self, invocation_id: UUID) -> None:
        """It gave this back."""
        self.held.discard(invocation_id)
        self._declined_at = self._clock()

    def has_run(self, version: Version) -> None:
        """It has this version on its disk, and perhaps warm."""
        self._warm[version] = None
        if len(self._warm) > MAX_WARM:
            del self._warm[next(iter(self._warm))]

    def knows(self, version: Version) -> bool:
        """Whether it has run this version."""
        return version in self._warm

    def free(self, *, shared: bool) -> int:
        """How many may be assigned to it now; `shared`: half of the slots are for the queue."""
        now = self._clock()
        if now - self._heard_at > SILENT_S or now - self._declined_at < DECLINED_S:
            return 0
        return (self._size // 2 if shared else self._size) - len(self.held)


@dataclass(eq=False)
class _Wanted:
    invocation_id: UUID
    version: Version
    slots: "asyncio.Future[Slots | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Assignments:
    """Who of the workers at this replica takes a waiting call."""

    def __init__(self, queue_is_busy: Callable[[], bool], *, hold_s: float = HOLD_S) -> None:
        """While `queue_is_busy`, half of each worker's slots are left to the queue.

        A call waits at most `hold_s` for a slot.
        """
        self._hold_s = hold_s
        self._queue_is_busy = queue_is_busy
        self._all: list[Slots] = []
        self._wanted: deque[_Wanted] = deque()
        self._closed = False

    def add(self, slots: Slots) -> None:
        """A worker has come."""
        self._all.append(slots)

    def remove(self, slots: Slots) -> None:
        """Its stream has ended."""
        if slots in self._all:
            self._all.remove(slots)
        self._release_those_without_hope()

    def close(self) -> None:
        """Nobody waits any more: the server is going."""
        self._closed = True
        self._release_those_without_hope()

    async def reserve(self, invocation_id: UUID, version: Version) -> Slots | None:
        """A slot of a worker that knows `version`; None: go through the queue.

        What is reserved is `held` until it is released.
        """
        shared = self._queue_is_busy()
        if slots := self._freest(self._knowing(version), shared=shared):
            slots.held.add(invocation_id)
            return slots
        # Somebody else is free and would learn it; or there is nobody to wait for.
        if self._freest(self._all, shared=shared) or not self._is_hopeful(version):
            return None
        wanted = _Wanted(invocation_id, version)
        self._wanted.append(wanted)
        try:
            async with asyncio.timeout(self._hold_s):
                return await wanted.slots
        except TimeoutError:
            # Perhaps it was given one in the same moment.
            return None if wanted.slots.cancelled() else wanted.slots.result()
        except asyncio.CancelledError:
            self._give_up(wanted)
            raise
        finally:
            if wanted in self._wanted:
                self._wanted.remove(wanted)

    def release(self, slots: Slots, invocation_id: UUID) -> None:
        """It is not in this worker's hands any more: its slot is somebody else's."""
        slots.held.discard(invocation_id)
        self.freed(slots)

    def freed(self, slots: Slots) -> None:
        """Something may be free: whoever waits for it gets it, the first one first."""
        free = slots.free(shared=self._queue_is_busy())
        for wanted in list(self._wanted) if free > 0 else ():
            if slots.knows(wanted.version) and not wanted.slots.done():
                self._wanted.remove(wanted)
                slots.held.add(wanted.invocation_id)
                wanted.slots.set_result(slots)
                free -= 1
                if free <= 0:
                    return

    def _give_up(self, wanted: _Wanted) -> None:
        # It may have been given a slot in the moment in which its caller went.
        if wanted.slots.done() and not wanted.slots.cancelled():
            slots = wanted.slots.result()
            if slots is not None:
                self.release(slots, wanted.invocation_id)

    def _knowing(self, version: Version) -> list[Slots]:
        return [slots for slots in self._all if slots.knows(version)]

    def _is_hopeful(self, version: Version) -> bool:
        """Whether some worker that knows `version` will take something when it is free."""
        if self._closed:
            return False
        shared = self._queue_is_busy()
        return any(
            slots.free(shared=shared) + len(slots.held) > 0 for slots in self._knowing(version)
        )

    def _release_those_without_hope(self) -> None:
        for wanted in self._wanted:
            if not wanted.slots.done() and not self._is_hopeful(wanted.version):
                wanted.slots.set_result(None)

    @staticmethod
    def _freest(all_slots: Iterable[Slots], *, shared: bool) -> Slots | None:
        best = max(all_slots, key=lambda slots: slots.free(shared=shared), default=None)
        return best if best is not None and best.free(shared=shared) > 0 else None
