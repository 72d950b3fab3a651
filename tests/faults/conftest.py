"""One stack for all faults of a module."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.faults.stack import QUICK, Stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    """Each test leaves it whole, or makes it whole first."""
    stack = Stack.make(QUICK)
    try:
        await stack.up()
        yield stack
    finally:
        await stack.down()
