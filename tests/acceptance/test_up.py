"""`faas up`: everything runs, is kept running, and goes as a whole."""

import signal

import psutil
import pytest

from services.supervisor.state import PartState
from tests.acceptance.stack import Stack, running
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
    if name == sorted(PARTS | {"worker-1"})[0]:
        stack.create("survivor", GREET)
    before = stack.part(name)
    psutil.Process(before.pid).kill()

    def back() -> bool:
        after = stack.part(name)
        return after.restarts > before.restarts and after.state is PartState.SERVING

    wait_until(back, f"{name} serves again", 60)
    wait_until(stack.is_healthy, "the whole serves again", 60)
    assert stack.invoke("survivor", name)["result"] == f"hello {name}"


def test_killed_it_leaves_nothing_and_loses_nothing(directory) -> None:
    with running(directory / "data") as stack:
        stack.create("greet", GREET)
        record = stack.invoke("greet", "before")
        everything = stack.processes()
        assert len(everything) > len(PARTS)
        stack.process.kill()
        psutil.wait_procs(everything, timeout=5)
        # Whoever adopts them may be slow to reap them.
        left = [p for p in everything if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert left == []
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
        assert [p for p in everything[1:] if p.is_running()] == []
        assert not run_dir.exists()
        assert "database system is shut down" in stack.log("postgres")
