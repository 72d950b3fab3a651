"""The Python client against real servers, through Envoy."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import faas
from faas.json_values import to_python
from faas.v1.function_pb2 import FunctionVersion
from tests.conftest import wait_until
from tests.integration.gateway import free_port
from tests.platform import Platform

ECHO = "def handler(payload, context):\n    return payload\n"
SLOW = """
import time
def handler(payload, context):
    print("started")
    time.sleep(payload)
    print("ended")
    return payload
"""
GO_ECHO = """package main

import (
	"context"
	"encoding/json"
)

func Handler(ctx context.Context, payload json.RawMessage) (any, error) {
	return payload, nil
}
"""
FAILS = """
def inner(size):
    raise ValueError(f"no such size: {size}")

def handler(payload):
    return inner(payload["size"])
"""

_numbers = itertools.count()


@pytest.fixture
def client(platform: Platform):
    with faas.Client(platform.url) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"sdk-{os.getpid()}-{next(_numbers)}"


def shout(payload, context=None):
    return payload.upper()


@pytest.mark.parametrize(
    "payload", [None, 3, 2**53, 1.5, "ä", True, [1, [2, {}]], {"a": {"b": []}}]
)
def test_a_call_returns_the_result(client: faas.Client, payload):
    fn = client.deploy(ECHO, name="sdk-echo", runtime="python")
    result = fn(payload)
    assert result == payload
    assert type(result) is type(payload)


def test_a_failure_carries_record_and_stack(client: faas.Client, name):
    fn = client.deploy(FAILS, name=name, runtime="python")
    with pytest.raises(faas.FunctionFailed) as caught:
        fn({"size": 9})
    failure = caught.value
    assert failure.code == "FUNCTION_ERROR"
    assert failure.record.error.type == "ValueError"
    assert to_python(failure.record.payload) == {"size": 9}
    assert 'File "main.py", line 3, in inner' in str(failure)
    assert "shim" not in str(failure)


def test_submit_does_not_wait(client: faas.Client, name):
    fn = client.deploy(SLOW, name=name, runtime="python")
    invocation = fn.submit(0.3, labels={"team": "search"})
    assert not invocation.ended
    with pytest.raises(faas.WaitTimeout) as caught:
        invocation.result(0)
    assert caught.value.invocation_id == invocation.id
    assert invocation.result(60) == 0.3
    assert invocation.status == "COMPLETED"
    again = client.invocation(invocation.id)
    assert again.result() == 0.3
    assert again.record.labels == {"team": "search"}
    assert [line.text for line in again.logs()] == ["started", "ended"]


def test_logs_are_followed_to_the_end(client: faas.Client, name):
    fn = client.deploy(SLOW, name=name, runtime="python")
    assert [line.text for line in fn.submit(1).logs(follow=True)] == ["started", "ended"]


def test_a_watch_tells_states_and_lines(client: faas.Client, name):
    fn = client.deploy(SLOW, name=name, runtime="python")
    invocation = fn.submit(0.5)
    events = list(invocation.watch())
    assert [line.text for event in events for line in event.lines] == ["started", "ended"]
    assert events[-1].last
    assert invocation.status == "COMPLETED"
    assert invocation.result() == 0.5
    assert invocation.payload == 0.5
    assert list(invocation.watch(events[-2].cursor)) == events[-1:]


def test_a_watch_outlives_the_gateway(platform: Platform, client: faas.Client, name):
    fn = client.deploy(SLOW, name=name, runtime="python")
    invocation = fn.submit(3)
    lines = invocation.logs(follow=True)
    assert next(lines).text == "started"
    platform.envoy.stop()
    platform.envoy.start()
    assert [line.text for line in lines] == ["ended"]


def test_a_request_id_makes_one_invocation(client: faas.Client, name):
    fn = client.deploy(ECHO, name=name, runtime="python")
    first = fn.submit(1, request_id="order-7")
    assert fn.submit(1, request_id="order-7").id == first.id
    assert fn.submit(1).id != first.id
    with pytest.raises(faas.RequestIdReused):
        fn.submit(2, request_id="order-7")


def test_what_was_cancelled_has_no_result(client: faas.Client, name):
    fn = client.deploy(SLOW, name=name, runtime="python")
    invocation = fn.submit(60)
    assert invocation.cancel().status == invocation.cancel().status
    assert invocation.status == "CANCELLED"
    with pytest.raises(faas.FunctionFailed) as caught:
        invocation.result()
    assert caught.value.code == "CANCELLED"
    done = fn.submit(0)
    done.wait()
    with pytest.raises(faas.InvocationEnded):
        done.cancel()
    fn.pause()
    waiting = [fn.submit(0) for _ in range(3)]
    assert fn.cancel_all(status="pending") == 3
    assert {i.refresh().status for i in waiting} == {invocation.record.status}
    fn.resume()
    assert fn(0) == 0


def test_a_raw_call_keeps_every_byte(client: faas.Client, name):
    fn = client.deploy(ECHO, name=name, runtime="python")
    digits = b'{"n": 12345678901234567890123}'
    answer = fn.call(digits, content_type="application/json")
    assert answer.data == b'{"n":12345678901234567890123}'
    assert answer.content_type == "application/json"
    assert client.invocation(answer.invocation_id).refresh().function_name == name
    fails = client.deploy(FAILS, name=f"{name}-f", runtime="python")
    with pytest.raises(faas.NoResult) as caught:
        fails.call('{"size": 9}', content_type="application/json")
    assert caught.value.metadata["code"] == "FUNCTION_ERROR"


def test_large_bodies_go_from_file_to_file(client: faas.Client, name, tmp_path: Path):
    fn = client.deploy(ECHO, name=name, runtime="python")
    data = bytes(range(256)) * 12 * 1024  # 3 MiB
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    with target.open("wb") as file:
        answer = fn.call(source, content_type="a/b", to=file)
    assert (answer.data, answer.size_bytes) == (b"", len(data))
    assert target.read_bytes() == data
    with source.open("rb") as file:
        assert fn.call(file).data == data
    invocation = client.invocation(answer.invocation_id)
    assert b"".join(invocation.read_payload()) == data
    assert b"".join(invocation.read_result()) == data
    assert invocation.refresh().large_result.size_bytes == len(data)


def test_large_json_is_a_result_like_any_other(client: faas.Client, name):
    fn = client.deploy(ECHO, name=name, runtime="python")
    value = ["grüße"] * 200_000
    assert fn(value) == value
    invocation = fn.submit(value)
    assert invocation.result(60) == value
    assert not invocation.record.HasField("result")


def test_what_failed_is_taken_up_again_once(client: faas.Client, name):
    fn = client.deploy(FAILS, name=name, runtime="python")
    failed = fn.submit({"size": 1})
    failed.wait()
    client.deploy(ECHO, name=name, runtime="python")
    (redrive,) = client.redrive([failed.id], latest_version=True)
    assert (redrive.source_id, redrive.refusal) == (failed.id, "")
    assert client.invocation(redrive.invocation_id).result() == {"size": 1}
    (again,) = client.redrive([failed.id], latest_version=True)
    assert again.invocation_id == redrive.invocation_id
    assert list(client.redrive(function_id=name, status="failed")) == []
    assert list(client.dead_letters(function_id=name)) == []


def test_it_waits_until_its_moment(client: faas.Client, name):
    fn = client.deploy(ECHO, name=name, runtime="python")
    moment = datetime.now(UTC) + timedelta(days=1)
    invocation = fn.submit(1, not_before=moment)
    assert invocation.record.next_attempt_at.ToDatetime(tzinfo=UTC) == moment
    invocation.cancel()


def test_schedules(client: faas.Client, name):
    fn = client.deploy(ECHO, name=name, runtime="python")
    schedule = fn.schedule(
        "0 4 * * *", {"n": 1}, time_zone="Europe/Berlin", overlap="skip", misfire="fire-all"
    )
    assert schedule.payload == {"n": 1}
    assert schedule.record.HasField("next_fire_at")
    assert [s.id for s in client.schedules(function_id=name)] == [schedule.id]
    again = client.schedule(schedule.id)
    again.pause()
    assert again.record.paused
    assert not again.record.HasField("next_fire_at")
    again.update(cron="@hourly", payload=None)
    assert (again.record.cron, again.payload) == ("@hourly", None)
    assert again.record.time_zone == "Europe/Berlin"
    assert again.resume().HasField("next_fire_at")
    with pytest.raises(faas.InvalidSettings, match="SKIP"):
        fn.schedule("@daily", overlap="never")
    with pytest.raises(faas.InvalidRequest, match="cron"):
        fn.schedule("0 0 31 2 *")
    again.delete()
    with pytest.raises(faas.NotFound):
        again.refresh()


def test_map_keeps_the_order_and_bounds_what_is_under_way(client: faas.Client, name):
    fn = client.deploy(ECHO, name=name, runtime="python")
    asked: list[int] = []
    seen: list[int] = []

    def payloads():
        for number in range(20):
            asked.append(number)
            yield number

    results = fn.map(payloads(), concurrency=3, progress=seen.append)
    assert next(results) == 0
    assert len(asked) <= 4
    assert list(results) == list(range(1, 20))
    assert seen == list(range(1, 21))


def test_map_takes_payloads_that_need_the_client(client: faas.Client, name):
    fn = client.deploy(ECHO, name=name, runtime="python")
    assert list(fn.map((fn(n) for n in range(3)), concurrency=2)) == [0, 1, 2]
    assert list(fn.map(payloads=[1])) == [1]


def test_a_callback_that_would_wait_for_itself_is_told(client: faas.Client, name):
    fn = client.deploy(ECHO, name=name, runtime="python")
    with pytest.raises(RuntimeError, match="callback"):
        list(fn.map([1], progress=lambda _: fn(2)))


def test_closing_twice_and_closing_what_was_not_used(platform: Platform):
    threads = threading.active_count()
    client = faas.Client(platform.url)
    client.close()
    assert threading.active_count() == threads
    next(client.workers())
    client.close()
    client.close()


def test_map_raises_a_failure_in_its_place_or_returns_it(client: faas.Client, name):
    code = "def handler(n):\n    return 1 // n\n"
    fn = client.deploy(code, name=name, runtime="python")
    results = fn.map([1, 0, 1])
    assert next(results) == 1
    with pytest.raises(faas.FunctionFailed):
        next(results)
    first, second, third = fn.map([1, 0, 1], return_exceptions=True)
    assert (first, third) == (1, 1)
    assert isinstance(second, faas.FunctionFailed)


def test_as_completed_gives_what_ends_first(client: faas.Client, name):
    fn = client.deploy(SLOW, name=name, runtime="python")
    slow, quick = fn.submit(600), fn.submit(0)
    with pytest.raises(faas.WaitTimeout):
        list(client.as_completed([slow], timeout_s=0.1))
    ended = client.as_completed([slow, quick])
    assert next(ended) is quick
    slow.cancel()
    assert list(ended) == [slow]


def test_more_can_be_waited_for_than_at_once(client: faas.Client, name, monkeypatch):
    monkeypatch.setattr("faas.client.WAITS_AT_ONCE", 2)
    fn = client.deploy(SLOW, name=name, runtime="python")
    slow = [fn.submit(600) for _ in range(2)]
    quick = [fn.submit(0) for _ in range(3)]
    ended = client.as_completed([*slow, *quick])
    assert {next(ended).id for _ in quick} == {invocation.id for invocation in quick}
    for invocation in slow:
        invocation.cancel()
    assert {invocation.id for invocation in ended} == {invocation.id for invocation in slow}


def test_a_python_function_is_deployed_as_it_stands(client: faas.Client, name):
    fn = client.deploy(shout, name=name)
    assert fn("loud") == "LOUD"
    assert fn.record.handler == "main.shout"


def test_deploying_again_changes_only_what_differs(client: faas.Client, name):
    fn = client.deploy(ECHO, name=name, runtime="python", memory_mb=256, env={"A": "1"})
    assert fn.record.version == 1
    assert client.deploy(ECHO, name=name, runtime="python").record.version == 1
    fn = client.deploy(ECHO, name=name, runtime="python", timeout=5)
    assert (fn.record.version, fn.record.memory_mb, fn.record.env) == (2, 256, {"A": "1"})
    assert fn.update(env=None, description="changed").env == {}
    assert [v.version for v in fn.versions()] == [3, 2, 1]
    assert fn.version(2).timeout.seconds == 5
    assert b"".join(fn.download()) == ECHO.encode()


def test_a_folder_and_a_large_archive(client: faas.Client, name, tmp_path: Path):
    (tmp_path / "main.py").write_text("import data\ndef handler(p):\n    return data.size()\n")
    (tmp_path / "data.py").write_text(
        "import os\ndef size():\n    return os.path.getsize(os.path.dirname(__file__) + '/big')\n"
    )
    (tmp_path / "big").write_bytes(os.urandom(5_000_000))
    fn = client.deploy(tmp_path, name=name)
    assert fn.record.code_size_bytes > 3 * 1024 * 1024
    assert fn() == 5_000_000
    assert client.deploy(tmp_path, name=name).record.version == 1


def test_an_archive_as_bytes(client: faas.Client, name, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("main.py", ECHO)
    data = (tmp_path / "a.zip").read_bytes()
    assert client.deploy(data, name=name, runtime="python")("x") == "x"
    with pytest.raises(faas.UnusableSource, match="runtime"):
        client.deploy(data, name=f"{name}-b")
    with pytest.raises(faas.UnusableSource, match="name"):
        client.deploy(data, runtime="python")


def test_lists_are_read_page_by_page(client: faas.Client, name):
    for number in range(3):
        client.deploy(ECHO, name=f"{name}-{number}", runtime="python", labels={"set": name})
    found = client.functions(filter=f"labels.set = {name}", order_by="name", page_size=1)
    assert [function.name for function in found] == [f"{name}-{n}" for n in range(3)]
    fn = client.function(f"{name}-0")
    ids = [fn.submit(n).id for n in range(3)]
    listed = client.invocations(function_id=fn.name, page_size=2)
    assert [invocation.id for invocation in listed] == ids[::-1]
    client.invocation(ids[0]).wait()
    completed = client.invocations(function_id=fn.name, status="completed")
    assert ids[0] in [invocation.id for invocation in completed]
    found = client.invocations(filter=f"function_name = {name}-0 AND attempt = 1")
    assert ids[0] in [invocation.id for invocation in found]


def test_workers(client: faas.Client):
    (worker,) = client.workers()
    assert client.worker(worker.id).id == worker.id
    assert client.drain_worker(worker.id).id == worker.id
    wait_until(lambda: client.worker(worker.id).state != 1, "it drains")
    client.resume_worker(worker.id)
    wait_until(lambda: client.worker(worker.id).state == 1, "it takes work again")


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda c: c.function("gone")(), faas.FunctionNotFound),
        (lambda c: c.function("gone").refresh(), faas.FunctionNotFound),
        (lambda c: c.function("gone").delete(), faas.FunctionNotFound),
        (lambda c: c.function("sdk-echo")(version=99), faas.VersionNotFound),
        (lambda c: c.invocation("inv-0").refresh(), faas.InvalidRequest),
        (
            lambda c: c.invocation("inv-01900000-0000-7000-8000-000000000000").refresh(),
            faas.InvocationNotFound,
        ),
        (lambda c: c.worker("worker-0"), faas.WorkerNotFound),
        (lambda c: next(c.functions(filter="nope = 1")), faas.InvalidFilter),
        (lambda c: next(c.invocations(status="nope")), faas.InvalidSettings),
        (lambda c: c.deploy(ECHO, name="Bad", runtime="python"), faas.InvalidRequest),
        (lambda c: c.deploy(ECHO, name="good", runtime="cobol"), faas.UnknownRuntime),
        (lambda c: c.deploy(b"nothing", name="good", runtime="python"), faas.InvalidArchive),
        (lambda c: c.function("sdk-echo")(float("nan")), faas.InvalidPayload),
        (lambda c: c.function("sdk-echo")("\ud800"), faas.InvalidPayload),
        (lambda c: c.function("sdk-echo")(object()), faas.InvalidPayload),
        (lambda c: c.function("sdk-echo")({1: 2}), faas.InvalidPayload),
        (lambda c: c.function("sdk-echo").call(bytes(65 << 20)), faas.TooLarge),
        (lambda c: c.function("sdk-echo").update(etag="old", memory_mb=64), faas.EtagMismatch),
        (lambda c: c.function("sdk-echo").update(memory_mb=1), faas.InvalidRequest),
    ],
)
def test_refusals_are_errors_of_their_own(client: faas.Client, call, kind):
    client.deploy(ECHO, name="sdk-echo", runtime="python")
    with pytest.raises(kind):
        call(client)


def test_a_refusal_names_the_field(client: faas.Client):
    with pytest.raises(faas.InvalidRequest) as caught:
        client.deploy(ECHO, name="good", runtime="python", memory_mb=1)
    (violation,) = caught.value.violations
    assert violation.field == "memory_mb"
    assert caught.value.reason == "INVALID_FIELD"


def test_nobody_there_is_said_with_the_address():
    url = f"http://127.0.0.1:{free_port()}"
    with faas.Client(url) as client, pytest.raises(faas.Unavailable, match=url):
        list(client.functions())


def test_a_read_is_tried_again_until_the_server_is_back(
    platform: Platform, client: faas.Client, monkeypatch
):
    monkeypatch.setattr("faas.transport.ATTEMPTS", 100)  # as slow as a machine may be
    client.deploy(ECHO, name="sdk-echo", runtime="python")
    platform.envoy.stop()
    timer = threading.Timer(0.3, platform.envoy.start)
    timer.start()
    try:
        assert client.function("sdk-echo").refresh().name == "sdk-echo"
    finally:
        timer.join()


def test_a_silent_server_is_left_at_the_deadline():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with faas.Client(url, timeout_s=0.5) as client, pytest.raises(faas.CallFailed) as caught:
            client.function("x").refresh()
    assert isinstance(caught.value, faas.DeadlineExceeded | faas.Unavailable)


async def test_the_asynchronous_client_is_the_same(platform: Platform, name):
    async with faas.AsyncClient(platform.url) as client:
        fn = await client.deploy(ECHO, name=name, runtime="python")
        assert await fn(1) == 1
        assert await asyncio.gather(*(fn(n) for n in range(5))) == list(range(5))
        assert [r async for r in fn.map(range(5))] == list(range(5))
        invocations = [await fn.submit(n) for n in range(3)]
        ended = [i.id async for i in client.as_completed(invocations)]
        assert sorted(ended) == sorted(i.id for i in invocations)


async def test_the_blocking_client_works_within_a_running_loop(client: faas.Client):
    assert client.deploy(ECHO, name="sdk-echo", runtime="python")("x") == "x"


def test_threads_share_a_client(client: faas.Client):
    fn = client.deploy(ECHO, name="sdk-echo", runtime="python")
    results: list[int] = []
    threads = [threading.Thread(target=lambda n=n: results.append(fn(n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


def test_an_interrupt_ends_a_wait_at_once(platform: Platform, client: faas.Client, name):
    client.deploy(SLOW, name=name, runtime="python")
    program = (
        "import faas\n"
        f"fn = faas.Client({platform.url!r}).function({name!r})\n"
        "print('waiting', flush=True)\n"
        "fn(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    wait_until(lambda: any(client.invocations(function_id=name)), "it is accepted")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    client.function(name).cancel_all()


def test_a_forgotten_client_lets_the_program_end(platform: Platform):
    program = f"import faas\nprint(len(list(faas.Client({platform.url!r}).workers())))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == (b"1\n", b"")


def test_a_deployment_is_compiled_when_it_returns(client: faas.Client, name: str):
    broken = "package main\n\nfunc Handler() {\n\tmissing()\n}\n"
    with pytest.raises(faas.InvalidCode, match="undefined: missing") as refused:
        client.deploy(broken, name=name, runtime="go", validate=True)
    assert [violation.field for violation in refused.value.violations] == ["code"]
    with pytest.raises(faas.FunctionNotFound):
        client.function(name).refresh()
    with pytest.raises(faas.BuildFailed, match=r"main\.go:4:2: undefined: missing") as failed:
        client.deploy(broken, name=name, runtime="go")
    assert (failed.value.record.name, failed.value.record.version) == (name, 1)
    function = client.deploy(GO_ECHO, name=name, runtime="go")
    assert FunctionVersion.State.Name(function.record.state) == "READY"
    assert function([1]) == [1]
    states = [FunctionVersion.State.Name(version.state) for version in function.versions()]
    assert states == ["READY", "FAILED"]
