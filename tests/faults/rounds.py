"""One round of one fault: load, damage, recovery, invariants."""

import random
import time
from contextlib import closing
from dataclasses import dataclass

from services.background import running
from tests.faults.invariants import Kept, check, settled
from tests.faults.ledger import Ledger
from tests.faults.load import Load
from tests.faults.matrix import Fault, Scene
from tests.faults.stack import Stack


@dataclass(frozen=True)
class Pace:
    """How much is asked of a round."""

    clients: int = 4
    before: int = 4
    """Calls that are accepted before the fault."""
    after: int = 4
    """And after it."""
    long_s: float = 3.0
    """How long something is away for long."""
    patience: float = 10.0
    """A bound is waited for so many times as long before it is called broken."""


SHORT = Pace()
LONG = Pace(clients=8, before=20, after=20, long_s=60.0, patience=3.0)


@dataclass(frozen=True)
class Round:
    """How one round went."""

    kept: Kept
    recovery_s: float
    """From the end of the fault until all that was accepted had ended."""
    failures: int
    """Calls that failed even when they were made again."""


async def play(stack: Stack, fault: Fault, seed: int, pace: Pace) -> Round:
    """Play one round. Raises AssertionError or TimeoutError where an invariant is broken."""
    rng = random.Random(f"{fault.name} {seed}")
    prefix = f"{FAULT_PREFIX}{rng.randrange(1 << 40):x}"
    ledger = Ledger(stack.directory / f"{prefix}.ledger")
    with closing(ledger):
        load = Load(stack, ledger, rng, clients=pace.clients, large_bytes=fault.large_bytes)
        async with load.running(), running(stack.supervise()):
            await load.reach(pace.before)
            scene = Scene(stack, load, rng, pace.long_s)
            await fault.inject(scene)
            over = time.monotonic()
            await load.reach(pace.after, timeout_s=fault.bound_s * pace.patience)
            await load.end()
            await settled(stack, ledger, load, fault.bound_s * pace.patience)
        recovery_s = time.monotonic() - over
        kept = await check(stack, ledger, load, prefix)
        assert not fault.large_bytes or load.large
        for invocation_id in scene.once:
            assert load.starts.read_text().count(invocation_id) == 1, invocation_id
        if not fault.reruns:
            assert kept.reruns == 0, f"started again: {kept}"
        if fault.completes:
            assert not kept.unexpected, f"not completed: {kept.unexpected}"
        if not fault.hurts_clients:
            assert not ledger.failures, ledger.failures
        return Round(kept, recovery_s, len(ledger.failures))


FAULT_PREFIX = "f"
