"""Measures the whole path, through Envoy, with the record: `make bench`.

Every figure is the median of rounds, in which the platform and what it is compared
with take turns, because machines are noisy. Needs h2load (Debian: nghttp2-client);
with `--runtime docker` an engine too. `--write` puts the table into
docs/performance.md.
"""

import argparse
import contextlib
import json
import os
import platform as machine
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faas.json_values import to_value
from faas.v1.invocation_service_pb2 import InvokeRequest
from tests.bench.load import Load, LoadError, Measured, run
from tests.bench.stack import Platform, running

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD = {"text": "x" * 80, "n": 1}  # about 100 bytes of JSON
ECHO = {
    "python": "def handler(payload, context):\n    return payload\n",
    "node": "exports.handler = (payload) => payload;\n",
    "go": 'package main\n\nimport (\n\t"context"\n\t"encoding/json"\n)\n\n'
    "func Handler(ctx context.Context, payload json.RawMessage) (any, error) {\n"
    "\treturn payload, nil\n}\n",
}
TABLE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


class Bench:
    """The scenarios, on one running platform beside one running peer."""

    def __init__(self, platform: Platform, peer_url: str, options: argparse.Namespace) -> None:
        """Measure `platform` and `peer_url` as `options` say."""
        self._platform = platform
        self._peer_url = peer_url
        self._options = options
        self._names = 0
        for language, code in ECHO.items():
            platform.create(f"echo-{language}", language, code)
            platform.invoke(f"echo-{language}", PAYLOAD)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Each line of the table: what, and the figures."""
        seconds = self._options.seconds
        for language in ECHO:
            url = f"{self._platform.url}/invoke"
            load = Load.json(url, self._request(f"echo-{language}"))
            for clients in (1, 8, 32) if language == "python" else (1, 32):
                yield self._loaded(f"{language}, HTTP, {clients} clients", load, clients, seconds)
        grpc = Load.grpc(
            f"{self._platform.url}/faas.v1.InvocationService/Invoke", self._message("echo-python")
        )
        for clients in (1, 32):
            yield self._loaded(f"python, gRPC, {clients} clients", grpc, clients, seconds)
        for clients in (1, 32):
            yield self._without_disk("echo-python", clients, seconds)
        peer = Load.json(f"{self._peer_url}/invoke", json.dumps({"payload": PAYLOAD}).encode())
        for clients in (1, 8, 32):
            name = f"FastAPI on uvicorn, no FaaS, {clients} clients"
            yield self._loaded(name, peer, clients, seconds)
        yield "sparse: one call in 250 ms", self._sparse(40)
        yield "cold: the first call of a new function", self._cold(10)
        yield "burst: 32 first calls of a new function at once", self._burst(32)
        yield self._accepted(32, seconds)
        yield "10,000 queued echoes drained", self._drained(10_000)
        if self._options.runtime == "docker":
            yield "bare `docker run` of the same function", self._docker_run(5)

    def _loaded(self, name: str, load: Load, clients: int, seconds: float) -> tuple[str, str]:
        run(load, clients, seconds=1)
        measured = [self._measure(load, clients, seconds) for _ in range(self._options.rounds)]
        return name, _figures(measured)

    def _without_disk(self, function: str, clients: int, seconds: float) -> tuple[str, str]:
        """What waiting for the disk costs: rounds with and without, in turns."""
        load = Load.json(f"{self._platform.url}/invoke", self._request(function))
        waits, forgets = [], []
        for _ in range(self._options.rounds):
            waits.append(self._measure(load, clients, seconds))
            with self._platform.forgetful():
                run(load, clients, seconds=1)
                forgets.append(self._measure(load, clients, seconds))
        name = f"the same, commits waiting for the disk, and not, {clients} clients"
        one, other = (_short(measured) for measured in (waits, forgets))
        return name, f"{one}; without: {other}"

    def _measure(self, load: Load, clients: int, seconds: float) -> Measured:
        before = self._platform.cpu_seconds()
        measured = run(load, clients, seconds=seconds)
        used = self._platform.cpu_seconds()
        used.subtract(before)
        cpu_us = {part: s * 1e6 / measured.count for part, s in used.items() if s > 0}
        return Measured(measured.latencies_ms, measured.seconds, clients, cpu_us)

    def _sparse(self, calls: int) -> str:
        latencies = []
        begin = time.monotonic()
        for index in range(calls):
            time.sleep(max(0.0, begin + index * 0.25 - time.monotonic()))
            latencies.append(_timed(lambda: self._platform.invoke("echo-python", PAYLOAD)))
        latencies.sort()
        return f"p50 {statistics.median(latencies):.1f} ms, max {latencies[-1]:.1f} ms"

    def _cold(self, calls: int) -> str:
        latencies, kinds = [], set()
        for _ in range(calls):
            name = self._new("python")
            time.sleep(1.0)  # what is made ready in the background has its chance
            begin = time.monotonic()
            record = self._platform.invoke(name, PAYLOAD)
            latencies.append((time.monotonic() - begin) * 1000)
            kinds.add(record["metrics"]["start_kind"])
        figures = f"p50 {statistics.median(latencies):.1f} ms, max {max(latencies):.1f} ms"
        return f"{figures} ({', '.join(sorted(kinds))})"

    def _burst(self, callers: int) -> str:
        name = self._new("python")
        with ThreadPoolExecutor(callers) as pool:
            begin = time.monotonic()
            list(pool.map(lambda _: self._platform.invoke(name, PAYLOAD), range(callers)))
            seconds = time.monotonic() - begin
        return f"all answered after {seconds * 1000:.0f} ms"

    def _accepted(self, clients: int, seconds: float) -> tuple[str, str]:
        load = Load.json(f"{self._platform.url}/invoke", self._request("echo-python", wait=None))
        self._platform.workers("drain")
        try:
            row = self._loaded(f"async accept, {clients} clients", load, clients, seconds)
        finally:
            self._platform.workers("resume")
        self._platform.wait_until_drained("echo-python")
        return row

    def _drained(self, count: int) -> str:
        name = self._new("python")
        self._platform.invoke(name, PAYLOAD)
        self._platform.workers("drain")
        load = Load.json(f"{self._platform.url}/invoke", self._request(name, wait=None))
        run(load, 32, count=count)
        begin = time.monotonic()
        self._platform.workers("resume")
        self._platform.wait_until_drained(name)
        seconds = time.monotonic() - begin
        completed = self._platform.completed(name)
        if completed != count + 1:
            raise LoadError(f"{completed} records are COMPLETED, not {count + 1}")
        return f"{seconds:.1f} s, {count / seconds:.0f} a second"

    def _docker_run(self, runs: int) -> str:
        code = Path(self._options.directory) / "main.py"
        code.parent.mkdir(parents=True, exist_ok=True)
        code.write_text(ECHO["python"])
        command = [
            *("docker", "run", "--rm", "--network", "none", "--memory", "128m", "--cpus", "1"),
            *("--mount", f"type=bind,src={code.parent},dst=/app/function,readonly"),
            *(
                "-e",
                f"FUNCTION_PAYLOAD={json.dumps(PAYLOAD)}",
                "-e",
                "FUNCTION_HANDLER=main.handler",
            ),
            "faas-runtime-python:latest",
        ]
        latencies = []
        for _ in range(runs):
            begin = time.monotonic()
            ran = subprocess.run(command, check=True, capture_output=True, text=True)
            latencies.append((time.monotonic() - begin) * 1000)
            assert json.loads(ran.stdout) == PAYLOAD
        shutil.rmtree(code.parent)
        return f"p50 {statistics.median(latencies):.0f} ms"

    def _new(self, language: str) -> str:
        self._names += 1
        name = f"new-{self._names}"
        self._platform.create(name, language, ECHO[language])
        return name

    def _request(self, function: str, wait: str | None = "30s") -> bytes:
        body = {"function_id": function, "payload": PAYLOAD} | ({"wait": wait} if wait else {})
        return json.dumps(body).encode()

    def _message(self, function: str) -> bytes:
        request = InvokeRequest(function_id=function, payload=to_value(PAYLOAD))
        request.wait.FromSeconds(30)
        return request.SerializeToString()


def _timed(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return (time.monotonic() - begin) * 1000


def _short(rounds: list[Measured]) -> str:
    def median(pick: Callable[[Measured], float]) -> float:
        return statistics.median(map(pick, rounds))

    return (
        f"p50 {median(lambda m: m.p50):.2f} ms, p99 {median(lambda m: m.p99):.1f} ms,"
        f" {median(lambda m: m.rate):.0f} a second"
    )


def _figures(rounds: list[Measured]) -> str:
    text = _short(rounds)
    parts = sorted({part for one in rounds for part in one.cpu_us})
    cpu = {part: statistics.median(one.cpu_us.get(part, 0.0) for one in rounds) for part in parts}
    shown = [f"{part} {us:.0f}" for part, us in cpu.items() if us >= 10]
    return text + (f"; CPU µs a call: {', '.join(shown)}" if shown else "")


@contextlib.contextmanager
def _peer() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "tests.bench.peer:app", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "warning", "--no-access-log"], cwd=ROOT)
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                sys.exit("the peer, uvicorn, did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _described(options: argparse.Namespace) -> str:
    cpu = next(
        (
            x.split(":", 1)[1].strip()
            for x in Path("/proc/cpuinfo").read_text().splitlines()
            if x.startswith("model name")
        ),
        machine.processor(),
    )
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores shared with the clients ({cpu}),"
        f" Linux {machine.release()}, Python {machine.python_version()}, runtime"
        f" {options.runtime}, {options.workers} workers, partitions of {options.days} days before"
        f" today, medians of {options.rounds} rounds of"
        f" {options.seconds:g} s."
    )


def main() -> None:
    """Measure and print; with --write, into the document too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runtime", choices=["docker", "process"], default="docker")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of each round")
    parser.add_argument("--days", type=int, default=28, help="of partitions, beside today's")
    parser.add_argument("--directory", default="/tmp/faas-bench-function")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    options = parser.parse_args()
    if shutil.which("h2load") is None:
        sys.exit("bench: h2load is missing (Debian: apt-get install nghttp2-client)")
    print(_described(options), flush=True)
    lines = [_described(options), "", "| what | measured |", "|---|---|"]
    with running(options.runtime, options.workers) as platform, _peer() as peer_url:
        platform.age(options.days)
        for name, figures in Bench(platform, peer_url, options).rows():
            print(f"{name:<50} {figures}", flush=True)
            lines.append(f"| {name} | {figures} |")
    if options.write:
        text = TABLE.read_text()
        head, _, rest = text.partition(BEGIN)
        TABLE.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
