"""`faas doctor` on set-ups that were broken on purpose: each is named, with its cure.

What is wrong between a client and a gateway is in tests/integration/test_cli.py; here
is what is wrong with the machine, and with the parts of a platform.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest

from faas.cli.findings import Finding, Level
from services.supervisor import examinations
from services.supervisor.docker import Engine
from tests.acceptance.stack import Stack, faas, running
from tests.conftest import wait_until
from tests.integration.gateway import free_port

pytestmark = pytest.mark.timeout(900)
NOBODY = 65534


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A platform of this module's own, to be broken; it takes functions that no worker runs."""
    directory = Path("/tmp") / f"faas-doctor-{os.getpid()}"
    directory.mkdir(mode=0o755)
    settings = {"FAAS_FUNCTIONS_RUNTIMES": "python,node,go,cobol"}
    try:
        with running(directory / "data", "--workers", "1", settings=settings) as stack:
            yield stack
    finally:
        subprocess.run(["rm", "-rf", directory], check=True)


def doctor(server: str, *options: str, **environment: str) -> list[dict[str, str]]:
    """What it finds; whatever is wrong has a cure, and the exit code says how bad it is."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("FAAS_", "DOCKER_"))}
    done = subprocess.run(
        [faas(), "--server", server, "doctor", "-o", "json", *options],
        env={**ours, "XDG_CONFIG_HOME": "/nowhere", "NO_PROXY": "127.0.0.1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stderr, done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)
    assert all(bool(each["cure"]) == (each["level"] != "good") for each in found)
    levels = {each["level"] for each in found}
    assert done.returncode == (5 if "bad" in levels else 0)
    return found


def named(found: list[dict[str, str]], level: str) -> str:
    return "\n".join(f"{f['what']} -> {f['cure']}" for f in found if f["level"] == level)


@contextmanager
def paused(stack: Stack, name: str) -> Iterator[None]:
    """A part that is there and does nothing, with all that it started."""
    process = psutil.Process(stack.part(name).pid)
    stopped = [process, *process.children(recursive=True)]
    for each in stopped:
        each.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: not stack.is_healthy(), "it is noticed", 120)
        yield
    finally:
        for each in stopped:
            each.send_signal(signal.SIGCONT)
        wait_until(stack.is_healthy, "all serve again", 120)


@contextmanager
def often_killed(stack: Stack, name: str) -> Iterator[None]:
    for times in range(1, examinations.OFTEN + 1):
        psutil.Process(stack.part(name).pid).kill()

        def again(times: int = times) -> bool:
            part = stack.part(name)
            return part.restarts >= times and part.state == "serving" and part.is_alive()

        wait_until(again, "it is started again", 120)
    wait_until(stack.is_healthy, "all serve again", 120)
    yield


@contextmanager
def a_function_that_nobody_runs(stack: Stack, _: str) -> Iterator[None]:
    made = stack.create("doctor-cobol", "x", runtime="cobol", handler="main")
    try:
        yield
    finally:
        with stack.client() as client:
            client.delete(f"/functions/{made['id']}").raise_for_status()


BROKEN_PARTS: dict[str, tuple[Callable[..., AbstractContextManager[None]], str, str, list[str]]] = {
    "Redis is away": (paused, "valkey", "warning", ["redis does not serve"]),
    "PostgreSQL is away": (paused, "postgres", "warning", ["postgresql does not serve"]),
    "FunctionService is away": (paused, "functions", "warning", ["functions does not serve"]),
    "InvocationService is away": (paused, "invocations", "warning", ["invocations does not serve"]),
    "Envoy is away": (paused, "envoy", "bad", ["No server answers"]),
    "a part keeps dying": (often_killed, "gateway", "warning", ["gateway", "its log", "times"]),
    "no worker runs a language": (a_function_that_nobody_runs, "", "warning", ["in cobol"]),
}


@pytest.mark.parametrize("broken", BROKEN_PARTS)
def test_a_part_that_is_broken_is_named(stack: Stack, broken: str) -> None:
    breaks, part, level, said = BROKEN_PARTS[broken]
    with breaks(stack, part):
        found = named(doctor(stack.url, "--data-dir", str(stack.data_dir)), level)
    for word in said:
        assert word.lower() in found.lower(), found


def test_a_platform_that_is_well_is_called_so(stack: Stack) -> None:
    found = doctor(stack.url, "--data-dir", str(stack.data_dir))
    assert f"the platform in {stack.data_dir} runs, at {stack.url}" in named(found, "good")
    assert named(found, "bad") == ""


def test_the_wrong_port_of_this_machine(stack: Stack) -> None:
    found = doctor(f"http://127.0.0.1:{free_port()}", "--data-dir", str(stack.data_dir))
    assert f"The platform of this machine is at {stack.url}" in named(found, "warning")
    assert f"faas context set here {stack.url}" in named(found, "warning")
    assert "Nothing listens" in named(found, "bad")


def test_no_docker_engine(directory: Path) -> None:
    where = f"unix://{directory}/none.sock"
    found = doctor(f"http://127.0.0.1:{free_port()}", DOCKER_HOST=where)
    assert f"Functions cannot run in Docker here: {directory}/none.sock" in named(found, "warning")


def test_a_docker_engine_that_is_elsewhere() -> None:
    found = doctor(f"http://127.0.0.1:{free_port()}", DOCKER_HOST="tcp://192.0.2.1:2375")
    assert "only unix:// can be used" in named(found, "warning")
    assert "DOCKER_HOST=unix:///var/run/docker.sock" in named(found, "warning")


def test_a_data_directory_that_cannot_be() -> None:
    found = doctor(f"http://127.0.0.1:{free_port()}", "--data-dir", "/proc/faas")
    assert "Nothing can be written to /proc/faas" in named(found, "bad")
    assert "--data-dir DIRECTORY" in named(found, "bad")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk(directory: Path) -> None:
    disk = directory / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    try:
        found = doctor(f"http://127.0.0.1:{free_port()}", "--data-dir", str(disk / "data"))
    finally:
        subprocess.run(["umount", disk], check=True)
    assert f"The disk of {disk / 'data'} is full: " in named(found, "bad")


def test_a_docker_engine_that_this_user_may_not_use(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directory / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(path))
        engine.listen()
        path.chmod(0)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(NOBODY)
        try:
            (found,) = examinations.engine_to_be()
        finally:
            if is_root:
                os.seteuid(0)
    assert found.level is Level.WARNING
    assert "Permission denied" in found.what
    assert "usermod -aG docker" in found.cure


class _EmptyEngine(BaseHTTPRequestHandler):
    """An engine that has no image."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/_ping" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None:
        pass


