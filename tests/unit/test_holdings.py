"""What a worker says of its sandboxes: grouped, bounded, the largest first."""

from faas.v1.worker_pb2 import Worker
from services.worker.holdings import MAX_ENTRIES, Holdings
from services.worker.pool import Budget, Key, Slot, State

BUDGET = Budget(sandboxes=500, memory_mb=100_000, cores=2)


def a_slot(
    key: Key | None, state: State = State.READY, memory_mb: int = 128, runtime: str = "python"
) -> Slot:
    return Slot(runtime, memory_mb, key, since=0.0, state=state)


def entries(*slots: Slot) -> list[Worker.Sandboxes]:
    return Holdings(slots, BUDGET).entries()


def test_each_version_has_an_entry_with_its_states() -> None:
    one, next_one = ("func-a", 1), ("func-a", 2)
    assert entries(
        a_slot(next_one, State.STARTING),
        a_slot(one),
        a_slot(one, State.LEASED),
        a_slot(one, State.LEASED, 192),
    ) == [
        Worker.Sandboxes(
            runtime="python",
            function_id="func-a",
            function_version=1,
            ready=1,
            in_use=2,
            memory_mb=448,
        ),
        Worker.Sandboxes(
            runtime="python",
            function_id="func-a",
            function_version=2,
            starting=1,
            memory_mb=128,
        ),
    ]


def test_prewarmed_ones_have_an_entry_for_each_runtime() -> None:
    found = entries(
        a_slot(None, runtime="node"), a_slot(None), a_slot(None, State.STARTING, runtime="node")
    )
    assert found == [
        Worker.Sandboxes(runtime="node", ready=1, starting=1, memory_mb=256),
        Worker.Sandboxes(runtime="python", ready=1, memory_mb=128),
    ]


def test_what_is_being_removed_counts_in_the_budget_alone() -> None:
    held = Holdings([a_slot(("func-a", 1)), a_slot(("func-b", 1), State.CLOSING, 64)], BUDGET)
    assert [entry.function_id for entry in held.entries()] == ["func-a"]
    assert held.totals() == Worker.Budget(
        sandboxes=500, memory_mb=100_000, held=2, held_memory_mb=192
    )


def test_of_many_the_largest_are_told_and_all_are_counted() -> None:
    slots = [a_slot((f"func-{number:03}", 1), memory_mb=number + 1) for number in range(150)]
    held = Holdings(slots, BUDGET)
    found = held.entries()
    assert len(found) == MAX_ENTRIES
    assert [entry.memory_mb for entry in found] == list(range(150, 50, -1))
    assert held.totals().held == 150


def test_nothing_held_is_no_entry() -> None:
    held = Holdings([], BUDGET)
    assert held.entries() == []
    assert held.totals() == Worker.Budget(sandboxes=500, memory_mb=100_000)
