"""A storm: load from many clients while strikes fall on every part, several at once.

`python -m tests.faults.chaos --minutes 20 --seed N`. The strikes come in waves, out of
a shuffled deck, so that each kind falls as often as the others; a wave is over when
all that was accepted before its last strike ended has ended. After the last wave the
invariants are checked as after any fault. `--write` puts the figures into
docs/reliability.md.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

import grpc
import grpc.aio
import psycopg

from faas.v1.invocation_pb2 import Invocation
from services.background import running
from services.worker.__main__ import EXIT_BOOT_LOST
from tests.faults.invariants import Kept, check, settled
from tests.faults.ledger import Ledger
from tests.faults.load import Load
from tests.faults.page import machine, put
from tests.faults.stack import QUICK, REPLICAS, Stack
from tests.faults.strikes import (
    EXPECTED,
    KILLER,
    KILLER_NAME,
    PARTS,
    STORES,
    STRIKES,
    Blow,
    Strike,
)
from tests.mesh import eventually

# Strikes that fall at once, at the most.
AT_ONCE = 3
# A wave that is not over so long after its last strike broke the bound.
BOUND_S = 90.0
# So much longer it is waited for, before it is given up.
PATIENCE = 4
REAL = {"worker": {"concurrency": 8}}


@dataclass
class Weather:
    """How hard it blows."""

    seconds: float
    clients: int = 16
    away_s: tuple[float, float] = (0.5, 9.0)
    """For how long something is away."""


@dataclass
class Storm:
    """What became of it."""

    seed: int
    weather: Weather
    strikes: "Counter[str]" = field(default_factory=Counter)
    recoveries_s: list[float] = field(default_factory=list)
    statuses: "Counter[str]" = field(default_factory=Counter)
    errors: "Counter[str]" = field(default_factory=Counter)
    calls: int = 0
    failures: int = 0
    """Calls that failed even when they were made again."""
    exits: list[str] = field(default_factory=list)
    """Parts that ended though nobody had struck them."""
    kept: Kept = field(default_factory=lambda: Kept(0, 0, []))


class Keeper:
    """Starts parts again that have ended, as a deployment does, unless they are held."""

    def __init__(self, stack: Stack, storm: Storm) -> None:
        self._stack = stack
        self._storm = storm
        self._locks = {part: asyncio.Lock() for part in PARTS}
        for wire in ("wire service", "wire redis"):
            self._locks[wire] = asyncio.Lock()

    def free(self, strike: Strike, taken: set[str]) -> list[str]:
        """Targets of a strike beside those whose parts are taken."""
        if taken & set(strike.holds):
            return []
        return [target for target in strike.targets if target not in taken]

    async def fall(self, strike: Strike, blow: Blow) -> None:
        """Let it fall, on parts that are there."""
        async with AsyncExitStack() as held:
            parts = sorted({blow.part, *strike.holds})
            for part in parts:
                await held.enter_async_context(self._locks[part])
            for part in parts:
                await self._mend(part)
            self._storm.strikes[strike.name] += 1
            try:
                await strike.fall(blow)
            except (*EXPECTED, grpc.aio.AioRpcError) as error:
                print(f"  {strike.name} missed: {error!r:.100}", flush=True)

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            for part in PARTS:
                if not self._locks[part].locked():
                    async with self._locks[part]:
                        await self._mend(part)
            await asyncio.sleep(0.2)

    async def calm(self) -> None:
        """Wait until every part is there and answers."""
        for part in PARTS:
            async with self._locks[part]:
                await self._mend(part)
        for part in set(PARTS) - set(STORES):
            await asyncio.wait_for(self._stack.channel(part).channel_ready(), 120)

    async def _mend(self, part: str) -> None:
        if part not in PARTS:
            return
        process = self._stack.processes.get(part)
        if process is not None and process.poll() is None:
            return
        if process is not None and process.returncode not in (0, -9, EXIT_BOOT_LOST):
            self._storm.exits.append(f"{part}: {process.returncode}")
        if part in STORES:
            await self._stack.start_store(part)
        else:
            self._stack.begin(part)


async def rage(stack: Stack, seed: int, weather: Weather) -> Storm:
    """Let the storm rage on a stack that is up. Raises where an invariant is broken."""
    storm = Storm(seed, weather)
    rng = random.Random(f"storm {seed}")
    prefix = f"storm{rng.randrange(1 << 40):x}"
    ledger = Ledger(stack.directory / f"{prefix}.ledger")
    load = Load(
        stack,
        ledger,
        random.Random(f"load {seed}"),
        clients=weather.clients,
        replicas=REPLICAS[:2],
        cancels=0.03,
        follows=True,
    )
    await stack.start("invocations-2")
    await stack.create(KILLER_NAME, KILLER)
    keeper, extra = Keeper(stack, storm), list[str]()
    async with load.running(), running(keeper.keep()):
        await load.reach(weather.clients)
        until, deck = time.monotonic() + weather.seconds, list[Strike]()
        while time.monotonic() < until:
            await _wave(stack, keeper, storm, rng, deck, extra)
        await load.end()
        await keeper.calm()
        await settled(stack, ledger, load, BOUND_S * PATIENCE)
        for invocation_id in extra:
            assert (await stack.get(invocation_id, wait_s=60)).status != Invocation.COMPLETED
    storm.kept = await check(stack, ledger, load, prefix)
    storm.calls, storm.errors, storm.failures = len(ledger.asked), load.errors, len(ledger.failures)
    rows = stack.rows(
        "SELECT status, error ->> 'code' AS code, count(*) AS n FROM invocations"
        " WHERE starts_with(request_id, %s) GROUP BY 1, 2",
        prefix,
    )
    for row in rows:
        storm.statuses[" ".join(filter(None, (str(row["status"]), row["code"])))] += row["n"]
    ledger.close()
    # What befalls the platform is never told as a failure of the function.
    told = {"completed", "cancelled", "dead_lettered WORKER_LOST"}
    assert storm.statuses.keys() <= told, storm.kept.unexpected
    assert storm.exits == [], f"ended though nobody had struck them: {storm.exits}"
    return storm


async def _wave(
    stack: Stack,
    keeper: Keeper,
    storm: Storm,
    rng: random.Random,
    deck: list[Strike],
    extra: list[str],
) -> None:
    """Some strikes, beside and after each other, until what they hurt is well again."""
    taken: set[str] = set()
    chosen: list[tuple[Strike, Blow]] = []
    for _ in range(rng.randint(1, AT_ONCE)):
        if not deck:
            deck += rng.sample(STRIKES, len(STRIKES))
        if targets := keeper.free(deck[-1], taken):
            strike, part = deck.pop(), rng.choice(targets)
            taken |= {part, *strike.holds}
            away_s = rng.uniform(*storm.weather.away_s)
            # Of its own: what it draws must not change what falls after it.
            own = random.Random(rng.random())
            chosen.append((strike, Blow(stack, own, part, away_s, extra)))
    began = time.monotonic()
    print(f"{', '.join(f'{strike.name} ({blow.part})' for strike, blow in chosen)}", flush=True)
    async with asyncio.TaskGroup() as group:
        for strike, blow in chosen:
            group.create_task(_later(rng.uniform(0, 2), keeper, strike, blow))
    over = time.monotonic()
    await keeper.calm()
    recovered = await _recovered(stack)
    storm.recoveries_s.append(recovered)
    print(f"  {over - began:.1f} s, well again after {recovered:.1f} s", flush=True)


async def _later(delay_s: float, keeper: Keeper, strike: Strike, blow: Blow) -> None:
    await asyncio.sleep(delay_s)
    await keeper.fall(strike, blow)


async def _recovered(stack: Stack) -> float:
    """Wait until all that is accepted by now has ended; how long that took."""
    began = time.monotonic()
    async with await psycopg.AsyncConnection.connect(
        stack.database_url, autocommit=True
    ) as connection:
        cursor = await connection.execute("SELECT clock_timestamp()")
        (now,) = await cursor.fetchone() or (None,)

        async def all_ended() -> bool:
            cursor = await connection.execute(
                "SELECT 1 FROM invocations WHERE status IN ('pending', 'running')"
                " AND created_at < %s LIMIT 1",
                [now],
            )
            return await cursor.fetchone() is None

        await eventually("all that was accepted has ended", all_ended, BOUND_S * PATIENCE)
    return time.monotonic() - began


def describe(storm: Storm, real_leases: bool) -> str:
    """The figures, as the page has them."""
    worst = max(storm.recoveries_s)
    statuses = ", ".join(f"{count} {name}" for name, count in storm.statuses.most_common())
    errors = ", ".join(f"{count} {name}" for name, count in storm.errors.most_common()) or "none"
    facts = {
        "invocations": f"{storm.kept.invocations}, from {storm.weather.clients} clients",
        "ended": statuses,
        "invariants L T A E C": "hold",
        "recovery after a wave, worst (s)": f"{worst:.1f} (≤ {BOUND_S:g}),"
        f" of {len(storm.recoveries_s)} waves",
        "re-runs": str(storm.kept.reruns),
        "tries of calls that failed, as clients saw them": errors,
        "calls that failed even when made again": f"{storm.failures} times",
        "parts that ended though nobody struck them": "none",
    }
    table = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())]
    strikes = ["| strike | times |", "| --- | --- |"]
    strikes += [f"| {kind.name} | {storm.strikes[kind.name]} |" for kind in _kinds()]
    return (
        f"{datetime.now(UTC).date()}, {storm.weather.seconds / 60:g} minutes, seed {storm.seed},"
        f" leases of {'30' if real_leases else '6'} s, on {machine()}:\n\n"
        + "\n".join(table)
        + "\n\n"
        + "\n".join(strikes)
    )


def _kinds() -> list[Strike]:
    return list({strike.name: strike for strike in STRIKES}.values())


async def play(seed: int, weather: Weather, real_leases: bool) -> Storm:
    """A storm on a stack of its own."""
    stack = Stack.make(REAL if real_leases else QUICK)
    try:
        await stack.up()
        return await rage(stack, seed, weather)
    except BaseException:
        print(f"the logs are in {stack.keep_logs()}", flush=True)
        raise
    finally:
        await stack.down()


def main() -> int:
    """Read the arguments, play."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--real-leases", action="store_true", help="the deployment's own settings")
    parser.add_argument("--write", action="store_true", help="put it into docs/reliability.md")
    arguments = parser.parse_args()
    weather = Weather(arguments.minutes * 60, clients=arguments.clients)
    if arguments.real_leases:
        weather.away_s = (1.0, 40.0)
    print(f"seed {arguments.seed}", flush=True)
    storm = asyncio.run(play(arguments.seed, weather, arguments.real_leases))
    text = describe(storm, arguments.real_leases)
    print(text)
    if max(storm.recoveries_s) > BOUND_S:
        print("R is broken")
        return 1
    if arguments.write:
        put("chaos", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
