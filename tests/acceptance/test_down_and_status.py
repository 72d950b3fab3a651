"""`faas up --detach`, `faas status`, `faas down`."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from services.supervisor.layout import Layout
from tests.acceptance.stack import START_TIMEOUT_S, Stack, alive, faas
from tests.conftest import wait_until


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [faas(), *arguments], capture_output=True, text=True, timeout=START_TIMEOUT_S
    )


@pytest.fixture
def detached(directory: Path) -> Iterator[Path]:
    """The data directory of a stack in the background."""
    data = directory / "data"
    options = ("--port", "0", "--runtime", "process", "--workers", "1", "--detach")
    started = run("up", "--data-dir", str(data), *options)
    assert started.returncode == 0, started.stdout + started.stderr
    assert "faas is up: http://127.0.0.1:" in started.stdout
    yield data
    run("down", "--data-dir", str(data))


def test_in_the_background_and_down_again(detached: Path) -> None:
    at = ("--data-dir", str(detached))
    shown = run("status", *at)
    assert shown.returncode == 0
    for name in ("postgres", "valkey", "functions", "invocations", "gateway", "envoy", "worker-1"):
        assert name in shown.stdout

    status = json.loads(run("status", *at, "-o", "json").stdout)
    assert status["data_dir"] == str(detached)
    assert {part["state"] for part in status["parts"]} == {"serving"}

    # What it prints, and nobody reads any more, must not end it.
    part = psutil.Process(next(p["pid"] for p in status["parts"] if p["name"] == "envoy"))
    part.kill()

    def restarted() -> bool:
        parts = json.loads(run("status", *at, "-o", "json").stdout)["parts"]
        envoy = next(part for part in parts if part["name"] == "envoy")
        return envoy["restarts"] == 1 and envoy["state"] == "serving"

    wait_until(restarted, "Envoy is started again", 60)
    assert "envoy was ended by SIGKILL" in Layout.of(detached).log("supervisor").read_text()

    everything = [
        psutil.Process(part["pid"]) for part in status["parts"] if part["name"] != "envoy"
    ]
    ended = run("down", *at)
    assert ended.returncode == 0
    assert "Ended." in ended.stdout
    assert alive(everything) == []
    assert run("status", *at).returncode == 3


def test_what_does_not_run(directory: Path) -> None:
    at = ("--data-dir", str(directory / "nothing"))
    shown = run("status", *at)
    assert (shown.returncode, shown.stdout.strip()) == (3, "Nothing runs here.")
    assert json.loads(run("status", *at, "-o", "json").stdout) is None
    ended = run("down", *at)
    assert (ended.returncode, ended.stdout.strip()) == (0, "Nothing runs here.")
    assert not (directory / "nothing").exists()


def test_down_kills_no_stranger(stack: Stack, directory: Path) -> None:
    """A state file that survived its stack, whose number is somebody else's by now."""
    layout = Layout.of(directory / "data")
    layout.make_data_dir()
    old = stack.status
    old.birth = "somebody-else"
    old.write(layout.state)
    layout.lock.touch()
    ended = run("down", "--data-dir", str(layout.data_dir))
    assert (ended.returncode, ended.stdout.strip()) == (0, "Nothing runs here.")
    assert run("status", "--data-dir", str(layout.data_dir)).returncode == 3
    assert stack.process.poll() is None
