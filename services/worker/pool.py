"""Which call gets which sandbox, and when one is started or let go: policy alone.

The pool does nothing itself and never waits. It is told what happened, and `decide`
says what is to be done. Time comes from the clock it is given, so what it would do
in an hour of bursts can be tried out in a millisecond.

A call gets a sandbox of its function's version that is ready, the one used last
first; or a prewarmed one; or it waits. Another sandbox is started only if those
there are would keep the waiting calls longer than a start takes: a burst of short
calls is done sooner by few sandboxes than by many that are still starting.

What is to be kept ready is started before anybody calls and is there as long as it
is wanted: it does not age, and gives way to nobody. So it may take a part of the
budget only, and the rest is everybody's.
"""

import enum
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Key = tuple[str, int]
"""A function's id and version: sandboxes are never shared between versions."""

# How quickly estimates follow what is measured.
WEIGHT = 0.2
# What a cold start is taken to cost before one was measured, and a prewarmed one always.
COLD_S = 0.4
ASSIGN_S = 0.005
# While calls wait, what is known grows by waiting: look again so soon.
LOOK_AGAIN_S = 0.05
# How quickly it is forgotten, while nobody waits, for how long somebody had to.
LEAK = 0.1
# After one could not be started ahead of calls, none is for so long.
PAUSE_S = 30.0
MAX_FUNCTIONS = 4096
"""That it remembers."""


class State(enum.Enum):
    """Of a sandbox in the pool's books."""

    STARTING = enum.auto()
    READY = enum.auto()
    LEASED = enum.auto()
    CLOSING = enum.auto()


_NEXT = {
    State.STARTING: {State.READY, State.CLOSING},
    State.READY: {State.LEASED, State.CLOSING},
    State.LEASED: {State.READY, State.CLOSING},
    State.CLOSING: set(),
}


class StartKind(enum.Enum):
    """What a call found."""

    COLD = enum.auto()
    """It waited for a sandbox to start."""
    PREWARMED = enum.auto()
    """One was up before it came, unused."""
    WARM = enum.auto()
    """One had run its function before."""


@dataclass(frozen=True)
class Budget:
    """How much the pool may hold."""

    sandboxes: int
    memory_mb: int
    """Of the limits of all sandboxes together, used or not."""
    cores: int
    """More sandboxes than these make no function faster that computes."""
    idle_s: float = 300.0
    """One that was not used for so long is let go."""
    max_uses: int = 10_000
    prewarmed: Mapping[str, int] = field(default_factory=dict)
    """By runtime: how many wait for a function."""
    prewarmed_memory_mb: int = 128
    kept_share: float = 0.5
    """The part of sandboxes and of memory that may be kept ready for functions that ask for it."""


@dataclass(frozen=True)
class Demand:
    """What a call needs."""

    key: Key
    runtime: str
    memory_mb: int
    prewarmed: bool = True
    """One that was started for any function of the runtime will do."""


@dataclass(eq=False)
class Ticket:
    """A call that waits for a sandbox."""

    demand: Demand
    asked_at: float


@dataclass(eq=False)
class Slot:
    """One sandbox in the books."""

    runtime: str
    memory_mb: int
    key: Key | None
    since: float
    """In this state."""
    state: State = State.STARTING
    uses: int = 0

    def enter(self, state: State, now: float) -> None:
        """Go on to `state`."""
        if state not in _NEXT[self.state]:
            raise ValueError(f"a sandbox that is {self.state.name} cannot be {state.name}")
        self.state = state
        self.since = now


@dataclass(frozen=True)
class Start:
    """Start a sandbox, for the slot's key or, without one, for any."""

    slot: Slot
    demand: Demand | None


@dataclass(frozen=True)
class Assign:
    """The call has its sandbox."""

    ticket: Ticket
    slot: Slot
    kind: StartKind


@dataclass(frozen=True)
class Retire:
    """Close a sandbox, and say so when it is gone."""

    slot: Slot


Action = Start | Assign | Retire


