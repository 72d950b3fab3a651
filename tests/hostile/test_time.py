"""Functions that would never end: they do, and nothing of them is alive afterwards."""

import pytest

from tests.hostile.arena import Arena
from tests.hostile.cases import TIME
from tests.hostile.verdicts import RUNTIMES, ends_as_said

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("arena", RUNTIMES, indirect=True, scope="module"),
]


@pytest.mark.parametrize(("name", "language"), TIME.cells())
async def test_it_ends_as_said(arena: Arena, name: str, language: str) -> None:
    await ends_as_said(arena, TIME, name, language)
