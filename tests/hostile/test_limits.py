"""Functions that take all there is: they get what is theirs, and their neighbours too."""

import pytest

from tests.hostile.arena import Arena
from tests.hostile.cases import LIMITS
from tests.hostile.verdicts import WARM, ends_as_said

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("arena", [WARM], indirect=True, scope="module"),
]


@pytest.mark.parametrize(("name", "language"), LIMITS.cells())
async def test_it_ends_as_said(arena: Arena, name: str, language: str) -> None:
    await ends_as_said(arena, LIMITS, name, language)
