"""Lists of invocations: what is in them, in which order, page by page."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from faas.v1.function_service_pb2 import DeleteFunctionRequest
from faas.v1.invocation_pb2 import Invocation
from faas.v1.invocation_service_pb2 import ListInvocationsRequest, ListInvocationsResponse
from services.errors import FunctionNotFound, InvalidField, InvalidPageToken
from services.ids import FUNCTION, new_uuid, show
from tests.integration.functions import refused
from tests.mesh import Mesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 60


@pytest_asyncio.fixture(loop_scope="module")
async def name(shared_mesh: Mesh) -> str:
    """A function that raises if it is given `false`."""
    name = f"listed-{new_uuid()}"
    await shared_mesh.create(name, "def handler(ok):\n    assert ok\n    return ok\n")
    return name


async def listed(mesh: Mesh, **fields: object) -> ListInvocationsResponse:
    return await mesh.invocations.ListInvocations(ListInvocationsRequest(**fields))


async def ids(mesh: Mesh, **fields: object) -> list[str]:
    return [one.id for one in (await listed(mesh, **fields)).invocations]


async def pages(mesh: Mesh, **fields: object) -> AsyncIterator[list[str]]:
    token = ""
    while True:
        page = await listed(mesh, page_token=token, **fields)
        yield [one.id for one in page.invocations]
        token = page.next_page_token
        if not token:
            return


async def test_newest_first_and_without_what_may_be_large(shared_mesh: Mesh, name: str) -> None:
    made = [await shared_mesh.invoke(name, "large", wait_s=WAIT_S) for _ in range(3)]
    page = await listed(shared_mesh, function_id=name)
    assert [one.id for one in page.invocations] == [one.id for one in reversed(made)]
    assert page.next_page_token == ""
    for one in page.invocations:
        assert (one.function_name, one.status) == (name, Invocation.COMPLETED)
        assert one.metrics.HasField("duration")
        assert not one.HasField("payload")
        assert not one.HasField("result")


async def test_filters(shared_mesh: Mesh, name: str) -> None:
    good = await shared_mesh.invoke(name, True, wait_s=WAIT_S)
    bad = await shared_mesh.invoke(name, False, wait_s=WAIT_S)
    by = {"function_id": good.function_id}
    assert await ids(shared_mesh, **by) == [bad.id, good.id]
    assert await ids(shared_mesh, **by, status=Invocation.FAILED) == [bad.id]
    assert await ids(shared_mesh, **by, status=Invocation.COMPLETED) == [good.id]
    assert await ids(shared_mesh, **by, status=Invocation.RUNNING) == []
    assert await ids(shared_mesh, status=Invocation.FAILED) == [bad.id]
    assert await ids(shared_mesh, **by, created_after=bad.created_at) == [bad.id]
    assert await ids(shared_mesh, **by, created_before=bad.created_at) == [good.id]
    between = {"created_after": good.created_at, "created_before": bad.created_at}
    assert await ids(shared_mesh, **by, **between) == [good.id]
    hour = datetime.now(UTC) + timedelta(hours=1)
    assert await ids(shared_mesh, **by, created_after=hour) == []


async def test_pages_are_stable_while_new_ones_arrive(shared_mesh: Mesh, name: str) -> None:
    made = [(await shared_mesh.invoke(name, True)).id for _ in range(7)]
    found, sizes = [], []
    async for page in pages(shared_mesh, function_id=name, page_size=3):
        found += page
        sizes.append(len(page))
        await shared_mesh.invoke(name, True)
    assert found == made[::-1]
    assert sizes == [3, 3, 1]


async def test_a_last_page_that_is_full_is_the_last(shared_mesh: Mesh, name: str) -> None:
    for _ in range(4):
        await shared_mesh.invoke(name, True)
    found = [len(page) async for page in pages(shared_mesh, function_id=name, page_size=2)]
    assert found == [2, 2]


async def test_a_page_has_fifty_unless_asked(shared_mesh: Mesh, name: str) -> None:
    for _ in range(51):
        await shared_mesh.invoke(name, True)
    assert len(await ids(shared_mesh, function_id=name)) == 50
    assert len(await ids(shared_mesh, function_id=name, page_size=5000)) == 51


async def test_a_deleted_functions_records_are_found_by_its_id(
    shared_mesh: Mesh, name: str
) -> None:
    made = await shared_mesh.invoke(name, True, wait_s=WAIT_S)
    await shared_mesh.functions.DeleteFunction(DeleteFunctionRequest(function_id=name))
    assert await ids(shared_mesh, function_id=made.function_id) == [made.id]
    await refused(listed(shared_mesh, function_id=name), FunctionNotFound)
    assert await ids(shared_mesh, function_id=show(FUNCTION, new_uuid())) == []


def forged(token: str, *position: object) -> str:
    """A token with another position, as somebody makes it who has read how."""
    fingerprint = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))[0]
    return base64.urlsafe_b64encode(json.dumps([fingerprint, *position]).encode()).decode()


BAD = {
    "page_size": ({"page_size": -1}, InvalidField),
    "page_token": ({"page_token": "made up"}, InvalidPageToken),
    "status": ({"status": 77}, InvalidField),
    "created_after": ({"created_after": {"seconds": 2**60}}, InvalidField),
    "created_before": ({"created_before": {"seconds": -(2**60)}}, InvalidField),
    "function_id": ({"function_id": "x" * 129}, InvalidField),
}


@pytest.mark.parametrize(("field", "case"), BAD.items(), ids=BAD)
async def test_bad_input_is_named(shared_mesh: Mesh, field: str, case: tuple) -> None:
    fields, error = case
    await refused(listed(shared_mesh, **fields), error, field)


async def test_a_token_is_good_for_its_list_only(shared_mesh: Mesh, name: str) -> None:
    for _ in range(2):
        await shared_mesh.invoke(name, True)
    token = (await listed(shared_mesh, function_id=name, page_size=1)).next_page_token
    await refused(listed(shared_mesh, page_token=token), InvalidPageToken, "page_token")
    for position in (["no uuid"], [1], [], ["a", "b"], ["' OR 1=1 --"], [None]):
        call = listed(shared_mesh, function_id=name, page_token=forged(token, *position))
        await refused(call, InvalidPageToken, "page_token")