class _UnixServer(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


def test_an_engine_without_the_images(directory: Path) -> None:
    path = directory / "docker.sock"
    with serving(_UnixServer(str(path), _EmptyEngine)):
        found = list(examinations.engine(Engine(path)))
    assert [f.what for f in found] == [
        f"Docker has no image {name}: what needs it waits"
        for name in (
            *("faas-runtime-python:latest", "faas-runtime-node:latest"),
            *("faas-runtime-go:latest", "faas-build-go:latest"),
        )
    ]
    assert all("make images" in f.cure for f in found)


def test_an_engine_that_went_away(directory: Path) -> None:
    found: list[Finding] = list(examinations.engine(Engine(directory / "none.sock")))
    assert [f.level for f in found] == [Level.BAD]
    assert "is away" in found[0].what


class _Yesterday(BaseHTTPRequestHandler):
    """A gateway whose clock is a day behind."""

    def do_GET(self) -> None:
        body = b'{"status": "SERVING", "parts": []}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return "Mon, 24 Nov 2025 00:00:00 GMT"

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_clock_that_is_wrong() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Yesterday)
    with serving(server):
        found = doctor(f"http://127.0.0.1:{server.server_port}")
    assert "The clocks differ by" in named(found, "warning")
    assert "NTP" in named(found, "warning")


class _Refuses(grpc.GenericRpcHandler):
    """A gateway that wants a credential, or one that knows no call."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code

    def service(self, _details: Any) -> Any:
        async def answer(_request: bytes, context: Any) -> None:
            await context.abort(self.code, "no")

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, ["wants another credential", "FAAS_TOKEN"]),
        (grpc.StatusCode.UNIMPLEMENTED, ["no faas-mesh, or an older one"]),
    ],
)
async def test_a_server_that_refuses(code: grpc.StatusCode, said: list[str]) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_Refuses(code)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        found = await asyncio.to_thread(doctor, f"http://127.0.0.1:{port}")
    finally:
        await server.stop(0)
    for words in said:
        assert words in named(found, "bad")


def test_without_the_servers_it_looks_at_less() -> None:
    """The client alone is installed: the entry point is there, what it needs is not."""
    code = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "psutil":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv[0] = "faas"
from faas.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "--server", f"http://127.0.0.1:{free_port()}", "doctor"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 5
    assert "Nothing listens" in done.stdout
