"""Measures what a function's neighbours notice of it: `python -m tests.bench.neighbours`.

One function is called at a steady rate, by itself and then while another one attacks
the worker that both are on. What is alone is measured anew before each attack, because
machines are noisy. Needs a Docker engine; `--write` puts the table into
docs/performance.md.
"""

import argparse
import asyncio
import os
import platform as machine
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.bench.stack import Platform, running
from tests.hostile.cases import FLOOD_AFTERWARDS, FRAMES, LIMITS, OUTPUT, TIME
from tests.hostile.table import Cell

TABLE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- neighbours: begin -->", "<!-- neighbours: end -->"
NEIGHBOUR = "def handler(payload, context):\n    return payload\n"
RATE = 20
"""Calls of the neighbour a second."""
TIMEOUT_S = 2
ATTACKERS = 2
# The promise: its slowest calls take at most so many times as long.
FACTOR = 5.0


def _attacks() -> dict[str, Cell]:
    rows = {**TIME.rows, **LIMITS.rows, **OUTPUT.rows, **FRAMES.rows}
    names = [
        "all threads spinning",
        "spinning daemons",
        "a memory hog",
        "a fork bomb",
        "a full /tmp",
        "100,000 threads",
        "10 GB on stdout",
        "10 GB of empty lines",
        "a line of 10 GB",
        "a frame of 4 GB",
    ]
    return {name: rows[name].cells["python"] for name in names} | {
        "a flood when it has answered": FLOOD_AFTERWARDS["python"]
    }


@dataclass
class Measured:
    """The neighbour's calls in one stretch of time, and the worker's memory."""

    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0
    rss: list[int] = field(default_factory=list)
    attacks: int = 0
    late_s: float = 0.0
    """How long after its deadline the latest attack was over, from the caller's side."""

    def add(self, other: "Measured") -> None:
        """What another stretch of the same kind has measured."""
        self.latencies_ms += other.latencies_ms
        self.rss += other.rss
        self.failed += other.failed
        self.attacks += other.attacks
        self.late_s = max(self.late_s, other.late_s)

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Street:
    """A neighbour, and who attacks."""

    def __init__(self, platform: Platform, http: httpx.AsyncClient, seconds: float) -> None:
        """On one platform; each stretch takes so long."""
        self._workers = [process for part, process in platform.parts() if part == "worker"]
        self._http = http
        self._seconds = seconds

    async def quiet(self) -> Measured:
        """The neighbour by itself."""
        return await self._measure(Measured())

    async def attacked(self, function: str) -> Measured:
        """The neighbour, while the function is called by two callers without a pause."""
        measured = Measured()
        async with self._attacking(function, measured):
            return await self._measure(measured)

    @asynccontextmanager
    async def _attacking(self, function: str, measured: Measured) -> AsyncIterator[None]:
        over = False

        async def attack() -> None:
            while not over:
                begun = time.monotonic()
                await self._invoke(function, None)
                measured.attacks += 1
                late_s = time.monotonic() - begun - TIMEOUT_S
                measured.late_s = max(measured.late_s, late_s)

        async with asyncio.TaskGroup() as group:
            for _ in range(ATTACKERS):
                group.create_task(attack())
            await asyncio.sleep(1)
            yield
            over = True

    async def _measure(self, measured: Measured) -> Measured:
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(self._seconds * RATE)):
                await asyncio.sleep(max(0.0, begin + number / RATE - time.monotonic()))
                group.create_task(self._call(begin + number / RATE, measured))
                if number % 2 == 0:
                    measured.rss.append(self._rss())
        return measured

    async def _call(self, due: float, measured: Measured) -> None:
        """One call; its time counts from when it was due."""
        record = await self._invoke("neighbour", 1)
        if record["status"] != "COMPLETED":
            measured.failed += 1
        measured.latencies_ms.append((time.monotonic() - due) * 1000)

    async def _invoke(self, function: str, payload: object) -> dict[str, object]:
        body = {"function_id": function, "payload": payload, "wait": "60s"}
        answer = await self._http.post("/invoke", json=body)
        answer.raise_for_status()
        record: dict[str, object] = answer.json()
        return record

    def _rss(self) -> int:
        return sum(process.memory_info().rss for process in self._workers)


HEAD = [
    "attack",
    "p50 alone",
    "p50 attacked",
    "p99 alone",
    "p99 attacked",
    "factor",
    "attacks",
    "answered after its deadline, its start included",
    "worker before, peak, after",
]


async def measure(platform: Platform, seconds: float, rounds: int) -> tuple[list[list[str]], bool]:
    """Every attack: the cells of its row; and whether all kept within the promise."""
    rows, kept = [], True
    async with httpx.AsyncClient(
        base_url=platform.url, trust_env=False, timeout=120, limits=httpx.Limits()
    ) as http:
        platform.create("neighbour", "python", NEIGHBOUR)
        platform.invoke("neighbour", 1)
        street = Street(platform, http, seconds)
        for number, (name, code) in enumerate(_attacks().items()):
            function = f"attack-{number}"
            platform.create(function, "python", str(code), timeout=f"{TIMEOUT_S}s")
            # Both sides of it: what changed meanwhile is not the attack's.
            alone, attacked = await street.quiet(), Measured()
            for _ in range(rounds):
                attacked.add(await street.attacked(function))
                alone.add(await street.quiet())
            factor = attacked.percentile(0.99) / alone.percentile(0.99)
            kept = kept and factor <= FACTOR and not attacked.failed
            memory = (alone.rss[0], max(attacked.rss), alone.rss[-1])
            rows.append(
                [
                    name,
                    f"{alone.percentile(0.5):.1f} ms",
                    f"{attacked.percentile(0.5):.1f} ms",
                    f"{alone.percentile(0.99):.1f} ms",
                    f"{attacked.percentile(0.99):.1f} ms",
                    f"{factor:.1f}",
                    str(attacked.attacks),
                    f"{attacked.late_s:.1f} s" if attacked.late_s > 0 else "in time",
                    ", ".join(f"{rss / 1e6:.0f}" for rss in memory) + " MB",
                ]
            )
            print(" | ".join(rows[-1]), flush=True)
    return rows, kept


def main() -> int:
    """Measure and print; with --write, into the document too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5, help="of each stretch")
    parser.add_argument("--rounds", type=int, default=3, help="of each attack")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with running("docker", 1) as platform:
        rows, kept = asyncio.run(measure(platform, options.seconds, options.rounds))
    said = (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores shared with the caller, Linux"
        f" {machine.release()}, one worker, {RATE} calls a second,"
        f" attacked {options.rounds} times for {options.seconds:g} s and as often left alone,"
        f" {ATTACKERS} attackers without a pause; load average {load:.1f} at the beginning and"
        f" {os.getloadavg()[0]:.1f} at the end."
    )
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD), *rows))
    factors = statistics.median(float(row[5]) for row in rows)
    print(f"{said}\nmedian factor {factors:.1f}; {'all' if kept else 'not all'} within {FACTOR:g}")
    if options.write:
        head, _, rest = TABLE.read_text().partition(BEGIN)
        text = f"{head}{BEGIN}\n{said}\n\n{table}\n{END}{rest.partition(END)[2]}"
        TABLE.write_text(text)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
