"""What warm sandboxes cost while nobody calls, and how many a burst starts, in a real engine.

`python -m tests.bench.sandboxes` prints both; `--write` puts them into
docs/performance.md. Neither depends much on what else the machine does: memory and
CPU time are the container's own, and containers are counted.
"""

import argparse
import asyncio
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from faas.v1.invocation_pb2 import Invocation
from services.worker.docker_runtime import DockerRuntime
from services.worker.engine import Engine
from services.worker.hardening import MIB
from services.worker.pool import Budget
from tests.bench.__main__ import ECHO
from tests.conformance.conftest import LIMITS, Bench

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- sandboxes: begin -->", "<!-- sandboxes: end -->"

CALLERS = 32
LOOK_S = 0.1
BURSTS = {
    "answers at once": ECHO["python"],
    "waits for 0.5 s": "import time\ndef handler(p):\n    time.sleep(0.5)\n",
    "computes for 0.2 s": "import time\ndef handler(p):\n"
    "    end = time.process_time() + 0.2\n    while time.process_time() < end: pass\n",
}


class Machine:
    """The engine, and this run's containers in it."""

    def __init__(self, engine: Engine, directory: Path, network: str) -> None:
        """Sandboxes have their directories below `directory`."""
        self.engine = engine
        self._directory = directory
        self._network = network
        self._stack = f"bench-{uuid4().hex}"

    @asynccontextmanager
    async def bench(self, socket: Path, budget: Budget) -> AsyncIterator[Bench]:
        """A runtime with this budget, until the block ends."""
        runtime = DockerRuntime(
            work_dir=self._directory / "w",
            stack=self._stack,
            worker_id="worker-bench",
            boot_id=str(uuid4()),
            limits=LIMITS,
            network=self._network,
            engine_socket=socket,
            budget=budget,
        )
        await runtime.start()
        try:
            yield Bench(runtime, self._directory / "functions")
        finally:
            await runtime.close()

    async def containers(self) -> list[str]:
        """The ids of those that there are now."""
        found = await self.engine.containers({"faas.stack": self._stack})
        return [one["Id"] for one in found]


async def idle(machine: Machine, bench: Bench, seconds: float) -> list[str]:
    """A line for each language: memory and CPU time of a sandbox that has answered and waits."""
    lines = []
    for language, code in ECHO.items():
        before = set(await machine.containers())
        ran = await bench.run(bench.spec(language, code, memory_mb=128))
        assert ran.verdict.failure is None, ran.verdict.failure
        (mine,) = set(await machine.containers()) - before
        # What the start and the call have left to do is done.
        await asyncio.sleep(2)
        first = await machine.engine.stats(mine)
        await asyncio.sleep(seconds)
        last = await machine.engine.stats(mine)
        used_ms = (_cpu_ns(last) - _cpu_ns(first)) / 1e6
        lines.append(
            f"| {language} | {_memory(last) / MIB:.1f} MiB | {used_ms:.2f} ms in {seconds:g} s |"
        )
    return lines


def _cpu_ns(stats: Any) -> int:
    return int(stats["cpu_stats"]["cpu_usage"]["total_usage"])


def _memory(stats: Any) -> int:
    """As `docker stats` counts it: without what of files is only remembered."""
    memory = stats["memory_stats"]
    details = memory["stats"]
    return int(memory["usage"]) - int(
        details.get("total_inactive_file", details.get("inactive_file", 0))
    )


async def burst(machine: Machine, bench: Bench, what: str, code: str) -> str:
    """A line for one burst: how many containers there were, and over what time."""
    spec = bench.spec("python", code, memory_mb=64)
    began = time.monotonic()
    counts: list[tuple[float, int]] = []

    async def count() -> None:
        while True:
            number = len(await machine.containers())
            counts.append((time.monotonic() - began, number))
            await asyncio.sleep(LOOK_S)

    counting = asyncio.create_task(count(), name="count containers")
    ran = await asyncio.gather(*(bench.run(spec) for _ in range(CALLERS)))
    took_s = time.monotonic() - began
    counting.cancel()
    # It may be over before anybody has looked; idle ones stay.
    counts.append((took_s, len(await machine.containers())))
    assert not [one for one in ran if one.verdict.failure]
    kinds = Counter(Invocation.StartKind.Name(one.verdict.start_kind) for one in ran)
    found = ", ".join(f"{number} {kind.lower()}" for kind, number in sorted(kinds.items()))
    course = " ".join(f"{number}" for number in _thinned([number for _, number in counts]))
    most = max(number for _, number in counts)
    return f"| {what} | {most} | {course} | {found} | {took_s:.1f} s |"


def _thinned(numbers: list[int], most: int = 12) -> list[int]:
    """At most so many of them, evenly spread."""
    step = max(len(numbers) / most, 1)
    return [numbers[int(n * step)] for n in range(min(len(numbers), most))]


async def measure(socket: Path, seconds: float, network: str) -> list[str]:
    """All lines."""
    engine = Engine(socket)
    info = await engine.open()
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Linux {platform.release()}, Docker"
        f" {info['ServerVersion']}, network `{network}`.",
        "",
        "| warm sandbox, idle | memory | CPU time |",
        "|---|---|---|",
    ]
    try:
        with tempfile.TemporaryDirectory(prefix="faas-b-", dir="/tmp") as name:
            directory = Path(name)
            machine = Machine(engine, directory, network)
            cores = os.cpu_count() or 1
            budget = Budget(sandboxes=64, memory_mb=8192, cores=cores)
            async with machine.bench(socket, budget) as bench:
                lines += await idle(machine, bench, seconds)
            lines += [
                "",
                f"| {CALLERS} callers at once of a function that … | containers at most"
                " | in the course of it | starts | all answered after |",
                "|---|---|---|---|---|",
            ]
            for what, code in BURSTS.items():
                async with machine.bench(socket, budget) as bench:
                    lines.append(await burst(machine, bench, what, code))
    finally:
        await engine.close()
    return lines


def main() -> None:
    """Measure, print and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, default=Path("/var/run/docker.sock"))
    parser.add_argument("--seconds", type=float, default=30, help="how long to look at idle ones")
    parser.add_argument("--network", default="bridge", help="of the containers")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    options = parser.parse_args()
    lines = asyncio.run(measure(options.socket, options.seconds, options.network))
    print("\n".join(lines))
    if options.write:
        head, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
