"""The pool's policy, tried out in simulated time: hours of calls in milliseconds."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pytest

from services.worker.pool import (
    Assign,
    Budget,
    Demand,
    Pool,
    Retire,
    Slot,
    Start,
    StartKind,
    State,
    Ticket,
)

COLD_S = 0.3
CLOSE_S = 0.05
BUDGET = Budget(sandboxes=64, memory_mb=64 * 128, cores=2)


@dataclass
class Call:
    """One call in a simulation: when it came, and how it fared."""

    key: str
    run_s: float
    cpu_s: float | None
    asked_at: float
    assigned_at: float = -1
    kind: StartKind | None = None
    slot: Slot | None = None

    @property
    def waited_s(self) -> float:
        assert self.kind is not None, "it was never served"
        return self.assigned_at - self.asked_at


class Simulation:
    """A pool, a clock, and sandboxes that take exactly the time they are said to take."""

    def __init__(self, budget: Budget = BUDGET) -> None:
        self.now = 0.0
        self.budget = budget
        self.pool = Pool(budget, lambda: self.now)
        self.calls: list[Call] = []
        self.started: list[Start] = []
        self.retired: list[Slot] = []
        self._tickets: dict[Ticket, Call] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, time: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), happen))

    def call(
        self,
        key: str,
        at: float = 0,
        run_s: float = 0.01,
        cpu_s: float | None = None,
        memory_mb: int = 128,
        ended: Callable[[], None] = lambda: None,
    ) -> Call:
        call = Call(key, run_s, cpu_s, at)
        self.calls.append(call)
        demand = Demand((key, 1), "python", memory_mb)

        def ask() -> None:
            self._tickets[self.pool.ask(demand)] = call

        call.ended = ended  # type: ignore[attr-defined]
        self.at(at, ask)
        return call

    def burst(self, key: str, count: int, at: float = 0, **how: float) -> list[Call]:
        return [self.call(key, at, **how) for _ in range(count)]  # type: ignore[arg-type]

    def clients(self, key: str, count: int, until: float, run_s: float, cpu_s: float) -> None:
        """So many clients, each of which calls again when it is answered."""

        def again() -> None:
            if self.now < until:
                self.call(key, self.now, run_s, cpu_s, ended=again)

        for _ in range(count):
            self.call(key, 0, run_s, cpu_s, ended=again)

    def run(self, until: float = 3600) -> None:
        self._act()
        while self._events and self._events[0][0] <= until:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
            self._act()
        self.now = until
        self._act()

    def kinds(self, calls: Iterable[Call] | None = None) -> Counter[str]:
        return Counter(call.kind.name for call in calls or self.calls if call.kind)

    def sandboxes(self, key: str | None = None) -> list[Slot]:
        return [
            slot
            for slot in self.pool.slots()
            if slot.state is not State.CLOSING and (key is None or slot.key == (key, 1))
        ]

    def _act(self) -> None:
        for action in self.pool.decide():
            match action:
                case Start(slot):
                    self.started.append(action)
                    self.at(self.now + COLD_S, lambda slot=slot: self.pool.started(slot))
                case Assign(ticket, slot, kind):
                    call = self._tickets.pop(ticket)
                    assert slot.key == (call.key, 1)
                    call.assigned_at, call.kind, call.slot = self.now, kind, slot
                    self.at(self.now + call.run_s, lambda call=call: self._release(call))
                case Retire(slot):
                    self._close(slot)
        held = self.pool.slots()
        assert len(held) <= self.budget.sandboxes
        assert sum(slot.memory_mb for slot in held) <= self.budget.memory_mb
        again = self.pool.look_again_s()
        if again is not None and not any(event[0] <= self.now + again for event in self._events):
            self.at(self.now + again, lambda: None)

    def _release(self, call: Call) -> None:
        assert call.slot is not None
        if not self.pool.released(call.slot, reusable=True, cpu_s=call.cpu_s):
            self._close(call.slot)
        call.ended()  # type: ignore[attr-defined]

    def _close(self, slot: Slot) -> None:
        self.retired.append(slot)
        self.at(self.now + CLOSE_S, lambda: self.pool.closed(slot))


def test_the_first_call_is_cold_and_the_next_warm() -> None:
    simulation = Simulation()
    first, second = simulation.call("a"), simulation.call("a", at=1)
    simulation.run(2)
    assert (first.kind, first.waited_s) == (StartKind.COLD, COLD_S)
    assert (second.kind, second.waited_s) == (StartKind.WARM, 0)
    assert len(simulation.started) == 1


def test_a_version_is_never_given_anothers_sandbox() -> None:
    simulation = Simulation()
    simulation.call("a")
    other = simulation.call("b", at=1)
    simulation.run(2)
    assert other.kind is StartKind.COLD
    assert len(simulation.started) == 2


def test_what_was_used_last_is_used_first_and_the_rest_is_let_go() -> None:
    simulation = Simulation()
    simulation.burst("a", 4, run_s=5)
    calls = [simulation.call("a", at=20 + second) for second in range(400)]
    simulation.run(420)
    assert len({id(call.slot) for call in calls}) == 1
    assert len(simulation.sandboxes("a")) == 1
    assert len(simulation.retired) == 3


def test_everything_is_let_go_when_idle() -> None:
    simulation = Simulation()
    simulation.burst("a", 4, run_s=5)
    simulation.run(BUDGET.idle_s + 20)
    assert simulation.sandboxes() == []


def test_a_burst_of_short_calls_does_not_start_one_sandbox_each() -> None:
    simulation = Simulation()
    calls = simulation.burst("a", 32, run_s=0.005)
    simulation.run(30)
    assert len(simulation.started) <= BUDGET.cores
    assert max(call.waited_s for call in calls) < COLD_S + 32 * 0.005


def test_a_burst_on_a_warm_function_starts_nothing_that_would_come_too_late() -> None:
    simulation = Simulation()
    simulation.call("a", run_s=0.005)
    calls = simulation.burst("a", 32, at=1, run_s=0.005)
    simulation.run(30)
    assert len(simulation.started) == 1
    # Sooner than a start takes.
    assert max(call.waited_s for call in calls) < COLD_S


def test_a_burst_of_long_calls_gets_sandboxes() -> None:
    simulation = Simulation()
    calls = simulation.burst("a", 32, run_s=60)
    simulation.run(59)
    assert len(simulation.started) == 32
    # As fast as a machine starts them, two at a time: whether they compute is not known.
    assert max(call.waited_s for call in calls) < (16 + 2) * COLD_S


def test_a_burst_of_calls_that_compute_starts_few() -> None:
    simulation = Simulation()
    calls = simulation.burst("a", 32, run_s=0.2, cpu_s=0.2)
    simulation.run()
    assert all(call.kind for call in calls)
    assert len(simulation.started) <= 2 * BUDGET.cores


def test_a_known_long_function_gets_its_sandboxes_at_once() -> None:
    simulation = Simulation()
    simulation.call("a", run_s=10, cpu_s=0.01)
    calls = simulation.burst("a", 8, at=20, run_s=10)
    simulation.run(40)
    assert max(call.waited_s for call in calls) == pytest.approx(COLD_S)


def test_clients_that_compute_get_as_many_sandboxes_as_there_are_cores() -> None:
    simulation = Simulation()
    simulation.clients("a", 32, until=60, run_s=0.01, cpu_s=0.01)
    simulation.run(61)
    assert len(simulation.sandboxes("a")) == BUDGET.cores


def test_clients_that_wait_get_more() -> None:
    simulation = Simulation()
    simulation.clients("a", 32, until=60, run_s=0.1, cpu_s=0.001)
    simulation.run(61)
    late = [call for call in simulation.calls if call.asked_at > 30]
    assert len(simulation.sandboxes("a")) == 32
    assert max(call.waited_s for call in late) < 0.01


def test_more_functions_than_memory() -> None:
    simulation = Simulation(Budget(sandboxes=64, memory_mb=10 * 128, cores=2))
    for second in range(100):
        simulation.call(f"f{second}", at=second)
    back = simulation.call("f99", at=101)
    gone = simulation.call("f1", at=102)
    simulation.run(110)
    assert simulation.kinds() == {"COLD": 101, "WARM": 1}
    assert back.kind is StartKind.WARM
    # The one that was used longest ago went first.
    assert gone.kind is StartKind.COLD
    assert max(call.waited_s for call in simulation.calls) < COLD_S + 2 * CLOSE_S


def test_large_and_small_functions_share_the_memory() -> None:
    simulation = Simulation(Budget(sandboxes=64, memory_mb=1024, cores=2))
    for second in range(0, 100, 2):
        simulation.call("large", at=second, memory_mb=1024)
        simulation.burst("small", 4, at=second + 1, run_s=0.5)
    simulation.run(200)
    assert max(call.waited_s for call in simulation.calls) < 2.5
    assert not simulation.pool.fits(Demand(("huge", 1), "python", 1025))


def test_a_functions_flood_does_not_starve_anothers_call() -> None:
    simulation = Simulation(Budget(sandboxes=4, memory_mb=1 << 20, cores=2))
    simulation.burst("flood", 400, run_s=1)
    single = simulation.call("single", at=10)
    simulation.run(200)
    assert single.waited_s < 1 + CLOSE_S + COLD_S + 0.1
    simulation.run(300)
    assert len(simulation.kinds()) >= 1
    assert all(call.kind for call in simulation.calls)


def test_two_floods_share_evenly() -> None:
    simulation = Simulation(Budget(sandboxes=4, memory_mb=1 << 20, cores=2))
    simulation.burst("a", 200, run_s=1)
    simulation.burst("b", 200, at=10, run_s=1)
    simulation.run(60)
    served = Counter(call.key for call in simulation.calls if call.assigned_at > 20)
    assert served["a"] == pytest.approx(served["b"], rel=0.1)
    # And neither takes the other's sandboxes again and again.
    assert len(simulation.started) < 10


PREWARMED = Budget(
    sandboxes=8, memory_mb=8 * 128, cores=2, prewarmed={"python": 2}, prewarmed_memory_mb=128
)


def test_prewarmed_sandboxes_spare_a_new_function_the_start() -> None:
    simulation = Simulation(PREWARMED)
    calls = [simulation.call(f"f{number}", at=10 + number) for number in range(5)]
    simulation.run(60)
    assert simulation.kinds() == {"PREWARMED": 5}
    assert max(call.waited_s for call in calls) == 0
    assert sum(slot.key is None for slot in simulation.sandboxes()) == 2


def test_a_call_takes_the_prewarmed_one_that_is_starting() -> None:
    simulation = Simulation(PREWARMED)
    call = simulation.call("a", at=0.1)
    simulation.run(0.29)
    assert len(simulation.started) == 1
    simulation.run(0.31)
    assert call.kind is StartKind.COLD
    assert call.waited_s == pytest.approx(COLD_S - 0.1)


def test_nothing_is_prewarmed_while_calls_need_the_cores() -> None:
    simulation = Simulation(PREWARMED)
    simulation.run(10)
    simulation.burst("a", 3, at=10, run_s=30)
    simulation.run(11)
    started = len(simulation.started)
    simulation.run(39)
    assert len(simulation.started) == started
    assert sum(slot.key is None for slot in simulation.sandboxes()) < 2
    simulation.run(60)
    assert sum(slot.key is None for slot in simulation.sandboxes()) == 2


def test_prewarmed_sandboxes_make_room_for_functions() -> None:
    simulation = Simulation(PREWARMED)
    simulation.run(10)
    calls = [simulation.call(f"f{number}", at=10, run_s=30, memory_mb=256) for number in range(4)]
    simulation.run(39)
    assert all(call.kind for call in calls)
    assert [slot for slot in simulation.sandboxes() if slot.key is None] == []


def test_a_sandbox_is_let_go_after_its_uses() -> None:
    simulation = Simulation(Budget(sandboxes=8, memory_mb=1024, cores=2, max_uses=3))
    calls = [simulation.call("a", at=second) for second in range(6)]
    simulation.run(10)
    assert [call.kind.name for call in calls if call.kind] == ["COLD", "WARM", "WARM"] * 2


def test_what_is_not_reusable_is_closed() -> None:
    simulation = Simulation()
    simulation.call("a", run_s=100)
    simulation.run(1)
    (slot,) = simulation.sandboxes()
    assert not simulation.pool.released(slot, reusable=False)
    assert simulation.pool.decide() == []
    simulation.pool.closed(slot)
    assert simulation.pool.slots() == []


def test_a_start_that_fails_is_told_to_the_call_that_waited_longest() -> None:
    pool = Pool(BUDGET, lambda: 0.0)
    first, second = (pool.ask(Demand(("a", 1), "python", 128)) for _ in range(2))
    (start, other) = pool.decide()
    assert isinstance(start, Start)
    assert isinstance(other, Start)
    assert pool.failed(start.slot) is first
    pool.started(other.slot)
    (assign,) = pool.decide()
    assert isinstance(assign, Assign)
    assert assign.ticket is second


def test_a_call_that_gives_up_leaves_the_sandbox_to_the_next() -> None:
    pool = Pool(BUDGET, lambda: 0.0)
    ticket = pool.ask(Demand(("a", 1), "python", 128))
    (start,) = pool.decide()
    assert isinstance(start, Start)
    pool.withdraw(ticket)
    pool.started(start.slot)
    assert pool.decide() == []
    pool.ask(Demand(("a", 1), "python", 128))
    assert isinstance(pool.decide()[0], Assign)


def test_one_that_died_while_it_was_ready_is_given_to_nobody() -> None:
    simulation = Simulation()
    simulation.call("a")
    simulation.run(1)
    (slot,) = simulation.sandboxes()
    assert simulation.pool.lost(slot)
    assert not simulation.pool.lost(slot)
    simulation.pool.closed(slot)
    again = simulation.call("a", at=2)
    simulation.run(3)
    assert again.kind is StartKind.COLD


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_is_served_within_the_budget(seed: int) -> None:
    chance = random.Random(seed)
    budget = Budget(
        sandboxes=chance.randint(1, 12),
        memory_mb=chance.randint(4, 40) * 128,
        cores=chance.randint(1, 8),
        idle_s=chance.choice([1, 60]),
        max_uses=chance.choice([1, 5, 1000]),
        prewarmed={"python": chance.randint(0, 3)},
    )
    simulation = Simulation(budget)
    sizes = [min(chance.choice([64, 128, 512]), budget.memory_mb) for _ in range(20)]
    for _ in range(300):
        number = chance.randrange(20)
        simulation.burst(
            f"f{number}",
            chance.choice([1, 1, 1, 5]),
            at=chance.uniform(0, 300),
            run_s=chance.choice([0.001, 0.01, 0.1, 1]),
            memory_mb=sizes[number],
        )
    # Within the budget at every moment: the simulation itself checks.
    simulation.run(3600)
    assert all(call.kind for call in simulation.calls)
    leased = [slot for slot in simulation.pool.slots() if slot.state is State.LEASED]
    assert leased == []


def kept(simulation: Simulation, at: float = 0, version: int = 1, **wanted: int) -> None:
    """Have so many sandboxes of these functions kept ready from that moment on."""
    demands = [(Demand((key, version), "python", 128), n) for key, n in wanted.items()]
    simulation.at(at, lambda: simulation.pool.keep(demands) and None)


def test_what_is_kept_is_up_before_anybody_calls_and_does_not_age() -> None:
    simulation = Simulation()
    kept(simulation, a=3)
    calls = [simulation.call("a", at) for at in (1.5, 50_000)]
    simulation.run(until=100_000)
    assert simulation.kinds() == Counter(PREWARMED=1, WARM=1)
    assert [call.waited_s for call in calls] == [0, 0]
    assert len(simulation.started) == 3
    assert [slot.state for slot in simulation.sandboxes("a")] == [State.READY] * 3
    assert simulation.pool.look_again_s() is None


def test_what_is_kept_is_started_one_at_a_time() -> None:
    simulation = Simulation()
    kept(simulation, a=2, b=2)
    simulation.run(until=0.8)
    assert [start.slot.key for start in simulation.started] == [("a", 1), ("a", 1), ("b", 1)]


def test_more_than_is_kept_ages_as_ever() -> None:
    simulation = Simulation()
    kept(simulation, a=1)
    simulation.burst("a", 40, at=1, run_s=0.5)
    simulation.run(until=100)
    assert len(simulation.sandboxes("a")) > 1
    simulation.run(until=1000)
    assert len(simulation.sandboxes("a")) == 1


@pytest.mark.parametrize("how", ["lost", "spoilt", "used up"])
def test_what_is_kept_is_replaced(how: str) -> None:
    simulation = Simulation(replace(BUDGET, max_uses=1 if how == "used up" else 100))
    kept(simulation, a=1)
    simulation.run(until=1)
    (first,) = simulation.sandboxes("a")
    if how == "lost":
        assert simulation.pool.lost(first)
        simulation.pool.closed(first)
    elif how == "spoilt":
        simulation.pool.ask(Demand(("a", 1), "python", 128))
        (assigned,) = simulation.pool.decide()
        assert isinstance(assigned, Assign)
        assert not simulation.pool.released(first, reusable=False)
        simulation.pool.closed(first)
    else:
        simulation.call("a", at=2)
    simulation.run(until=10)
    (second,) = simulation.sandboxes("a")
    assert second is not first
    assert second.state is State.READY


def test_what_could_not_be_started_to_be_kept_is_tried_again_after_a_while() -> None:
    simulation = Simulation()
    simulation.pool.keep([(Demand(("a", 1), "python", 128), 1)])
    (start,) = simulation.pool.decide()
    assert isinstance(start, Start)
    assert simulation.pool.failed(start.slot) is None
    assert simulation.pool.decide() == []
    simulation.now = simulation.pool.look_again_s() or 0
    assert simulation.now > 1
    (again,) = simulation.pool.decide()
    assert isinstance(again, Start)


def test_what_is_kept_gives_way_to_nobody_and_leaves_room_for_all() -> None:
    simulation = Simulation(Budget(sandboxes=8, memory_mb=8 * 128, cores=2))
    kept(simulation, a=6, b=6)
    for n in range(20):
        simulation.burst(f"other-{n}", 10, at=10 + n, run_s=0.3)
    simulation.run(until=60)
    assert all(call.kind for call in simulation.calls)
    # Half of the budget: the first has its own, as far as it goes.
    assert len(simulation.sandboxes("a")) == 4
    assert {slot.uses for slot in simulation.sandboxes("a")} == {0}
    assert len({start.slot for start in simulation.started if start.slot.key == ("a", 1)}) == 4


def test_others_idle_sandboxes_make_room_for_what_is_to_be_kept() -> None:
    simulation = Simulation(Budget(sandboxes=4, memory_mb=4 * 128, cores=2))
    for n in range(4):
        simulation.call(f"other-{n}", at=n)
    kept(simulation, at=10, a=2)
    simulation.run(until=20)
    assert len(simulation.sandboxes("a")) == 2
    assert len(simulation.sandboxes()) == 4


def test_a_new_version_takes_over_what_is_kept() -> None:
    simulation = Simulation()
    kept(simulation, a=2)
    simulation.call("a", at=5)
    kept(simulation, at=10, version=2, a=2)
    simulation.run(until=20)
    states = Counter(slot.key for slot in simulation.sandboxes())
    # The one that was used may be needed by who still calls the old version.
    assert states == {("a", 1): 1, ("a", 2): 2}
    simulation.run(until=1000)
    assert {slot.key for slot in simulation.sandboxes()} == {("a", 2)}


def test_nothing_is_kept_any_more_once_it_is_not_wanted() -> None:
    simulation = Simulation()
    kept(simulation, a=2)
    kept(simulation, at=10)
    simulation.run(until=11)
    assert simulation.sandboxes() == []


def test_a_pool_says_how_many_it_keeps() -> None:
    pool = Pool(Budget(sandboxes=64, memory_mb=1024, cores=2), lambda: 0.0)
    large, small = Demand(("l", 1), "python", 200), Demand(("s", 1), "python", 100)
    huge = Demand(("h", 1), "python", 600)
    assert pool.keep([(large, 2), (huge, 1), (small, 5)]) == {("l", 1): 2, ("s", 1): 1}


def test_bursts_and_wishes_at_random_never_break_the_budget_nor_what_is_kept() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        simulation = Simulation(Budget(sandboxes=10, memory_mb=10 * 128, cores=2, idle_s=20))
        wanted: dict[str, int] = {}
        for at in range(0, 200, 10):
            wanted = {key: chance.randint(0, 3) for key in "abc"}
            kept(simulation, at=at, **wanted)
            for _ in range(chance.randint(0, 30)):
                key, run_s = chance.choice("abcdefgh"), chance.choice([0.01, 0.2, 1.0])
                simulation.call(key, at + 10 * chance.random(), run_s)
        simulation.run(until=300)
        assert all(call.kind for call in simulation.calls)
        left = 5
        for key, number in wanted.items():
            fit = min(number, left)
            left -= fit
            assert len(simulation.sandboxes(key)) == fit, (seed, wanted)
