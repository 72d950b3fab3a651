"""The supervisor's small parts, with plain values."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from services.supervisor import processes
from services.supervisor.docker import Engine, EngineAway
from services.supervisor.down import EXIT_DEGRADED, EXIT_NOT_RUNNING, Ended, down, status
from services.supervisor.errors import Refused
from services.supervisor.keeper import MAX_BACKOFF_S, backoff_s
from services.supervisor.layout import Layout
from services.supervisor.logs import rotate, tail
from services.supervisor.mesh import Options, environment
from services.supervisor.ports import free_port, reserved
from services.supervisor.request import Request
from services.supervisor.state import PartState, PartStatus, StackStatus, is_locked, take_lock
from tests.conftest import wait_until

OPTIONS = Options(host="127.0.0.1", port=8080, engine=None, workers=2, stack="faas-1")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.of(tmp_path / "data")
    layout.make_data_dir()
    return layout


@pytest.mark.parametrize(
    ("host", "public", "url"),
    [
        ("127.0.0.1", "127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("::1", "[::1]:8080", "http://[::1]:8080"),
        ("::", "[::]:8080", "http://[::1]:8080"),
        ("192.0.2.1", "192.0.2.1:8080", "http://192.0.2.1:8080"),
    ],
)
def test_addresses(host: str, public: str, url: str) -> None:
    options = replace(OPTIONS, host=host)
    assert (options.public_address, options.url) == (public, url)


def test_a_part_gets_its_own_settings_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAAS_WORKER_CONCURRENCY", "7")
    monkeypatch.setenv("FAAS_WORKER_RUNTIME", "docker")
    monkeypatch.setenv("FAAS_FUNCTIONS_S3_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PGPASSWORD", "secret")
    found = environment("worker", {"runtime": "process"})
    ours = {name: value for name, value in found.items() if name.startswith("FAAS_")}
    assert ours == {"FAAS_WORKER_CONCURRENCY": "7", "FAAS_WORKER_RUNTIME": "process"}
    assert "secret" not in found.values()
    assert found["PATH"] == os.environ["PATH"]


def test_the_background_gets_what_the_foreground_was_told() -> None:
    request = Request(Path("/d"), "0.0.0.0", 0, "process", 3, insecure=True)
    assert request.arguments() == [
        "--host=0.0.0.0",
        "--port=0",
        "--workers=3",
        "--data-dir=/d",
        "--runtime=process",
        "--insecure",
    ]


def test_backoff_doubles_up_to_its_limit() -> None:
    waits = [backoff_s(deaths) for deaths in range(1, 10_000)]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits == sorted(waits)
    assert waits[-1] == MAX_BACKOFF_S


def test_how_a_process_ended() -> None:
    assert processes.describe(75) == "ended with code 75"
    assert processes.describe(-9) == "was ended by SIGKILL"
    assert processes.describe(-250) == "was ended by signal 250"


def test_long_logs_are_rotated_under_their_writers(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 10)
        rotate(tmp_path, max_bytes=1000)
        assert log.stat().st_size == 40
        rotate(tmp_path, max_bytes=39)
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "part.log.1").read_bytes() == b"old\n" * 10


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    assert tail(log) == ""
    log.write_text("".join(f"{n}\n" for n in range(10_000)))
    assert tail(log, 2) == "9998\n9999"


def test_socket_paths_are_short(tmp_path: Path) -> None:
    deep = Layout(tmp_path / ("d" * 200))
    assert len(os.fsencode(deep.socket("gateway-http"))) < 104
    assert deep.run_dir != Layout(tmp_path).run_dir


def test_a_run_directory_that_somebody_else_made(layout: Layout, tmp_path: Path) -> None:
    layout.run_dir.symlink_to(tmp_path)
    try:
        with pytest.raises(Refused):
            layout.make_run_dir()
    finally:
        layout.run_dir.unlink()


def test_a_stack_keeps_its_name(layout: Layout) -> None:
    assert layout.stack() == layout.stack()
    assert layout.stack().startswith("faas-")


def test_one_holds_the_lock(layout: Layout) -> None:
    assert not is_locked(layout)
    lock = take_lock(layout)
    assert lock is not None
    assert is_locked(layout)
    assert take_lock(layout) is None
    os.close(lock)
    assert not is_locked(layout)


def test_a_process_is_known_by_its_birth() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        born = processes.birth(child.pid)
        assert processes.is_alive(child.pid, born)
        assert not processes.is_alive(child.pid, "another")
        child.kill()
        wait_until(lambda: not processes.is_alive(child.pid, born), "a dead child counts as dead")
    assert processes.birth(child.pid) == ""
    processes.send(child.pid, signal.SIGTERM)


def test_a_tree_dies_as_a_whole() -> None:
    script = "sh -c 'sleep 1000 & echo $!; sleep 1000' & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as root:
        assert root.stdout is not None
        below = [int(root.stdout.readline()) for _ in range(2)]
        born = {pid: processes.birth(pid) for pid in below}
        processes.kill_tree(root.pid)
        assert root.wait(10) == -signal.SIGKILL
        for pid in below:
            wait_until(lambda pid=pid: not processes.is_alive(pid, born[pid]), f"{pid} is gone")


def test_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineAway, match="none"):
        Engine.find().ping()
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    with pytest.raises(EngineAway, match="only unix://"):
        Engine.find()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_reserved_port_is_taken_for_all_but_those_that_share(host: str) -> None:
    port = free_port(host, 0)
    with reserved(host, port):
        with pytest.raises(Refused, match="is taken"):
            free_port(host, port)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as envoy:
            envoy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            envoy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            envoy.bind((host, port))
            envoy.listen()
            for _ in range(20):  # all of them are its own
                socket.create_connection((host, port)).close()
                envoy.accept()[0].close()
    assert free_port(host, port) == port


def a_status(layout: Layout, **fields: object) -> StackStatus:
    me = os.getpid()
    values = {
        "pid": me,
        "birth": processes.birth(me),
        "url": "http://127.0.0.1:1",
        "grpc_address": "127.0.0.1:1",
        "runtime": "process",
        "engine": "",
        "stack": "faas-1",
        "data_dir": str(layout.data_dir),
        "run_dir": str(layout.run_dir),
        "version": "1",
        "ready": True,
        "parts": [PartStatus("envoy", PartState.SERVING)],
        **fields,
    }
    return StackStatus(**values)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 0),
        ({"ready": False}, EXIT_DEGRADED),
        ({"parts": [PartStatus("envoy", PartState.WAITING)]}, EXIT_DEGRADED),
        ({"parts": [PartStatus("envoy", PartState.STARTING)]}, EXIT_DEGRADED),
        ({"birth": "another"}, EXIT_NOT_RUNNING),
    ],
)
def test_the_exit_code_says_how_it_is(layout: Layout, fields: dict, code: int) -> None:
    written = a_status(layout, **fields)
    written.write(layout.state)
    assert status(layout.data_dir) == (None, EXIT_NOT_RUNNING)  # nobody holds the lock
    lock = take_lock(layout)
    assert lock is not None
    try:
        assert status(layout.data_dir) == (None if code == EXIT_NOT_RUNNING else written, code)
    finally:
        os.close(lock)


# It lets go of the lock some time before it is gone, as an interpreter does that ends.
SLOW_TO_GO = """
import os, signal, sys, time
from pathlib import Path
from services.supervisor.layout import Layout
from services.supervisor.state import take_lock

lock = take_lock(Layout.of(Path(sys.argv[1])))

def end(*_):
    os.close(lock)
    time.sleep(0.5)
    sys.exit()

signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_what_is_told_to_have_ended_is_gone(layout: Layout) -> None:
    command = [sys.executable, "-c", SLOW_TO_GO, str(layout.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "ready\n"
        running = a_status(layout, pid=supervisor.pid, birth=processes.birth(supervisor.pid))
        running.write(layout.state)
        assert down(layout.data_dir, 10) == Ended(running.url, killed=False)
        assert not running.is_alive()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"parts": [{}]}', "null"])
def test_a_state_file_that_cannot_be_understood(layout: Layout, text: str) -> None:
    layout.state.write_text(text)
    assert StackStatus.read(layout.state) is None
