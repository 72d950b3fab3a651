#!/usr/bin/env python3
"""The main job, whole: `make demo`.

Brings the mesh up on its embedded default, deploys three functions in three
languages, invokes them through Envoy (by HTTP, by gRPC and by grpcurl, all on one
port), shows one failing, and shuts everything down.
"""

import argparse
import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax

from faas.json_values import to_python, to_value
from faas.v1.function_service_pb2 import CreateFunctionRequest
from faas.v1.function_service_pb2_grpc import FunctionServiceStub
from faas.v1.invocation_service_pb2 import InvokeRequest
from faas.v1.invocation_service_pb2_grpc import InvocationServiceStub

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
# Building images and, once, Go's standard library may be part of it.
START_S = 600
PHASES = ("duration", "queued", "assigned", "startup", "run", "report")
WAIT_S = 120
STOP_S = 60

console = Console(highlight=False)


def main(port: int) -> None:
    """Show all of it."""
    started = time.monotonic()
    with platform(port) as url:
        console.print(f"[green]The platform serves at[/] {url} ({elapsed(started)})")
        summary = by_http(url)
        with grpc.insecure_channel(url.removeprefix("http://")) as channel:
            by_grpc(channel, summary)
            by_grpcurl(channel, url)
        failing(url)
        counts(url)
    console.print(f"\n[green]Everything has ended; nothing is left running[/] ({elapsed(started)})")


@contextlib.contextmanager
def platform(port: int) -> Iterator[str]:
    """`faas up` in a directory of its own, until the block ends; its URL."""
    title("faas up", "PostgreSQL, Valkey, Envoy, three services and two workers")
    directory = Path(tempfile.mkdtemp(prefix="faas-demo-", dir="/tmp"))
    directory.chmod(0o755)  # PostgreSQL, where we are root, runs as somebody else
    url = f"http://127.0.0.1:{port}"
    command = [BIN / "faas", "up", "--port", str(port), "--data-dir", directory / "data"]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        wait_until_healthy(url, process)
        yield url
    finally:
        title("Shutting down")
        process.send_signal(signal.SIGINT)
        process.wait(STOP_S)
        shutil.rmtree(directory, ignore_errors=True)
    if process.returncode != 0:
        sys.exit(f"`faas up` ended with exit code {process.returncode}")


