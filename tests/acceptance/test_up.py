"""`faas up`: everything runs, is kept running, and goes as a whole."""

import contextlib
import signal

import psutil
import pytest

from services.supervisor.state import PartState, is_locked
from tests.acceptance.stack import Stack, alive, running
from tests.conftest import wait_until

GREET = """
def handler(payload, context):
    return f"hello {payload}"
"""
PARTS = {"postgres", "valkey", "functions", "invocations", "gateway", "envoy"}


def test_a_function_runs_through_envoy(stack: Stack) -> None:
    stack.create("greet", GREET)
    record = stack.invoke("greet", "world")
    assert record["status"] == "COMPLETED"
    assert record["result"] == "hello world"


def test_every_part_serves(stack: Stack) -> None:
    assert {part.name for part in stack.status.parts} == PARTS | {"worker-1", "worker-2"}
    assert {part.state for part in stack.status.parts} == {PartState.SERVING}
    assert all(part.is_alive() for part in stack.status.parts)
    with stack.client() as client:
        health = client.get("/health").json()
    assert health["status"] == "SERVING"


@pytest.mark.parametrize("name", sorted(PARTS | {"worker-1"}))
def test_a_killed_part_is_started_again(stack: Stack, name: str) -> None:
    stack.create(f"survivor-of-{name}", GREET)
    before = stack.part(name)
    psutil.Process(before.pid).kill()

    def back() -> bool:
        after = stack.part(name)
        return after.restarts > before.restarts and after.state is PartState.SERVING

    wait_until(back, f"{name} serves again", 60)
    wait_until(stack.is_healthy, "the whole serves again", 60)
    assert stack.invoke(f"survivor-of-{name}", name)["result"] == f"hello {name}"


def test_killed_it_leaves_nothing_and_loses_nothing(directory) -> None:
    with running(directory / "data") as stack:
        stack.create("greet", GREET)
        record = stack.invoke("greet", "before")
        everything = stack.processes()
        assert len(everything) > len(PARTS)
        stack.process.kill()
        gone(everything)
    with running(directory / "data") as stack:
        with stack.client() as client:
            assert client.get(f"/invocations/{record['id']}").json() == record
        again = stack.invoke("greet", "again")
        assert again["status"] == "COMPLETED", again


def test_sigterm_ends_it_in_order(directory) -> None:
    with running(directory / "data") as stack:
        everything = stack.processes()
        run_dir = stack.run_dir
        stack.process.send_signal(signal.SIGTERM)
        assert stack.process.wait(90) == 0
        assert alive(everything[1:]) == []
        assert not run_dir.exists()
        assert "database system is shut down" in stack.log("postgres")


def test_two_stacks_stand_side_by_side(stack: Stack, directory) -> None:
    with running(directory / "other", "--workers", "1") as other:
        assert other.url != stack.url
        other.create("only-here", GREET)
        assert other.invoke("only-here", "you")["result"] == "hello you"
        with stack.client() as client:
            assert client.get("/functions/only-here").status_code == 404
    assert stack.is_healthy()


def test_a_killed_watchdog_is_started_again(directory) -> None:
    with running(directory / "data", "--workers", "1") as stack:
        first = watchdog(stack)
        first.kill()
        wait_until(lambda: watchdog(stack) not in (None, first), "another watchdog", 30)
        everything = stack.processes()
        stack.process.kill()
        gone(everything)
        wait_until(lambda: not is_locked(stack.layout), "the data directory is free", 10)
        assert not stack.layout.run_dir.exists()


def test_killed_with_its_watchdog_it_leaves_what_the_next_start_ends(directory) -> None:
    with running(directory / "data", "--workers", "1") as stack:
        everything = stack.processes()
        watchdog(stack).kill()
        stack.process.kill()
        stack.process.wait(10)
        # The kernel has asked each of them to end; whether it had to is not looked at.
    with running(directory / "data", "--workers", "1") as stack:
        gone(everything)
        assert stack.is_healthy()


def watchdog(stack: Stack) -> psutil.Process | None:
    """The watchdog's process."""
    for process in psutil.Process(stack.process.pid).children():
        # A dead one that is not reaped yet has no command line.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "services.supervisor.watchdog" in process.cmdline():
                return process
    return None


def gone(processes: list[psutil.Process]) -> None:
    """All of these are gone within five seconds."""
    psutil.wait_procs(processes, timeout=5)
    assert alive(processes) == []
