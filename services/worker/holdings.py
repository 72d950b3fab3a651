"""What sandboxes a worker holds, as it says of itself with every heartbeat."""

from collections.abc import Sequence
from dataclasses import dataclass

from faas.v1.worker_pb2 import Worker
from services.worker.pool import Budget, Key, Slot, State

# A heartbeat comes every few seconds from every worker: it stays small.
MAX_ENTRIES = 100


@dataclass(frozen=True)
class Holdings:
    """The sandboxes in a pool's books at one moment."""

    slots: Sequence[Slot]
    budget: Budget

    def entries(self) -> list[Worker.Sandboxes]:
        """By version of a function, or runtime; the MAX_ENTRIES with the most memory."""
        found: dict[tuple[Key | None, str], Worker.Sandboxes] = {}
        for slot in self.slots:
            if slot.state is State.CLOSING:
                continue
            function_id, version = slot.key or ("", 0)
            entry = found.setdefault(
                (slot.key, slot.runtime),
                Worker.Sandboxes(
                    runtime=slot.runtime, function_id=function_id, function_version=version
                ),
            )
            entry.ready += slot.state is State.READY
            entry.in_use += slot.state is State.LEASED
            entry.starting += slot.state is State.STARTING
            entry.memory_mb += slot.memory_mb
        return sorted(found.values(), key=_largest_first)[:MAX_ENTRIES]

    def totals(self) -> Worker.Budget:
        """What may be held, and how much of it is."""
        return Worker.Budget(
            sandboxes=self.budget.sandboxes,
            memory_mb=self.budget.memory_mb,
            held=len(self.slots),
            held_memory_mb=sum(slot.memory_mb for slot in self.slots),
        )


def _largest_first(entry: Worker.Sandboxes) -> tuple[int, str, int, str]:
    return -entry.memory_mb, entry.function_id, entry.function_version, entry.runtime
