"""Listing functions: filters, orders, pages."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from faas.v1.function_service_pb2 import ListFunctionsRequest
from services.errors import InvalidField, InvalidFilter, InvalidPageToken
from services.ids import new_uuid
from services.pages import make_token
from tests.integration.functions import Functions, refused, serve


@pytest.fixture
async def functions(database_url: str, tmp_path: Path) -> AsyncIterator[Functions]:
    """Four functions: a, b, c and d, created in this order."""
    async with serve(database_url, tmp_path) as functions:
        await functions.create("a", labels={"team": "search"}, description="It finds. 100%")
        await functions.create("b", labels={"team": "ads", "x.y/z": "1"}, runtime="node", code="1")
        await functions.create("c", runtime="go", code="package main")
        await functions.create("d", labels={"team": "search"})
        await functions.create("gone", labels={"team": "search"})
        await functions.delete("gone")
        await functions.update("b", memory_mb=64)
        yield functions


async def walk(functions: Functions, **fields: Any) -> list[str]:
    names, token = [], ""
    while True:
        request = ListFunctionsRequest(page_token=token, **fields)
        page = await functions.public.ListFunctions(request)
        names += [function.name for function in page.functions]
        token = page.next_page_token
        if not token:
            return names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "dcba"),
        ('name = "a"', "a"),
        ("name != a", "dcb"),
        ("name > b", "dc"),
        ("name >= b AND name <= c", "cb"),
        ('runtime = "python" AND labels.team = "search"', "da"),
        ("runtime = node OR runtime = go", "cb"),
        ("runtime = python name = a OR name = b", "a"),
        ("(runtime = python AND name = a) OR name = b", "ba"),
        ("NOT runtime = python", "cb"),
        ("-name = a", "dcb"),
        ("NOT (name = a OR name = b)", "dc"),
        ("version = 2", "b"),
        ("version < 2", "dca"),
        ("description : finds", "a"),
        ('description : "100%"', "a"),
        ("description : '%'", "a"),
        ("description : _", ""),
        ("labels.team = search", "da"),
        ("labels.team != search", "cb"),
        ("NOT labels.team = search", "cb"),
        ("labels.team : ads", "b"),
        ("labels.team : *", "dba"),
        ("NOT labels.team : *", "c"),
        ("labels.team < b", "b"),
        ("NOT labels.team < b", "dca"),
        ('labels."x.y/z" = 1', "b"),
        ("created_at > 2020-01-01T00:00:00Z", "dcba"),
        ("created_at < '2020-01-01T00:00:00+02:00'", ""),
        ("updated_at > 0001-01-01T00:00:00-14:00", "dcba"),
        ("name = \"' OR '1' = '1\"", ""),
        ("name = 'a\\' OR 1=1'", ""),
    ],
)
async def test_filters_find(functions: Functions, text: str, names: str) -> None:
    assert "".join(await functions.names(filter=text)) == names


async def test_a_filter_by_moment_is_exact(functions: Functions) -> None:
    at = (await functions.get("b")).created_at.ToJsonString()
    assert await functions.names(filter=f"created_at = {at}") == ["b"]
    assert await functions.names(filter=f"created_at > {at}") == ["d", "c"]
    assert await functions.names(filter=f"updated_at > {at} AND created_at <= {at}") == ["b"]


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("", "dcba"),
        ("created_at", "abcd"),
        ("created_at desc", "dcba"),
        ("name", "abcd"),
        ("name desc", "dcba"),
        ("updated_at desc", "bdca"),
        ("updated_at", "acdb"),
    ],
)
async def test_orders_hold_over_pages(functions: Functions, order: str, names: str) -> None:
    for size in (0, 1, 3):
        assert "".join(await walk(functions, order_by=order, page_size=size)) == names


@pytest.mark.parametrize("field", ["created_at", "updated_at"])
async def test_equal_moments_are_paged_by_id(functions: Functions, field: str) -> None:
    import psycopg

    with psycopg.connect(functions.database_url) as connection:
        connection.execute(f"UPDATE functions SET {field} = '2026-01-01Z'".encode())
    assert await walk(functions, order_by=field, page_size=1) == ["a", "b", "c", "d"]
    assert await walk(functions, order_by=f"{field} desc", page_size=1) == ["d", "c", "b", "a"]


async def test_pages_stay_when_functions_come_and_go(functions: Functions) -> None:
    request = ListFunctionsRequest(page_size=2)
    first = await functions.public.ListFunctions(request)
    await functions.create("e")
    await functions.delete("c")  # the last of the first page
    request.page_token = first.next_page_token
    second = await functions.public.ListFunctions(request)
    assert [function.name for function in second.functions] == ["b", "a"]
    assert not second.next_page_token


async def test_a_list_has_what_get_has(functions: Functions) -> None:
    answer = await functions.public.ListFunctions(ListFunctionsRequest(filter="name = b"))
    assert list(answer.functions) == [await functions.get("b")]


async def test_the_page_size_has_a_default_and_no_negative(functions: Functions) -> None:
    assert len(await functions.names(page_size=5000)) == 4
    await refused(functions.names(page_size=-1), InvalidField, "page_size")


async def test_wrong_filters_and_orders_are_refused(functions: Functions) -> None:
    await refused(functions.names(filter="name ="), InvalidFilter, "filter")
    await refused(functions.names(filter="nobody = 1"), InvalidFilter, "filter")
    await refused(functions.names(order_by="memory_mb"), InvalidFilter, "order_by")
    await refused(functions.names(filter="x" * 2049), InvalidField, "filter")


async def test_tokens_of_other_lists_and_forged_ones_are_refused(functions: Functions) -> None:
    page = await functions.public.ListFunctions(ListFunctionsRequest(page_size=1))
    token = page.next_page_token
    await refused(
        functions.names(page_token=token, filter="name=a"), InvalidPageToken, "page_token"
    )
    await refused(
        functions.names(page_token=token, order_by="name"), InvalidPageToken, "page_token"
    )
    good = f"func-{new_uuid()}"
    at = Timestamp(seconds=1).ToJsonString()
    wrong: list[list[Any]] = [
        [at],
        [at, "no id"],
        ["no moment", good],
        ["2026-01-01T00:00:00", good],
        [1, good],
        [None, None],
        [at, good, "more"],
    ]
    for position in wrong:
        forged = make_token(ListFunctionsRequest(), position)
        await refused(functions.names(page_token=forged), InvalidPageToken, "page_token")
    by_name = ListFunctionsRequest(order_by="name")
    forged = make_token(by_name, ["a\x00b", good])
    await refused(
        functions.names(order_by="name", page_token=forged), InvalidPageToken, "page_token"
    )
