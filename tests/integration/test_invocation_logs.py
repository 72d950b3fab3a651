"""What functions print, as the API shows it."""

import pytest

from faas.v1.invocation_pb2 import Invocation, LogLine
from faas.v1.invocation_service_pb2 import GetInvocationLogsRequest, GetInvocationLogsResponse
from services.errors import InvalidField, InvalidPageToken, InvocationNotFound
from services.ids import INVOCATION, new_uuid, show
from services.worker.output import LINE_BYTES
from tests.integration.functions import refused
from tests.integration.test_invocation_lists import forged
from tests.mesh import Mesh, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 60


async def logs(mesh: Mesh, invocation_id: str, **fields: object) -> GetInvocationLogsResponse:
    request = GetInvocationLogsRequest(invocation_id=invocation_id, **fields)
    return await mesh.invocations.GetInvocationLogs(request)


async def all_lines(mesh: Mesh, invocation_id: str, page_size: int = 0) -> list[LogLine]:
    lines, token = [], ""
    while True:
        page = await logs(mesh, invocation_id, page_size=page_size, page_token=token)
        assert len(page.lines) <= (page_size or 1000)
        lines += page.lines
        token = page.next_page_token
        if not token:
            return lines


async def ran(mesh: Mesh, body: str, payload: object = None) -> Invocation:
    name = f"printing-{new_uuid()}"
    await mesh.create(name, f"import sys, time, pathlib\n\ndef handler(payload):\n{body}")
    return await mesh.invoke(name, payload, wait_s=WAIT_S)


async def test_lines_of_both_streams_in_order(shared_mesh: Mesh) -> None:
    done = await ran(
        shared_mesh,
        "    print('one')\n    print('grüße 世界')\n    print('err', file=sys.stderr)\n"
        "    sys.stdout.write('no newline')\n",
    )
    assert done.status == Invocation.COMPLETED
    lines = (await logs(shared_mesh, done.id)).lines
    assert [x.text for x in lines if x.stream == LogLine.STDOUT] == [
        "one",
        "grüße 世界",
        "no newline",
    ]
    assert [x.text for x in lines if x.stream == LogLine.STDERR] == ["err"]
    for line in lines:
        assert line.attempt == 1
        assert done.started_at.ToNanoseconds() <= line.time.ToNanoseconds()
        assert line.time.ToNanoseconds() <= done.completed_at.ToNanoseconds()
    assert not done.logs_truncated


async def test_lines_are_complete_when_the_verdict_is_there(shared_mesh: Mesh) -> None:
    done = await ran(shared_mesh, "    for n in range(5000): print(n)\n    raise ValueError('x')\n")
    assert done.status == Invocation.FAILED
    lines = await all_lines(shared_mesh, done.id)
    assert [line.text for line in lines] == [str(number) for number in range(5000)]


@pytest.mark.parametrize("page_size", [1, 7, 50])
async def test_pages(shared_mesh: Mesh, page_size: int) -> None:
    done = await ran(shared_mesh, "    for n in range(50): print(n); time.sleep(0.01)\n")
    lines = await all_lines(shared_mesh, done.id, page_size)
    assert [line.text for line in lines] == [str(number) for number in range(50)]


async def test_lines_are_there_while_it_runs(shared_mesh: Mesh) -> None:
    name = f"printing-{new_uuid()}"
    code = (
        "import pathlib, time\n\ndef handler(payload):\n    print('begun')\n"
        "    while not pathlib.Path(payload).exists(): time.sleep(0.02)\n    print('released')\n"
    )
    await shared_mesh.create(name, code)
    release = shared_mesh.directory / name
    made = await shared_mesh.invoke(name, str(release))

    async def texts() -> list[str]:
        return [line.text for line in (await logs(shared_mesh, made.id)).lines]

    assert await eventually("the first line", texts) == ["begun"]
    assert (await shared_mesh.get(made.id)).status == Invocation.RUNNING
    release.touch()
    await shared_mesh.get(made.id, wait_s=WAIT_S)
    assert await texts() == ["begun", "released"]


async def test_what_is_too_much_is_cut_and_said(shared_mesh: Mesh) -> None:
    done = await ran(shared_mesh, "    for n in range(40000): print('x' * 99)\n    return 'ok'\n")
    assert (done.status, done.logs_truncated) == (Invocation.COMPLETED, True)
    lines = await all_lines(shared_mesh, done.id, 10_000)
    kept = sum(len(line.text) + LINE_BYTES for line in lines)
    assert 1024 * 1024 - 100 - LINE_BYTES <= kept <= 1024 * 1024


async def test_a_line_without_end_comes_in_pieces(shared_mesh: Mesh) -> None:
    done = await ran(shared_mesh, "    print('é' * 300_000)\n    print('after')\n")
    lines = await all_lines(shared_mesh, done.id)
    assert all(len(line.text.encode()) <= 64 * 1024 for line in lines)
    assert "".join(line.text for line in lines) == "é" * 300_000 + "after"


async def test_any_bytes_become_text(shared_mesh: Mesh) -> None:
    body = "    sys.stdout.buffer.write(b'a\\xffb\\x00c\\x1b[31m\\r\\n')\n"
    done = await ran(shared_mesh, body)
    assert [x.text for x in (await logs(shared_mesh, done.id)).lines] == [
        "a\ufffdb\ufffdc\x1b[31m\r"
    ]


async def test_nothing_printed_is_no_lines(shared_mesh: Mesh) -> None:
    done = await ran(shared_mesh, "    return 1\n")
    page = await logs(shared_mesh, done.id)
    assert (list(page.lines), page.next_page_token) == ([], "")


async def test_bad_input_is_named(shared_mesh: Mesh) -> None:
    done = await ran(shared_mesh, "    print('a\\nb')\n")
    unknown = show(INVOCATION, new_uuid())
    await refused(logs(shared_mesh, unknown), InvocationNotFound)
    await refused(logs(shared_mesh, "inv-1"), InvalidField, "invocation_id")
    await refused(logs(shared_mesh, done.id, page_size=-1), InvalidField, "page_size")
    await refused(logs(shared_mesh, done.id, page_token="x"), InvalidPageToken, "page_token")
    token = (await logs(shared_mesh, done.id, page_size=1)).next_page_token
    for position in ([1, 2], [0, 0, "0"], [2**40, 0, 0], [0, 2**31, 0], [0, 0, True]):
        call = logs(shared_mesh, done.id, page_token=forged(token, *position))
        await refused(call, InvalidPageToken, "page_token")