def wait_until_healthy(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Until all parts serve, `faas up` ends, or it has taken too long."""
    deadline = time.monotonic() + START_S
    while True:
        if process.poll() is not None:
            sys.exit("`faas up` ended before it served: what it printed above says why")
        if time.monotonic() > deadline:
            sys.exit(f"`faas up` does not serve after {START_S} s")
        try:
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)


def by_http(url: str) -> dict[str, Any]:
    """Python, deployed and invoked with plain HTTP; what it found."""
    title("Python, by HTTP", "statistics of a measured series, and what stands out of it")
    code = (HERE / "anomalies/main.py").read_text()
    post(url, "/functions", {"name": "anomalies", "runtime": "python", "code": code})
    payload = {"csv": (HERE / "anomalies/fsync.csv").read_text(), "threshold": 50}
    invoke = {"function_id": "anomalies", "payload": payload, "wait": f"{WAIT_S}s"}
    invocation = post(url, "/invoke", invoke)
    show(invocation["result"], invocation)
    result: dict[str, Any] = invocation["result"]
    return result


def by_grpc(channel: grpc.Channel, summary: dict[str, Any]) -> None:
    """JavaScript of two files, with the stubs that are generated from the protos."""
    title("JavaScript, by gRPC", "a Markdown page of what the first function found")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        for file in sorted((HERE / "report").glob("*.js")):
            made.write(file, file.name)
    FunctionServiceStub(channel).CreateFunction(
        CreateFunctionRequest(name="report", runtime="node", archive=archive.getvalue())
    )
    rows = summary.pop("anomalies")
    payload = {"title": "Disk latency", "summary": summary, "rows": rows}
    request = InvokeRequest(function_id="report", payload=to_value(payload))
    request.wait.FromSeconds(WAIT_S)
    invocation = InvocationServiceStub(channel).Invoke(request, timeout=WAIT_S + 10)
    console.print(Panel(str(to_python(invocation.result)), border_style="dim"))
    measured(invocation.metrics)


def by_grpcurl(channel: grpc.Channel, url: str) -> None:
    """Go, compiled on deployment's first use and invoked with an operator's tool."""
    title("Go, by grpcurl", "two documents hashed and compared")
    code = (HERE / "compare/main.go").read_text()
    FunctionServiceStub(channel).CreateFunction(
        CreateFunctionRequest(name="compare", runtime="go", code=code)
    )
    old, new = ((HERE / "compare" / name).read_text() for name in ("old.txt", "new.txt"))
    request = {
        "function_id": "compare",
        "payload": {"old": old, "new": new},
        "wait": f"{WAIT_S}s",
    }
    answer = subprocess.run(
        [
            *(BIN / "grpcurl", "-plaintext", "-d", json.dumps(request)),
            *(url.removeprefix("http://"), "faas.v1.InvocationService/Invoke"),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    invocation = json.loads(answer.stdout)
    show(invocation["result"], invocation)


def failing(url: str) -> None:
    """A function that fails is a good answer: its record says why."""
    title("A failure, shown", "the same Python function, given what is no measurement")
    payload = "seconds,fsync_ms\n0.0,1.5\n0.1,none at all\n"
    invoke = {"function_id": "anomalies", "payload": payload, "wait": f"{WAIT_S}s"}
    invocation = post(url, "/invoke", invoke)
    error = invocation["error"]
    console.print(f"[bold red]{invocation['status']}[/] {error['code']}")
    console.print(f"{error['stack']}", style="red", markup=False)
    measured_json(invocation)


def counts(url: str) -> None:
    """What the platform kept of it."""
    title("The records", "GET /invocations")
    for one in httpx.get(f"{url}/invocations", trust_env=False).json()["invocations"]:
        console.print(f"{one['id']}  {one['function_name']:<10} {one['status']}")


def post(url: str, path: str, body: dict[str, Any]) -> Any:
    """The answer to a POST of JSON; ends the demo where it is an error."""
    answer = httpx.post(url + path, json=body, timeout=WAIT_S + 10, trust_env=False)
    if answer.is_error:
        sys.exit(f"POST {path} answered {answer.status_code}: {answer.text}")
    return answer.json()


def show(result: Any, invocation: dict[str, Any]) -> None:
    """A result and its metrics, both as the API's JSON."""
    text = json.dumps(result, indent=2, ensure_ascii=False)
    console.print(Syntax(text, "json", background_color="default"))
    measured_json(invocation)


def measured_json(invocation: dict[str, Any]) -> None:
    """The metrics of a record in JSON, where they are names of any case."""
    metrics = invocation["metrics"]
    seconds = {name: float(metrics[name].removesuffix("s")) for name in PHASES if name in metrics}
    peak = metrics.get("peak_memory_bytes", metrics.get("peakMemoryBytes", 0))
    figures(seconds, int(peak))


def measured(metrics: Any) -> None:
    """The metrics of a record as a message."""
    seconds = {name: getattr(metrics, name).ToTimedelta().total_seconds() for name in PHASES}
    figures(seconds, metrics.peak_memory_bytes)


def figures(seconds: dict[str, float], peak_memory_bytes: int) -> None:
    """One line of metrics."""
    parts = [f"{name} {value * 1000:.1f} ms" for name, value in seconds.items()]
    parts.append(f"peak memory {peak_memory_bytes / 2**20:.0f} MiB")
    console.print("  ·  ".join(parts), style="dim")


def title(text: str, about: str = "") -> None:
    """The heading of what comes next."""
    console.print(f"\n[bold]{text}[/]" + (f" [dim]{about}[/]" if about else ""))


def elapsed(since: float) -> str:
    """Seconds since then."""
    return f"{time.monotonic() - since:.1f} s"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=8080, help="where Envoy listens")
    main(parser.parse_args().port)
