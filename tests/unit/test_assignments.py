"""Which worker a waiting call is given to."""

import asyncio
from uuid import UUID

from services.ids import new_uuid
from services.invocations.assignments import DECLINED_S, SILENT_S, Assignments, Slots, Version

LONG_S = 600.0


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Hall:
    """Assignments over workers that say what a test has them say."""

    def __init__(self, hold_s: float = LONG_S) -> None:
        self.clock = Clock()
        self.busy = False
        self.version: Version = (new_uuid(), 1)
        self.assignments = Assignments(lambda: self.busy, hold_s=hold_s)

    def worker(self, size: int, *, knows: bool = True) -> Slots:
        slots = Slots(new_uuid(), new_uuid(), self.clock)
        slots.heard(size, ready=True)
        if knows:
            slots.has_run(self.version)
        self.assignments.add(slots)
        return slots

    async def reserve(self) -> tuple[UUID, Slots | None]:
        key = new_uuid()
        return key, await self.assignments.reserve(key, self.version)

    def waiting(self) -> "asyncio.Task[tuple[UUID, Slots | None]]":
        return asyncio.create_task(self.reserve())

    def free(self, slots: Slots, key: UUID) -> None:
        slots.held.discard(key)
        self.assignments.freed(slots)


async def settle() -> None:
    """Let every task go on until all of them wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_nobody_is_reserved_where_nobody_is() -> None:
    hall = Hall()
    assert (await hall.reserve())[1] is None


async def test_a_worker_that_has_not_run_it_is_left_to_the_queue() -> None:
    hall = Hall()
    hall.worker(4, knows=False)
    assert (await hall.reserve())[1] is None


async def test_the_one_with_the_most_free_slots_is_given_it() -> None:
    hall = Hall()
    small, large = hall.worker(1), hall.worker(3)
    given = [(await hall.reserve())[1] for _ in range(4)]
    assert given.count(large) == 3
    assert given.count(small) == 1


async def test_a_full_one_is_waited_for_and_the_first_is_served_first() -> None:
    hall = Hall()
    slots = hall.worker(1)
    held, _ = await hall.reserve()
    first, second = hall.waiting(), hall.waiting()
    await settle()
    assert not first.done()
    hall.free(slots, held)
    key, given = await first
    assert given is slots
    assert not second.done()
    hall.free(slots, key)
    assert (await second)[1] is slots


async def test_who_is_free_and_has_not_run_it_learns_it_through_the_queue() -> None:
    hall = Hall()
    hall.worker(1)
    await hall.reserve()
    hall.worker(1, knows=False)
    assert (await hall.reserve())[1] is None


async def test_after_a_while_the_queue_has_it() -> None:
    hall = Hall(hold_s=0.01)
    slots = hall.worker(1)
    held, _ = await hall.reserve()
    assert (await hall.reserve())[1] is None
    # Who has gone gets nothing.
    hall.free(slots, held)
    assert slots.held == set()


async def test_half_is_left_to_a_busy_queue() -> None:
    hall = Hall(hold_s=0.01)
    hall.worker(4)
    hall.busy = True
    given = [(await hall.reserve())[1] is not None for _ in range(4)]
    assert given == [True, True, False, False]


async def test_a_silent_one_is_given_nothing() -> None:
    hall = Hall()
    slots = hall.worker(4)
    hall.clock.now += SILENT_S + 1
    assert (await hall.reserve())[1] is None
    slots.heard(4, ready=True)
    assert (await hall.reserve())[1] is slots


async def test_one_that_drains_is_given_nothing() -> None:
    hall = Hall()
    hall.worker(4).heard(4, ready=False)
    assert (await hall.reserve())[1] is None


async def test_one_that_gave_back_is_left_alone_for_a_moment() -> None:
    hall = Hall()
    slots = hall.worker(4)
    key, _ = await hall.reserve()
    slots.declined(key)
    assert slots.held == set()
    assert (await hall.reserve())[1] is None
    hall.clock.now += DECLINED_S + 0.1
    assert (await hall.reserve())[1] is slots


async def test_what_two_heartbeats_do_not_name_is_not_held() -> None:
    hall = Hall()
    slots = hall.worker(1)
    key, _ = await hall.reserve()
    slots.named(set())
    assert slots.held == {key}
    slots.named(set())
    assert slots.held == set()


async def test_what_a_heartbeat_names_is_held() -> None:
    hall = Hall(hold_s=0.01)
    slots = hall.worker(1)
    slots.named({new_uuid()})
    assert (await hall.reserve())[1] is None


async def test_a_caller_that_goes_while_it_waits_takes_nothing_along() -> None:
    hall = Hall()
    slots = hall.worker(1)
    held, _ = await hall.reserve()
    first, second = hall.waiting(), hall.waiting()
    await settle()
    # Given the slot and gone in the same moment.
    hall.free(slots, held)
    first.cancel()
    assert (await second)[1] is slots
    assert len(slots.held) == 1


async def test_nobody_waits_for_a_worker_that_left() -> None:
    hall = Hall()
    slots = hall.worker(1)
    await hall.reserve()
    waiting = hall.waiting()
    await settle()
    hall.assignments.remove(slots)
    assert (await waiting)[1] is None


async def test_nobody_waits_at_the_end() -> None:
    hall = Hall()
    hall.worker(1)
    await hall.reserve()
    waiting = hall.waiting()
    await settle()
    hall.assignments.close()
    assert (await waiting)[1] is None
    assert (await hall.reserve())[1] is None
