"""How `faas up` ends: what runs may finish, unless there is a hurry."""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest

from services.supervisor.accounts import Account, unprivileged
from services.supervisor.docker import Engine
from services.supervisor.state import PartState, StackStatus
from tests.acceptance.stack import ROOT, START_TIMEOUT_S, Stack, alive, faas, launch, running
from tests.conftest import wait_until

SLEEP = """
import time
def handler(payload, context):
    print("begins", flush=True)
    time.sleep(payload)
    return "slept"
"""


def begin(stack: Stack, seconds: float) -> str:
    """Let a function sleep; the id of its record, once it does."""
    stack.create("sleep", SLEEP, timeout="600s")
    with stack.client() as client:
        body = {"function_id": "sleep", "payload": seconds}
        invocation = client.post("/invoke", json=body).json()["id"]

        def runs() -> bool:
            return client.get(f"/invocations/{invocation}").json()["status"] == "RUNNING"

        wait_until(runs, "the function runs", 60)
    return invocation


def test_what_runs_may_finish(directory: Path) -> None:
    with running(directory / "data", "--workers", "1") as stack:
        invocation = begin(stack, 5)
        stack.process.send_signal(signal.SIGTERM)
        assert stack.process.wait(90) == 0
    with running(directory / "data", "--workers", "1") as stack, stack.client() as client:
        record = client.get(f"/invocations/{invocation}").json()
    assert (record["status"], record["attempt"]) == ("COMPLETED", 1)


def test_a_second_signal_cuts_off(directory: Path) -> None:
    settings = {"FAAS_WORKER_DRAIN_TIMEOUT_S": "500"}
    with running(directory / "data", "--workers", "1", settings=settings) as stack:
        begin(stack, 500)
        everything = stack.processes()
        stack.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Ending all parts" in stack.output.read_text(), "it is ending")
        assert stack.process.poll() is None
        stack.process.send_signal(signal.SIGTERM)
        assert stack.process.wait(90) == 0
        assert alive(everything[1:]) == []
        assert "database system is shut down" in stack.log("postgres")


def test_ctrl_c_at_a_terminal(directory: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = ["--data-dir", directory / "data", "--port", "0", "--runtime", "process"]
    process = subprocess.Popen(
        ["setsid", "--ctty", faas(), "up", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    shown = b""

    def has_shown(text: str) -> bool:
        nonlocal shown
        with contextlib.suppress(OSError):  # nothing new; or everybody has gone
            shown += os.read(ours, 65536)
        return text.encode() in shown

    try:
        wait_until(lambda: has_shown("faas init hello"), "it is up", START_TIMEOUT_S)
        assert has_shown("✓ Starting PostgreSQL and Valkey")
        os.write(ours, b"\x03")
        wait_until(lambda: has_shown("✓ Ending all parts"), "it has ended", 90)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_an_end_is_asked_for_before_it_is_up(directory: Path) -> None:
    stack = launch(directory / "data")
    try:

        def begun() -> bool:
            found = StackStatus.read(stack.layout.state)
            states = {part.state for part in found.parts} if found else set()
            return PartState.STARTING in states

        wait_until(begun, "a part is starting", START_TIMEOUT_S)
        everything = stack.processes()
        stack.process.send_signal(signal.SIGTERM)
        assert stack.process.wait(90) == 0
        assert alive(everything[1:]) == []
    finally:
        stack.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test does")
def test_as_a_user_without_rights(directory: Path) -> None:
    user = unprivileged()
    assert user is not None
    code = "import sys; sys.argv[0] = 'faas'; from faas.cli import main; main()"
    command = [reachable_python(user, directory), "-c", code]
    path = f"{ROOT}{os.pathsep}{sysconfig.get_path('purelib')}"
    settings = {
        "HOME": "/nonexistent",
        "LD_LIBRARY_PATH": str(directory / "python/lib"),
        "PYTHONPATH": path,
    }
    home = directory / "home"
    home.mkdir()
    os.chown(home, user.uid, user.gid)
    options = ("--workers", "1")
    with running(home / "data", *options, command=command, settings=settings, user=user) as stack:
        stack.create("who", "import os\ndef handler(payload, context):\n    return os.getuid()\n")
        assert stack.invoke("who")["result"] == user.uid
        assert {process.uids().effective for process in stack.processes()} == {user.uid}


def reachable_python(user: Account, directory: Path) -> str:
    """This Python; a copy of it, where it is closed to `user`."""
    python = Path(sys.executable).resolve()
    if user.reaches(python):
        return str(python)
    copy = directory / "python"
    left_out = shutil.ignore_patterns("site-packages", "test", "share", "include", "*.a")
    shutil.copytree(sys.base_prefix, copy, symlinks=True, ignore=left_out)
    return str(copy / python.relative_to(sys.base_prefix))


@pytest.mark.docker
def test_killed_it_leaves_no_container(docker_engine: Path, directory: Path) -> None:
    with running(directory / "data", "--workers", "1", runtime="docker") as stack:
        begin(stack, 500)
        engine, name = Engine(docker_engine), stack.status.stack
        wait_until(lambda: bool(engine.containers(name)), "its container is there", 60)
        everything = stack.processes()
        stack.process.kill()
        psutil.wait_procs(everything, timeout=5)
        wait_until(lambda: engine.containers(name) == [], "no container is left", 5)


@pytest.mark.docker
def test_ended_in_a_hurry_it_leaves_no_container(docker_engine: Path, directory: Path) -> None:
    with running(directory / "data", "--workers", "1", runtime="docker") as stack:
        begin(stack, 500)
        engine, name = Engine(docker_engine), stack.status.stack
        wait_until(lambda: bool(engine.containers(name)), "its container is there", 60)
        stack.process.send_signal(signal.SIGTERM)
        stack.process.send_signal(signal.SIGINT)
        assert stack.process.wait(90) == 0
        assert engine.containers(name) == []