@dataclass
class _Backlog:
    """For how long calls of a function have had to wait, of late."""

    since: float
    waiting: bool = False
    level_s: float = 0.0

    def now_s(self, now: float) -> float:
        """It grows while one waits, and is forgotten slowly while none does."""
        elapsed_s = now - self.since
        return max(self.level_s + (elapsed_s if self.waiting else -LEAK * elapsed_s), 0.0)

    def turn(self, waiting: bool, now: float) -> None:
        """Somebody waits, or nobody does any more."""
        self.level_s, self.since, self.waiting = self.now_s(now), now, waiting

    def forget(self, now: float) -> None:
        """Something was done about it."""
        self.level_s, self.since = 0.0, now


@dataclass
class _Function:
    """What is known of a function's calls."""

    backlog: _Backlog
    run_s: float = 0.0
    least_s: float = math.inf
    """The shortest of late: under load a call takes longer, the least tells what it needs."""
    cpu_s: float | None = None

    @property
    def known(self) -> bool:
        """Whether one has ended."""
        return self.least_s < math.inf

    def learn(self, run_s: float, cpu_s: float | None) -> None:
        """One call has taken so long."""
        self.run_s = _follow(self.run_s, run_s) if self.known else run_s
        self.least_s = min(run_s, self.least_s * (1 + WEIGHT / 10))
        if cpu_s is not None:
            self.cpu_s = cpu_s if self.cpu_s is None else _follow(self.cpu_s, cpu_s)

    def useful(self, cores: int) -> float:
        """How many sandboxes at once make its calls faster."""
        if not self.cpu_s or not self.known:
            return math.inf
        share = min(self.cpu_s / max(self.least_s, 1e-6), 1.0)
        return math.ceil(0.95 * cores / share)


