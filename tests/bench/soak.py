"""Runs the whole platform for long, and looks for what leaks: `make soak`.

Twenty functions of three languages are called at random. Meanwhile versions change,
and sandboxes are killed from outside: only this stack's own, by their label. Every
reply carries a checksum of its own input and the version that made it, so a reply that
is another call's, or another version's, is a wrong result. Memory, descriptors,
containers and directories are looked at all the time, and judged at the end.

It ends by itself. Needs a Docker engine. `--write` puts the figures into
docs/performance.md.
"""

import argparse
import asyncio
import hashlib
import os
import platform as machine
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from services.supervisor.layout import Layout
from services.worker.sandbox_dirs import sandboxes
from tests.bench.stack import Platform, running

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"

# Small, so that sandboxes are always let go for others, and come again.
SETTINGS = {"FAAS_WORKER_MAX_SANDBOXES": "12", "FAAS_WORKER_SANDBOX_IDLE_S": "20"}
TIMEOUT_S = 20
WAIT_S = 90

# Answers what was asked of it; VERSION is what the next version has another of.
CODE = {
    "python": """
import hashlib, os, time

def handler(payload, context):
    sum = hashlib.sha256(payload["data"].encode()).hexdigest()
    answer = {"sum": sum, "made_by": VERSION}
    if payload["do"] == "print":
        for n in range(200): print(sum, n)
    if payload["do"] == "raise": raise ValueError(f"{sum} VERSION")
    if payload["do"] == "exit": os._exit(7)
    if payload["do"] == "hang": time.sleep(60)
    if payload["do"] == "sleep": time.sleep(0.2)
    return answer
""",
    "node": """
const { createHash } = require('crypto');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
exports.handler = async (payload) => {
  const sum = createHash('sha256').update(payload.data).digest('hex');
  if (payload.do === 'print') for (let n = 0; n < 200; n++) console.log(sum, n);
  if (payload.do === 'raise') throw new Error(`${sum} VERSION`);
  if (payload.do === 'exit') process.exit(7);
  if (payload.do === 'hang') await sleep(60000);
  if (payload.do === 'sleep') await sleep(200);
  return { sum, made_by: VERSION };
};
""",
    "go": """package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

func Handler(ctx context.Context, payload json.RawMessage) (any, error) {
	var asked struct{ Do, Data string }
	if err := json.Unmarshal(payload, &asked); err != nil {
		return nil, err
	}
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(asked.Data)))
	switch asked.Do {
	case "print":
		for n := 0; n < 200; n++ {
			fmt.Println(sum, n)
		}
	case "raise":
		return nil, fmt.Errorf("%s VERSION", sum)
	case "exit":
		os.Exit(7)
	case "hang":
		time.Sleep(time.Minute)
	case "sleep":
		time.Sleep(200 * time.Millisecond)
	}
	return map[string]any{"sum": sum, "made_by": VERSION}, nil
}
""",
}
# What a call asks for, how often, and how it must end.
WANTED = {
    "echo": (80, "COMPLETED", ""),
    "print": (6, "COMPLETED", ""),
    "sleep": (6, "COMPLETED", ""),
    "raise": (5, "FAILED", "FUNCTION_ERROR"),
    "exit": (2, "FAILED", "FUNCTION_CRASHED"),
    "hang": (1, "TIMED_OUT", "TIMEOUT"),
}


@dataclass(frozen=True)
class Plan:
    """What is done, and for how long."""

    seconds: float
    seed: int
    functions: int = 20
    clients: int = 6
    change_every_s: float = 10.0
    kill_every_s: float = 5.0
    sample_every_s: float = 2.0


@dataclass
class Sample:
    """What the platform held at one moment."""

    at_s: float
    rss: Counter[str] = field(default_factory=Counter)
    """Of each part, all its processes, in bytes."""
    descriptors: Counter[str] = field(default_factory=Counter)
    containers: int = 0
    directories: int = 0


