"""Workers: what they say of themselves, draining, and their end."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import CancelInvocationRequest, ListWorkersRequest
from faas.v1.worker_pb2 import (
    DrainWorkerRequest,
    Execution,
    GetWorkerRequest,
    ResumeWorkerRequest,
    Worker,
)
from faas.v1.worker_service_pb2 import ListExecutionsRequest
from services.errors import InvalidField, WorkerNotFound
from services.ids import WORKER, new_uuid, show
from tests.integration.functions import refused
from tests.mesh import QUEUE, Mesh, eventually

WAIT_S = 90
HOLD = """
import pathlib, time

def handler(payload):
    pathlib.Path(payload["started"]).touch()
    while not pathlib.Path(payload["release"]).exists():
        time.sleep(0.02)
    return "released"
"""


async def held(mesh: Mesh, name: str) -> tuple[Invocation, Path]:
    """An invocation that runs until its file is there."""
    started, release = (mesh.directory / f"{name}.{part}" for part in ("started", "release"))
    payload = {"started": str(started), "release": str(release)}
    made = await mesh.invoke("hold", payload)

    async def runs() -> bool:
        return started.exists()

    await eventually("its start", runs, WAIT_S)
    return made, release


async def itself(mesh: Mesh, name: str = "worker-1") -> Worker:
    return await mesh.worker(name).GetWorker(GetWorkerRequest())


async def test_what_workers_say_of_themselves(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1", "worker-2", concurrency=3)
    one, two = await itself(mesh), await itself(mesh, "worker-2")
    assert one.id.startswith("worker-")
    assert one.id != two.id
    assert (one.state, one.concurrency, one.running) == (Worker.READY, 3, 0)
    assert {(r.name, r.image) for r in one.runtimes} >= {("python", "process")}
    assert one.host
    assert one.version
    assert one.HasField("started_at")
    # A process serves one invocation: there is nothing to hold.
    assert not one.HasField("budget")
    assert not one.sandboxes

    async def both() -> list[Worker]:
        found = (await mesh.invocations.ListWorkers(ListWorkersRequest())).workers
        return list(found) if len(found) == 2 else []

    listed = await eventually("both workers", both)
    assert [worker.id for worker in listed] == sorted([one.id, two.id])
    assert all(worker.HasField("last_seen_at") for worker in listed)
    page = await mesh.invocations.ListWorkers(ListWorkersRequest(page_size=1))
    rest = await mesh.invocations.ListWorkers(
        ListWorkersRequest(page_size=1, page_token=page.next_page_token)
    )
    assert [page.workers[0].id, rest.workers[0].id] == sorted([one.id, two.id])
    assert rest.next_page_token == ""
    found = await mesh.invocations.GetWorker(GetWorkerRequest(worker_id=one.id))
    assert (found.id, found.boot_id, found.state) == (one.id, one.boot_id, Worker.READY)
    # Each answers for itself alone.
    own = mesh.worker("worker-1")
    await refused(own.GetWorker(GetWorkerRequest(worker_id=two.id)), WorkerNotFound)
    await refused(own.DrainWorker(DrainWorkerRequest(worker_id=two.id)), WorkerNotFound)
    unknown = show(WORKER, new_uuid())
    for wrong in (unknown, "", "worker-1", "x"):
        request = GetWorkerRequest(worker_id=wrong)
        await refused(mesh.invocations.GetWorker(request), WorkerNotFound)
        await refused(
            mesh.invocations.DrainWorker(DrainWorkerRequest(worker_id=wrong)), WorkerNotFound
        )
    request = GetWorkerRequest(worker_id="x" * 65)
    await refused(mesh.invocations.GetWorker(request), InvalidField, "worker_id")


@pytest.mark.docker
async def test_the_sandboxes_that_it_holds(mesh: Mesh, docker_engine: Path) -> None:
    settings = {"runtime": "docker", "network": "none", "prewarmed": 1, "max_sandboxes": 20}
    await mesh.start("functions", "invocations")
    await mesh.start("worker-1", docker_socket=docker_engine, **settings)
    echo = await mesh.create("echo", memory_mb=64)
    naps = await mesh.create("naps", "import time\ndef handler(p):\n    time.sleep(600)\n")

    async def holds(function_id: str, *expected: Worker.Sandboxes) -> Worker.Budget:
        """Wait until the list of workers shows just this of a function."""

        async def shown() -> Worker.Budget | None:
            [worker] = (await mesh.invocations.ListWorkers(ListWorkersRequest())).workers
            found = [one for one in worker.sandboxes if one.function_id == function_id]
            found.sort(key=lambda one: one.runtime)
            return worker.budget if found == list(expected) else None

        return await eventually(f"sandboxes of {function_id or 'nobody'}", shown, WAIT_S)

    prewarmed = [
        Worker.Sandboxes(runtime=runtime, ready=1, memory_mb=128)
        for runtime in ("go", "node", "python")
    ]
    budget = await holds("", *prewarmed)
    assert (budget.sandboxes, budget.held, budget.held_memory_mb) == (20, 3, 384)
    assert budget.memory_mb > 384

    done = await mesh.invoke("echo", 1, wait_s=WAIT_S)
    assert done.status == Invocation.COMPLETED
    its = {"runtime": "python", "function_id": echo.id, "function_version": 1}
    await holds(echo.id, Worker.Sandboxes(**its, ready=1, memory_mb=64))

    made = await mesh.invoke("naps")
    its["function_id"] = naps.id
    await holds(naps.id, Worker.Sandboxes(**its, in_use=1, memory_mb=128))
    await mesh.invocations.CancelInvocation(CancelInvocationRequest(invocation_id=made.id))
    await holds(naps.id)
    # All others are as they were.
    budget = await holds("", *prewarmed)
    assert budget.held >= 4


async def test_its_executions(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("hold", HOLD)
    worker = mesh.worker("worker-1")
    assert not (await worker.ListExecutions(ListExecutionsRequest())).executions
    made, release = await held(mesh, "one")
    executions = (await worker.ListExecutions(ListExecutionsRequest())).executions
    assert [(x.invocation_id, x.function_id, x.attempt, x.state) for x in executions] == [
        (made.id, made.function_id, 1, Execution.RUNNING)
    ]
    assert (await itself(mesh)).running == 1
    release.touch()
    await mesh.get(made.id, wait_s=WAIT_S)

    async def none_left() -> bool:
        return not (await worker.ListExecutions(ListExecutionsRequest())).executions

    await eventually("no executions", none_left)


@pytest.mark.parametrize("through", ["the service", "its own server"])
async def test_a_drained_worker_finishes_and_takes_nothing_new(mesh: Mesh, through: str) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("hold", HOLD)
    await mesh.create("echo")
    running, release = await held(mesh, "running")
    stub = mesh.invocations if through == "the service" else mesh.worker("worker-1")
    worker_id = (await itself(mesh)).id
    answer = await stub.DrainWorker(DrainWorkerRequest(worker_id=worker_id))
    assert answer.state == Worker.DRAINING

    async def state() -> Worker.State.ValueType:
        return (await mesh.invocations.GetWorker(GetWorkerRequest(worker_id=worker_id))).state

    async def is_draining() -> bool:
        return await state() == Worker.DRAINING

    await eventually("it drains", is_draining)
    waiting = await mesh.invoke("echo", "later")
    release.touch()
    assert (await mesh.get(running.id, wait_s=WAIT_S)).status == Invocation.COMPLETED

    async def is_drained() -> bool:
        return await state() == Worker.DRAINED

    await eventually("it has drained", is_drained)
    assert (await itself(mesh)).state == Worker.DRAINED
    assert (await mesh.get(waiting.id)).status == Invocation.PENDING
    assert (await mesh.get(waiting.id)).attempt == 0
    await stub.ResumeWorker(ResumeWorkerRequest(worker_id=worker_id))
    done = await mesh.get(waiting.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 1)

    async def is_ready() -> bool:
        return await state() == Worker.READY

    await eventually("it is ready", is_ready)


async def test_a_worker_that_is_ended_finishes_what_it_runs(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1")
    await mesh.create("hold", HOLD)
    made, release = await held(mesh, "one")
    mesh.signal("worker-1", signal.SIGTERM)

    async def is_draining() -> bool:
        return (await itself(mesh)).state == Worker.DRAINING

    await eventually("it drains", is_draining)
    await mesh.worker("worker-1").ResumeWorker(ResumeWorkerRequest())
    assert await is_draining(), "whoever ends a worker means it"
    release.touch()
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 1)
    assert await mesh.stop("worker-1") == 0
    assert await mesh.queue_is_empty()
    assert not (await mesh.invocations.ListWorkers(ListWorkersRequest())).workers
    assert not list((mesh.directory / "work").glob("func-*"))


async def test_what_does_not_end_in_time_is_given_to_another(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", lost_backoff_s=0.1)
    await mesh.start("worker-1", drain_timeout_s=0.2)
    await mesh.create("hold", HOLD)
    made, release = await held(mesh, "one")
    assert await mesh.stop("worker-1") == 0
    assert (await mesh.get(made.id)).status == Invocation.PENDING
    release.touch()
    await mesh.start("worker-2")
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 2)

    await eventually("an empty queue", mesh.queue_is_empty)


async def test_the_other_completes_what_a_killed_worker_ran(mesh: Mesh) -> None:
    """With the leases of production: within 45 s."""
    await mesh.start("functions", "invocations")
    await mesh.create("hold", HOLD)
    await mesh.start("worker-1", heartbeat_interval_s=5)
    made, release = await held(mesh, "one")
    await mesh.start("worker-2", heartbeat_interval_s=5)
    await mesh.kill("worker-1")
    release.touch()
    async with asyncio.timeout(45):
        done = await mesh.get(made.id, wait_s=60)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 2)
    assert done.worker_id == (await itself(mesh, "worker-2")).id
    states = {w.state for w in (await mesh.invocations.ListWorkers(ListWorkersRequest())).workers}
    assert states == {Worker.READY, Worker.LOST}
    await eventually("an empty queue", mesh.queue_is_empty)


async def test_a_function_that_outlives_its_killed_worker_is_ended(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", lease_s=2, lost_backoff_s=0.1)
    await mesh.create(
        "pid",
        "import os, pathlib, time\n\ndef handler(payload):\n"
        "    pathlib.Path(payload).write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n",
    )
    await mesh.start("worker-1")
    file = mesh.directory / "pid"
    await mesh.invoke("pid", str(file))

    async def process() -> int:
        return int(file.read_text() or 0) if file.exists() else 0

    pid = await eventually("its process", process)
    await mesh.kill("worker-1")

    async def gone() -> bool:
        return not Path(f"/proc/{pid}").exists()

    await eventually("its end", gone)


async def test_a_worker_back_under_a_new_boot_is_the_same_worker(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", lease_s=2, lost_backoff_s=0.1)
    await mesh.create("hold", HOLD)
    await mesh.start("worker-1")
    before = await itself(mesh)
    made, release = await held(mesh, "one")
    await mesh.kill("worker-1")
    await mesh.start("worker-1")
    after = await itself(mesh)
    assert (after.id, after.boot_id != before.boot_id) == (before.id, True)
    release.touch()
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 2)
    await eventually("an empty queue", mesh.queue_is_empty)
    assert not list((mesh.directory / "work").glob("func-*"))


async def test_a_worker_that_slept_through_its_lease_changes_nothing(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", lease_s=2, lost_backoff_s=0.1)
    await mesh.create("hold", HOLD)
    await mesh.start("worker-1")
    made, release = await held(mesh, "one")
    mesh.signal("worker-1", signal.SIGSTOP)

    async def is_pending() -> bool:
        return (await mesh.get(made.id)).status == Invocation.PENDING

    await eventually("its loss", is_pending, WAIT_S)
    await mesh.start("worker-2")
    release.touch()
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.COMPLETED, 2)
    mesh.signal("worker-1", signal.SIGCONT)
    # It learns that its boot is dead, drops all and ends, to be started anew.
    code = await asyncio.to_thread(mesh.processes.pop("worker-1").wait, 60)
    assert code == 75
    assert await mesh.get(made.id) == done


async def test_a_second_loss_is_the_last(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", lease_s=2, lost_backoff_s=0.1)
    code = "import os, signal\n\ndef handler(payload):\n    os.kill(os.getppid(), signal.SIGKILL)\n"
    await mesh.create("killer", code)
    made = await mesh.invoke("killer")
    for _ in range(2):
        mesh.begin("worker-1")
        await asyncio.to_thread(mesh.processes.pop("worker-1").wait, 120)
    done = await mesh.get(made.id, wait_s=WAIT_S)
    assert (done.status, done.attempt) == (Invocation.DEAD_LETTERED, 2)
    assert done.error.code == Invocation.WORKER_LOST
    assert done.error.message


async def test_a_worker_takes_no_more_than_it_may(mesh: Mesh) -> None:
    await mesh.start("functions", "invocations", "worker-1", concurrency=2)
    await mesh.create("hold", HOLD)
    first, second = await held(mesh, "a"), await held(mesh, "b")
    waiting = await mesh.invoke("hold", {"started": "/dev/null", "release": "/dev/null"})
    assert (await itself(mesh)).running == 2
    assert (await mesh.get(waiting.id)).status == Invocation.PENDING
    message = json.loads(await mesh.redis.lindex(QUEUE, 0))
    assert message["invocation_id"] == waiting.id
    for _, release in (first, second):
        release.touch()
    assert (await mesh.get(waiting.id, wait_s=WAIT_S)).status == Invocation.COMPLETED