class Pool:
    """The sandboxes of one worker, and the calls that wait for one."""

    def __init__(self, budget: Budget, clock: Callable[[], float]) -> None:
        """Keep within `budget`; `clock` is monotonic, in seconds."""
        self._budget = budget
        self._clock = clock
        self._slots: set[Slot] = set()
        # The one that was used longest ago comes first.
        self._ready: OrderedDict[Slot, None] = OrderedDict()
        self._waiting: dict[Key, OrderedDict[Ticket, None]] = {}
        self._functions: OrderedDict[Key, _Function] = OrderedDict()
        self._cold_s: dict[str, float] = {}
        self._prewarm_from: dict[str, float] = {}
        self._kept: dict[Key, tuple[Demand, int]] = {}
        self._keep_from: dict[Key, float] = {}
        self._unwanted: set[Slot] = set()
        self._room_taken = False

    @property
    def budget(self) -> Budget:
        """What it keeps within."""
        return self._budget

    # What happened.

    def fits(self, demand: Demand) -> bool:
        """Whether it could ever be met."""
        return demand.memory_mb <= self._budget.memory_mb

    def keep(self, wanted: Iterable[tuple[Demand, int]]) -> Mapping[Key, int]:
        """Hold so many sandboxes, in use or not, from now on; how many of each it will.

        They are fewer than wanted where the part of the budget that is for them ends.
        Those of other functions that were started ahead and never used go at once.
        """
        sandboxes = math.floor(self._budget.sandboxes * self._budget.kept_share)
        memory_mb = math.floor(self._budget.memory_mb * self._budget.kept_share)
        before, self._kept = self._kept, {}
        for demand, number in wanted:
            fit = min(number, sandboxes, memory_mb // demand.memory_mb)
            if fit > 0:
                self._kept[demand.key] = (demand, fit)
                sandboxes -= fit
                memory_mb -= fit * demand.memory_mb
        for key in before:
            unused = [slot for slot in self._slots if slot.key == key and slot.uses == 0]
            self._unwanted.update(unused[: max(self._spare(key), 0)])
        return {key: number for key, (_, number) in self._kept.items()}

    def ask(self, demand: Demand) -> Ticket:
        """A call needs a sandbox: `decide` will assign it one."""
        ticket = Ticket(demand, self._clock())
        if demand.key not in self._waiting:
            self._waiting[demand.key] = OrderedDict()
            self._function(demand.key).backlog.turn(True, ticket.asked_at)
        self._waiting[demand.key][ticket] = None
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """The call wants no sandbox any more."""
        self._served(ticket)

    def started(self, slot: Slot) -> None:
        """It is up."""
        took_s = self._clock() - slot.since
        known = self._cold_s.get(slot.runtime)
        self._cold_s[slot.runtime] = took_s if known is None else _follow(known, took_s)
        if slot.key is not None:
            self._function(slot.key).backlog.forget(self._clock())
        self._enter(slot, State.READY)

    def failed(self, slot: Slot) -> Ticket | None:
        """It could not be started; the call that is to hear of it, if one waits."""
        self._slots.discard(slot)
        self._unwanted.discard(slot)
        if slot.key is None:
            self._prewarm_from[slot.runtime] = self._clock() + PAUSE_S
            return None
        if slot.key in self._kept:
            self._keep_from[slot.key] = self._clock() + PAUSE_S
        tickets = self._waiting.get(slot.key)
        if not tickets:
            return None
        ticket = next(iter(tickets))
        self._served(ticket)
        return ticket

    def released(self, slot: Slot, *, reusable: bool, cpu_s: float | None = None) -> bool:
        """A call is done with it; whether it is kept. If not, close it and say `closed`."""
        assert slot.key is not None
        if reusable:
            self._function(slot.key).learn(self._clock() - slot.since, cpu_s)
        kept = reusable and slot.uses < self._budget.max_uses
        self._enter(slot, State.READY if kept else State.CLOSING)
        return kept

    def unused(self, slot: Slot) -> None:
        """The call that it was assigned to is gone, and has not touched it."""
        slot.uses -= 1
        self._enter(slot, State.READY)

    def lost(self, slot: Slot) -> bool:
        """It died while it was ready; whether it is to be closed, by whoever noticed."""
        if slot.state is not State.READY:
            return False
        self._enter(slot, State.CLOSING)
        return True

    def closed(self, slot: Slot) -> None:
        """Nothing is left of it."""
        self._slots.discard(slot)

    # What is to be done.

    def decide(self) -> list[Action]:
        """What is to be done now, in order."""
        actions = list(self._expired())
        stuck: set[Key] = set()
        # Room that one waits for is not taken by another whose turn is later.
        self._room_taken = False
        while (key := self._next_key(stuck)) is not None:
            action = self._serve(key)
            if action is None:
                stuck.add(key)
            else:
                actions.append(action)
        actions += self._replenish()
        actions += self._top_up()
        return actions

    def look_again_s(self) -> float | None:
        """After how long time alone may have changed what is to be done; None: never."""
        if self._waiting:
            return LOOK_AGAIN_S
        now = self._clock()
        moments = [slot.since + self._budget.idle_s for slot in itertools.islice(self._aging(), 1)]
        paused = (self._keep_from.get(key, now) for key in self._kept if self._spare(key) < 0)
        moments += [moment for moment in paused if moment > now]
        return max(min(moments) - now, LOOK_AGAIN_S) if moments else None

    def slots(self) -> list[Slot]:
        """All sandboxes in the books."""
        return list(self._slots)

    # How it is decided.

    def _next_key(self, stuck: set[Key]) -> Key | None:
        """Whose turn it is: of whoever has least, and has waited longest."""
        keys = [key for key in self._waiting if key not in stuck]
        if len(keys) < 2:
            return keys[0] if keys else None
        return min(keys, key=lambda key: (self._in_use(key), self._oldest(key).asked_at))

    def _serve(self, key: Key) -> Action | None:
        ticket = self._oldest(key)
        demand = ticket.demand
        for slot in reversed(self._ready):
            if slot.key == key:
                return self._assign(ticket, slot)
        if demand.prewarmed and self._more_pays(key, ASSIGN_S):
            for slot in self._ready:
                if (
                    slot.key is None
                    and slot.runtime == demand.runtime
                    and self._grows(slot, demand)
                ):
                    return self._assign(ticket, slot)
            for slot in self._slots:
                if (
                    (slot.state, slot.key, slot.runtime) == (State.STARTING, None, demand.runtime)
                ) and self._grows(slot, demand):
                    # It is on its way already.
                    slot.key, slot.memory_mb = key, demand.memory_mb
                    return self._serve(key)
        if self._may_start(key) and self._more_pays(key, self._cold(demand.runtime)):
            if not self._room_taken and self._room(demand.memory_mb):
                return self._start(demand)
            return self._make_room(demand)
        return None

    def _may_start(self, key: Key) -> bool:
        """Whether one may be started while others do.

        A machine starts few at once. Of a function that may compute all the time no more
        are: when they are up it is known whether it does, and others would only be in
        each other's way.
        """
        if self._function(key).cpu_s is not None:
            return True
        starting = sum(slot.state is State.STARTING for slot in self._slots)
        return starting < self._budget.cores

    def _more_pays(self, key: Key, cost_s: float) -> bool:
        """Whether one sandbox more would serve the waiting calls sooner, at this cost."""
        waiting = len(self._waiting[key])
        leased = [slot for slot in self._slots if slot.key == key and slot.state is State.LEASED]
        starting = self._count(key, State.STARTING)
        have = len(leased) + starting
        if have == 0:
            return True
        if starting >= waiting:
            return False
        function = self._function(key)
        if have >= function.useful(self._budget.cores):
            return False
        now = self._clock()
        if function.known:
            run_s = function.run_s
        elif have < self._budget.cores:
            return True
        else:
            run_s = 0.0
        # What has run for so long is likely to run for as long again.
        run_s = max(run_s, 2 * sum(now - slot.since for slot in leased) / max(len(leased), 1))
        if waiting * run_s / have > cost_s:
            return True
        # Calls that come as fast as they are served wait little each, and for ever.
        return starting == 0 and function.backlog.now_s(now) > cost_s

    def _start(self, demand: Demand) -> Start:
        slot = Slot(demand.runtime, demand.memory_mb, demand.key, self._clock())
        self._slots.add(slot)
        self._function(demand.key).backlog.forget(self._clock())
        return Start(slot, demand)

    def _assign(self, ticket: Ticket, slot: Slot) -> Assign:
        self._served(ticket)
        kind = StartKind.WARM
        if slot.uses == 0:
            kind = StartKind.PREWARMED if slot.since <= ticket.asked_at else StartKind.COLD
        slot.key = ticket.demand.key
        slot.memory_mb = ticket.demand.memory_mb
        slot.uses += 1
        self._enter(slot, State.LEASED)
        return Assign(ticket, slot, kind)

    def _room(self, memory_mb: int, closing: int = 0, closing_mb: int = 0) -> bool:
        used_mb = sum(slot.memory_mb for slot in self._slots) - closing_mb
        return (
            len(self._slots) - closing < self._budget.sandboxes
            and used_mb + memory_mb <= self._budget.memory_mb
        )

    def _grows(self, slot: Slot, demand: Demand) -> bool:
        """Whether a prewarmed sandbox may be given the demand's memory."""
        return self._room(demand.memory_mb, 1, slot.memory_mb)

    def _make_room(self, demand: Demand) -> Retire | None:
        """Let go of one that is ready and not needed as much; none if room is on its way."""
        if self._room_taken:
            return None
        closing = [slot for slot in self._slots if slot.state is State.CLOSING]
        if self._room(demand.memory_mb, len(closing), sum(slot.memory_mb for slot in closing)):
            self._room_taken = True
            return None
        share = self._in_use(demand.key)
        spare = [slot for slot in self._aging() if slot.key and self._has(slot.key) > share]
        spare += [slot for slot in self._ready if slot.key is None]
        if spare:
            return self._retire(spare[0])
        self._room_taken = True
        return None

    def _has(self, key: Key) -> float:
        """How much a function could give: what nobody waits for, all of it."""
        return self._in_use(key) + 1 if key in self._waiting else math.inf

    def _expired(self) -> Iterator[Action]:
        until = self._clock() - self._budget.idle_s
        expired = dict.fromkeys(
            itertools.takewhile(lambda slot: slot.since <= until, self._aging())
        )
        for slot in [slot for slot in self._unwanted if slot.state is not State.STARTING]:
            self._unwanted.discard(slot)
            if slot.state is State.READY and slot.uses == 0 and slot.key not in self._waiting:
                expired[slot] = None
        yield from map(self._retire, expired)

    def _aging(self) -> Iterator[Slot]:
        """What is ready, some function's and not kept so; what was used longest ago first."""
        spare = {key: self._spare(key) for key in self._kept}
        for slot in self._ready:
            if slot.key is None:
                continue
            if slot.key in spare:
                spare[slot.key] -= 1
                if spare[slot.key] < 0:
                    continue
            yield slot

    def _spare(self, key: Key) -> int:
        """How many a function has beyond what is kept for it; less than 0: so many are missing."""
        _, kept = self._kept.get(key, (None, 0))
        return self._in_use(key) + self._count(key, State.READY) - kept

    def _replenish(self) -> Iterator[Action]:
        """Start what is missing of what is kept: one at a time, a machine starts few at once."""
        if any(self._count(key, State.STARTING) for key in self._kept):
            return
        for key, (demand, _) in self._kept.items():
            if self._spare(key) >= 0 or self._clock() < self._keep_from.get(key, 0.0):
                continue
            if not self._room_taken and self._room(demand.memory_mb):
                yield self._start(demand)
            elif (action := self._make_room(demand)) is not None:
                yield action
            return

    def _top_up(self) -> Iterator[Action]:
        """Prewarm one at a time, while nobody waits and a core is free."""
        states = [slot.state for slot in self._slots]
        if self._waiting or State.STARTING in states:
            return
        if states.count(State.LEASED) >= self._budget.cores:
            return
        for runtime, wanted in self._budget.prewarmed.items():
            if self._clock() < self._prewarm_from.get(runtime, 0.0):
                continue
            ready = sum(slot.key is None and slot.runtime == runtime for slot in self._ready)
            if ready < wanted and self._room(self._budget.prewarmed_memory_mb):
                memory_mb = self._budget.prewarmed_memory_mb
                slot = Slot(runtime, memory_mb, None, self._clock())
                self._slots.add(slot)
                yield Start(slot, None)
                return

    def _retire(self, slot: Slot) -> Retire:
        self._enter(slot, State.CLOSING)
        return Retire(slot)

    def _enter(self, slot: Slot, state: State) -> None:
        slot.enter(state, self._clock())
        if state is State.READY:
            self._ready[slot] = None
        else:
            self._ready.pop(slot, None)

    def _served(self, ticket: Ticket) -> None:
        key = ticket.demand.key
        tickets = self._waiting.get(key)
        if tickets is None or ticket not in tickets:
            return
        del tickets[ticket]
        if not tickets:
            del self._waiting[key]
            self._function(key).backlog.turn(False, self._clock())

    def _oldest(self, key: Key) -> Ticket:
        return next(iter(self._waiting[key]))

    def _in_use(self, key: Key) -> int:
        return self._count(key, State.LEASED) + self._count(key, State.STARTING)

    def _count(self, key: Key, state: State) -> int:
        return sum(slot.key == key and slot.state is state for slot in self._slots)

    def _cold(self, runtime: str) -> float:
        return self._cold_s.get(runtime, COLD_S)

    def _function(self, key: Key) -> _Function:
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = _Function(_Backlog(self._clock()))
            if len(self._functions) > MAX_FUNCTIONS:
                self._functions.popitem(last=False)
        self._functions.move_to_end(key)
        return function


def _follow(known: float, seen: float) -> float:
    return known + WEIGHT * (seen - known)
