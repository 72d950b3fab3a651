"""Warm sandboxes in a real engine: used again, told apart, let go."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from faas.v1.invocation_pb2 import Invocation
from services.worker.docker_runtime import DockerRuntime
from services.worker.pool import Budget
from services.worker.runtime import FunctionSpec, RuntimeUnavailable
from tests.conformance import functions
from tests.conformance.conftest import LIMITS, Bench
from tests.integration.test_docker_sandboxes import containers, directory, docker
from tests.mesh import eventually

__all__ = ["directory"]
pytestmark = pytest.mark.docker

LANGUAGES = ["python", "node", "go"]
Make = Callable[..., Awaitable[Bench]]

COUNT = {
    "python": "count = 0\ndef handler(p):\n    global count\n    count += 1\n    return count\n",
    "node": "let count = 0;\nexports.handler = () => ++count;\n",
    "go": functions.go("count++\n\treturn count, nil") + "\nvar count = 0\n",
}
PROGRAM_COUNT = {
    "python": "import os\ncount = len(os.listdir('/tmp'))\nopen(f'/tmp/{count}', 'w').close()\n"
    "print(open(os.environ['FUNCTION_PAYLOAD_FILE']).read(), count, os.getpid())\n",
}
SAY = {
    "python": "import sys\ndef handler(p):\n"
    "    print('out', p)\n    print('err', p, file=sys.stderr)\n",
    "node": "exports.handler = (p) => { console.log('out', p); console.error('err', p); };\n",
    "go": functions.go(
        'fmt.Println("out", string(payload))\n'
        '\tfmt.Fprintln(os.Stderr, "err", string(payload))\n\treturn nil, nil',
        "fmt",
        "os",
    ),
}
FAIL_ODD = {
    "python": "count = 0\ndef handler(p):\n    global count\n    count += 1\n"
    "    if p % 2: raise ValueError(count)\n    return count\n",
    "node": "let count = 0;\nexports.handler = (p) => { count++;"
    " if (p % 2) throw new Error(String(count)); return count; };\n",
    "go": functions.go(
        'count++\n\tif string(payload) == "1" {\n\t\treturn nil, errors.New("odd")\n\t}\n'
        "\treturn count, nil",
        "errors",
    )
    + "\nvar count = 0\n",
}
LEAVE = {
    "python": "import subprocess\ndef handler(p):\n"
    "    subprocess.Popen(['sleep', '100'], start_new_session=True)\n",
    "node": "const { spawn } = require('child_process');\nexports.handler = () => {"
    " spawn('sleep', ['100'], { detached: true, stdio: 'ignore' }).unref(); };\n",
    "go": functions.go('exec.Command("sleep", "100").Start()\n\treturn nil, nil', "os/exec"),
}


@pytest.fixture
async def make(docker_engine: Path, directory: Path) -> AsyncIterator[Make]:
    """Makes benches whose runtime keeps sandboxes warm within a budget."""
    runtimes = []

    async def make(*, one_shot: bool = False, **budget: Any) -> Bench:
        values = {"sandboxes": 8, "memory_mb": 4096, "cores": 2, **budget}
        runtime = DockerRuntime(
            work_dir=directory / "w",
            stack=uuid4().hex,
            worker_id="worker-1",
            boot_id=str(uuid4()),
            limits=LIMITS,
            network="none",
            engine_socket=docker_engine,
            budget=Budget(**values),
            one_shot=one_shot,
        )
        runtimes.append(runtime)
        await runtime.start()
        return Bench(runtime, directory / "functions")

    yield make
    for runtime in runtimes:
        await runtime.close()
    assert not containers(directory)
    assert not [path for path in (directory / "w").glob("*/*") if ".boots" not in path.parts]


async def found(directory: Path) -> list[dict[str, Any]]:
    return await asyncio.to_thread(containers, directory)


async def results(bench: Bench, spec: FunctionSpec, *payloads: bytes) -> list[Any]:
    return [json.loads((await bench.run(spec, payload)).verdict.result) for payload in payloads]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_module_state_is_kept_between_calls(make: Make, language: str) -> None:
    bench = await make()
    spec = bench.spec(language, COUNT[language])
    kinds, loads = [], []
    for expected in (1, 2, 3):
        ran = await bench.run(spec)
        assert json.loads(ran.verdict.result) == expected
        assert ran.verdict.cpu_time_s is not None
        kinds.append(ran.verdict.start_kind)
        loads.append(ran.verdict.load_s)
    assert loads[0] is not None
    assert loads[0] > 0
    assert loads[1:] == [None, None]
    assert kinds == [Invocation.COLD, Invocation.WARM, Invocation.WARM]


async def test_a_program_is_a_fresh_process_in_the_same_sandbox(make: Make) -> None:
    bench = await make()
    spec = bench.spec("python", PROGRAM_COUNT["python"], "main")
    first, second = await results(bench, spec, b"1", b"2")
    assert first.split()[:2] == ["1", "0"]
    assert second.split()[:2] == ["2", "1"]
    assert first.split()[2] != second.split()[2]


async def test_versions_never_share_a_sandbox(make: Make, directory: Path) -> None:
    bench = await make()
    one = bench.spec("python", COUNT["python"])
    other = bench.spec("python", COUNT["python"])
    assert await results(bench, one, b"1", b"1") == [1, 2]
    assert await results(bench, other, b"1") == [1]
    assert len(await found(directory)) == 2


@pytest.mark.parametrize("language", LANGUAGES)
async def test_output_is_the_invocations_own(make: Make, language: str) -> None:
    bench = await make()
    spec = bench.spec(language, SAY[language])
    for number in range(20):
        ran = await bench.run(spec, str(number).encode())
        assert sorted(ran.texts) == [f"err {number}", f"out {number}"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_functions_own_error_costs_no_sandbox(make: Make, language: str) -> None:
    bench = await make()
    spec = bench.spec(language, FAIL_ODD[language])
    assert (await bench.run(spec, b"1")).verdict.failure is not None
    assert await results(bench, spec, b"2") == [2]


SPOILS = {
    "crash": functions.EXIT,
    "timeout": functions.SLEEP,
    "out of memory": functions.MEMORY,
    "flood": functions.FLOOD,
    "left process": LEAVE,
}


@pytest.mark.parametrize("sources", SPOILS.values(), ids=SPOILS)
@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_spoils_a_sandbox(
    make: Make, directory: Path, language: str, sources: dict[str, str]
) -> None:
    bench = await make()
    spec = bench.spec(language, sources[language], memory_mb=128)
    for _ in range(2):
        ran = await bench.run(spec, timeout_s=2 if sources is functions.SLEEP else 60)
        assert ran.verdict.start_kind == Invocation.COLD
        assert await found(directory) == []


async def test_prewarmed_sandboxes_become_a_functions(make: Make, directory: Path) -> None:
    bench = await make(prewarmed=dict.fromkeys(LANGUAGES, 1))

    async def up() -> bool:
        return sum(one["State"]["Running"] for one in await found(directory)) == 3

    for language in LANGUAGES:
        await eventually("one of each is up", up, timeout_s=120)
        await asyncio.sleep(0)
        spec = bench.spec(language, COUNT[language], memory_mb=192, env={"KEY": "value"})
        await bench.built(spec)
        before = {one["Id"] for one in await found(directory)}
        ran = await bench.run(spec)
        assert json.loads(ran.verdict.result) == 1
        seen = {one["Id"]: one for one in await found(directory)}
        (mine,) = [one for one in seen.values() if one["HostConfig"]["Memory"] == 192 * 1024 * 1024]
        assert mine["Id"] in before
        assert ran.verdict.start_kind in (Invocation.PREWARMED, Invocation.COLD)
        assert await results(bench, spec, b"0") == [2]
        await asyncio.to_thread(docker, "rm", "-f", mine["Id"])


async def test_an_idle_sandbox_goes(make: Make, directory: Path) -> None:
    bench = await make(idle_s=0.5)
    await bench.run(bench.spec("python", COUNT["python"]))

    async def gone() -> bool:
        return not await found(directory)

    await eventually("it is gone", gone)


async def test_one_that_is_killed_while_it_is_idle_is_replaced(make: Make, directory: Path) -> None:
    bench = await make()
    spec = bench.spec("python", COUNT["python"])
    await bench.run(spec)
    (idle,) = await found(directory)
    await asyncio.to_thread(docker, "kill", idle["Id"])

    async def gone() -> bool:
        return not await found(directory)

    await eventually("it is gone", gone)
    assert await results(bench, spec, b"0") == [1]


async def test_what_is_kept_is_up_before_a_call_and_is_replaced(
    make: Make, directory: Path
) -> None:
    bench = await make(idle_s=0.2)
    spec = bench.spec("python", COUNT["python"])

    async def ready(number: int, *, without: str = "") -> None:
        async def up() -> bool:
            running = [one["Id"] for one in await found(directory) if one["State"]["Running"]]
            return len(running) == number and without not in running

        # One that was killed before it was up is not tried again at once.
        await eventually(f"{number} are there", up, 120)

    bench.runtime.keep([(spec, 2)])
    await ready(2)
    ran = await bench.run(spec)
    assert ran.verdict.start_kind in (Invocation.PREWARMED, Invocation.COLD)
    killed = (await found(directory))[0]["Id"]
    await asyncio.to_thread(docker, "kill", killed)
    await ready(2, without=killed)
    bench.runtime.keep([])
    await ready(0)


async def test_a_function_may_choose_otherwise_than_the_worker(make: Make, directory: Path) -> None:
    bench = await make()
    warm = bench.spec("python", COUNT["python"])
    fresh = replace(bench.spec("python", COUNT["python"]), one_shot=True)
    assert await results(bench, warm, b"0", b"0") == [1, 2]
    assert await results(bench, fresh, b"0", b"0") == [1, 1]
    assert len(await found(directory)) == 1
    other = await make(one_shot=True)
    assert await results(other, replace(warm, one_shot=False), b"0", b"0") == [1, 2]
    assert await results(other, replace(fresh, one_shot=None), b"0", b"0") == [1, 1]
    assert len(await found(directory)) == 2


async def test_memory_is_shared_within_the_budget(make: Make, directory: Path) -> None:
    bench = await make(memory_mb=256)
    specs = [bench.spec("python", COUNT["python"], memory_mb=128) for _ in range(4)]
    for spec in specs * 2:
        assert (await bench.run(spec)).verdict.failure is None
        assert len(await found(directory)) <= 2
    large = bench.spec("python", COUNT["python"], memory_mb=512)
    with pytest.raises(RuntimeUnavailable, match="512 MiB"):
        await bench.run(large)


async def test_a_burst_is_served_by_few(make: Make, directory: Path) -> None:
    bench = await make(sandboxes=32)
    spec = bench.spec("python", functions.ECHO["python"])
    counts = []

    async def count() -> None:
        while True:
            counts.append(len(await found(directory)))
            await asyncio.sleep(0.05)

    counting = asyncio.create_task(count())
    ran = await asyncio.gather(*(bench.run(spec, str(n).encode()) for n in range(32)))
    counting.cancel()
    # Idle ones stay, so those that came and were not looked at are there now.
    counts.append(len(await found(directory)))
    assert [json.loads(one.verdict.result) for one in ran] == list(range(32))
    assert max(counts) < 16


async def test_a_cancelled_wait_takes_nothing(make: Make, directory: Path) -> None:
    bench = await make(sandboxes=1)
    spec = bench.spec("python", functions.SLEEP["python"])
    printed = asyncio.Event()
    execution = bench.runtime.execute(bench.assignment(spec), lambda _: printed.set())
    holding = asyncio.create_task(execution)
    async with asyncio.timeout(60):
        await printed.wait()
    waiting = asyncio.create_task(bench.run(bench.spec("python", COUNT["python"])))
    await asyncio.sleep(0)
    waiting.cancel()
    holding.cancel()
    await asyncio.wait({waiting, holding})
    assert await found(directory) == []
    assert await results(bench, bench.spec("python", COUNT["python"]), b"0") == [1]