@dataclass
class Soaked:
    """What came of it."""

    plan: Plan
    calls: Counter[str] = field(default_factory=Counter)
    """By what they asked for."""
    reruns: int = 0
    versions: int = 0
    kills: int = 0
    given_up: int = 0
    """Calls that were killed twice, which ends them."""
    wrong: list[str] = field(default_factory=list)
    """Replies that are not what was asked for."""
    samples: list[Sample] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """What was there when all had ended."""
    seconds: float = 0.0

    def later(self) -> list[Sample]:
        """The last two thirds: what was filled once is full by then."""
        return [one for one in self.samples if one.at_s >= self.samples[-1].at_s / 3]

    def slope(self, part: str) -> float:
        """How a part's memory grew in the last two thirds, in bytes a second."""
        later = self.later()
        line = statistics.linear_regression(
            [one.at_s for one in later], [one.rss[part] for one in later]
        )
        return line.slope

    def growth(self, part: str) -> float:
        """By how much of itself a part would grow in an hour at that slope."""
        level = statistics.median(one.rss[part] for one in self.later())
        return self.slope(part) * 3600 / level

    def faults(self) -> list[str]:
        """What was not as promised; empty: all was."""
        found = [f"wrong result: {text}" for text in self.wrong]
        found += [f"left behind: {text}" for text in self.left]
        third = len(self.samples) // 3
        for part in PARTS:
            early = max(one.descriptors[part] for one in self.samples[:third])
            late = max(one.descriptors[part] for one in self.samples[-third:])
            if late > early * 1.25 + 16:
                found.append(f"descriptors of {part}: {early} at first, {late} at the end")
            grown = self.slope(part) * (self.samples[-1].at_s - self.later()[0].at_s)
            level = statistics.median(one.rss[part] for one in self.later())
            if grown > level * ALLOWED_GROWTH:
                found.append(f"memory of {part} grew by {grown / 1e6:.0f} MB of {level / 1e6:.0f}")
        most = int(SETTINGS["FAAS_WORKER_MAX_SANDBOXES"])
        # Builds, and one that is being removed while its successor starts.
        highest = max(max(one.containers, one.directories) for one in self.samples)
        if highest > most + 4:
            found.append(f"{highest} containers or directories of {most} sandboxes")
        return found


PARTS = ("worker", "invocations", "functions")
# In the last two thirds, of what a part needs: allocators are not exact.
ALLOWED_GROWTH = 0.15


class Soak:
    """Twenty functions, some clients, and somebody who kills."""

    def __init__(self, platform: Platform, plan: Plan) -> None:
        """Play `plan` on `platform`."""
        self._platform = platform
        self._layout = Layout.of(platform.data_dir)
        self._rng = random.Random(plan.seed)
        self._begun = time.monotonic()
        self._over = False
        self._versions: dict[str, int] = {}
        self.soaked = Soaked(plan)

    async def play(self) -> Soaked:
        """All of it."""
        plan = self.soaked.plan
        async with httpx.AsyncClient(
            base_url=self._platform.url, trust_env=False, timeout=WAIT_S + 60
        ) as http:
            for number in range(plan.functions):
                await self._create(http, number)
            self._begun = time.monotonic()
            async with asyncio.TaskGroup() as group:
                clients = [
                    group.create_task(self._client(http, random.Random(self._rng.random())))
                    for _ in range(plan.clients)
                ]
                others = [
                    group.create_task(self._change(http, random.Random(self._rng.random()))),
                    group.create_task(self._kill(random.Random(self._rng.random()))),
                    group.create_task(self._watch()),
                ]
                await self._long_enough()
                self._over = True
                await asyncio.wait(clients)
                for other in others:
                    other.cancel()
        self.soaked.seconds = time.monotonic() - self._begun
        return self.soaked

    async def _long_enough(self) -> None:
        """As planned, and until something was done to it."""
        while time.monotonic() - self._begun < self.soaked.plan.seconds or not self.soaked.kills:
            await asyncio.sleep(0.5)

    async def _create(self, http: httpx.AsyncClient, number: int) -> None:
        language = list(CODE)[number % len(CODE)]
        name = f"soak-{language}-{number}"
        body = {
            "name": name,
            "runtime": language,
            "code": CODE[language].replace("VERSION", "1"),
            "timeout": f"{TIMEOUT_S}s",
        }
        (await http.post("/functions", json=body)).raise_for_status()
        self._versions[name] = 1

    async def _client(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        while not self._over:
            name = rng.choice(list(self._versions))
            do = rng.choices(list(WANTED), [weight for weight, _, _ in WANTED.values()])[0]
            size = rng.choice((0, 10, 100, 1000, 10_000, 200_000))
            text = "".join(rng.choices('aZ0 \u00e9\u4e16\U0001f680\n"\\', k=min(size, 1000)))
            data = text * (size // 1000 or 1)
            body = {
                "function_id": name,
                "payload": {"do": do, "data": data},
                "wait": f"{WAIT_S}s",
            }
            oldest = self._versions[name]
            answer = await http.post("/invoke", json=body)
            self.soaked.calls[do] += 1
            fault = self._fault(answer, do, data, oldest)
            if fault:
                self.soaked.wrong.append(f"{name} {do}: {fault}")
                print(f"wrong: {name} {do}: {fault}", flush=True)
            await asyncio.sleep(rng.expovariate(20))

    def _fault(self, answer: httpx.Response, do: str, data: str, oldest: int) -> str:
        """What is wrong with a reply; empty: nothing."""
        if answer.is_error:
            return f"HTTP {answer.status_code} {answer.text[:300]}"
        record: dict[str, Any] = answer.json()
        self.soaked.reruns += record["attempt"] > 1
        _, status, code = WANTED[do]
        error = record.get("error") or {}
        said = (record["status"], error.get("code", ""))
        if said == ("DEAD_LETTERED", "PLATFORM_ERROR") and record["attempt"] == 2:
            # Lost for the second time, while it was alone: it is given up, with its reason.
            self.soaked.given_up += 1
            return "" if _was_killed(error["message"]) else error["message"]
        if said != (status, code):
            return f"{said} after {record['attempt']} attempts: {error.get('message', '')[:300]}"
        version = int(record["function_version"])
        if version < oldest:
            return f"it was of version {version} when {oldest} was current"
        checksum = hashlib.sha256(data.encode()).hexdigest()
        wanted = {"sum": checksum, "made_by": version}
        if status == "COMPLETED" and record["result"] != wanted:
            return f"{record['result']}, not {wanted}"
        if do == "raise" and error["message"] != f"{checksum} {version}":
            return f"{error['message'][:200]}, not {checksum} {version}"
        return ""

    async def _change(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        while True:
            await asyncio.sleep(rng.expovariate(1 / self.soaked.plan.change_every_s))
            name = rng.choice(list(self._versions))
            version = self._versions[name] + 1
            code = CODE[name.split("-")[1]].replace("VERSION", str(version))
            changed = await http.patch(f"/functions/{name}", json={"code": code})
            changed.raise_for_status()
            assert int(changed.json()["version"]) == version
            self._versions[name] = version
            self.soaked.versions += 1

    async def _kill(self, rng: random.Random) -> None:
        while True:
            await asyncio.sleep(rng.expovariate(1 / self.soaked.plan.kill_every_s))
            found = await asyncio.to_thread(self._sandboxes)
            if found:
                order = rng.choice((["kill"], ["rm", "-f"]))
                command = ["docker", *order, rng.choice(found)]
                # It may have gone by itself.
                killed = await asyncio.to_thread(
                    subprocess.run, command, check=False, capture_output=True
                )
                self.soaked.kills += killed.returncode == 0

    async def _watch(self) -> None:
        shown = 0.0
        while True:
            sample = await asyncio.to_thread(self._sample)
            self.soaked.samples.append(sample)
            if sample.at_s >= shown:
                shown = sample.at_s + 30
                print(self._line(sample), flush=True)
            await asyncio.sleep(self.soaked.plan.sample_every_s)

    def _line(self, sample: Sample) -> str:
        memory = ", ".join(f"{part} {sample.rss[part] / 1e6:.0f} MB" for part in PARTS)
        return (
            f"{sample.at_s:6.0f} s  {self.soaked.calls.total()} calls, {self.soaked.reruns} again,"
            f" {self.soaked.versions} versions, {self.soaked.kills} kills,"
            f" {len(self.soaked.wrong)} wrong; {sample.containers} containers; {memory}"
        )

    def _sample(self) -> Sample:
        sample = Sample(time.monotonic() - self._begun)
        for part, process in self._platform.parts():
            if part in PARTS:
                try:
                    sample.rss[part] += process.memory_info().rss
                    sample.descriptors[part] += process.num_fds()
                except psutil.Error:
                    continue
        sample.containers = len(containers(self._layout.stack()))
        sample.directories = len(self._directories())
        return sample

    def _sandboxes(self) -> list[str]:
        return containers(self._layout.stack(), functions_only=True)

    def _directories(self) -> list[str]:
        return directories(self._layout)


def _was_killed(message: str) -> bool:
    """Whether an error says what we have done."""
    return "somebody else" in message or "exit code 137" in message


def containers(stack: str, *, functions_only: bool = False) -> list[str]:
    """The ids of a stack's containers."""
    command = ["docker", "ps", "-aq", "--no-trunc", "--filter", f"label=faas.stack={stack}"]
    command += ["--filter", "label=faas.function"] if functions_only else []
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def directories(layout: Layout) -> list[str]:
    """The directories of a stack's sandboxes."""
    return [str(path) for path in sandboxes(layout.run_dir / "work")]


def play(plan: Plan) -> Soaked:
    """A platform of its own, soaked; and looked at when it has ended."""
    with _settings(SETTINGS), running("docker", 1) as platform:
        layout = Layout.of(platform.data_dir)
        stack, run_dir = layout.stack(), layout.run_dir
        soaked = asyncio.run(Soak(platform, plan).play())
    soaked.left = containers(stack) + directories(layout)
    soaked.left += [str(path) for path in run_dir.glob("*")] if run_dir.exists() else []
    return soaked


@contextmanager
def _settings(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def lines(soaked: Soaked) -> Iterator[str]:
    """The figures, as Markdown."""
    plan, later = soaked.plan, soaked.later()
    yield (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Linux {machine.release()}, one"
        f" worker, {SETTINGS['FAAS_WORKER_MAX_SANDBOXES']} sandboxes at the most, seed {plan.seed}."
    )
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| lasted | {soaked.seconds / 60:.1f} minutes |"
    yield f"| calls of {plan.functions} functions | {soaked.calls.total()} |"
    kinds = ", ".join(f"{do} {count}" for do, count in soaked.calls.most_common())
    yield f"| asked for | {kinds} |"
    yield f"| versions changed | {soaked.versions} |"
    yield f"| sandboxes killed from outside | {soaked.kills} |"
    yield f"| calls that were started again | {soaked.reruns} |"
    yield f"| calls that ended because they were killed twice | {soaked.given_up} |"
    yield f"| wrong results | {len(soaked.wrong)} |"
    for part in PARTS:
        first = statistics.median(one.rss[part] for one in soaked.samples[: len(later) // 2 or 1])
        last = statistics.median(one.rss[part] for one in later[-(len(later) // 4 or 1) :])
        yield (
            f"| memory of {part} | {first / 1e6:.0f} MB in the first third, {last / 1e6:.0f} MB at"
            f" the end; slope of the last two thirds {soaked.slope(part) * 60 / 1e3:+.0f} kB a"
            f" minute |"
        )
        fds = [one.descriptors[part] for one in later]
        yield f"| descriptors of {part} | {min(fds)} to {max(fds)} |"
    counts = [one.containers for one in soaked.samples]
    yield f"| containers at once | {max(counts)} at the most |"
    yield f"| left when it had ended | {len(soaked.left)} containers, directories and sockets |"


def main() -> int:
    """Play, print, judge; with --write, into the document too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    parser.add_argument("--write", action="store_true", help="put the figures into the docs")
    options = parser.parse_args()
    plan = Plan(options.minutes * 60, options.seed)
    print(f"seed {plan.seed}", flush=True)
    soaked = play(plan)
    text = "\n".join(lines(soaked))
    print(text, flush=True)
    faults = soaked.faults()
    print("\n".join(faults) or "All was as promised.")
    if options.write:
        head, _, rest = TABLE.read_text().partition(BEGIN)
        TABLE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
