"""What cannot be read, or is forged, is the function's failure: its own, and no other's."""

import json

import pytest

from faas.v1.invocation_pb2 import Invocation
from tests.hostile.arena import Arena
from tests.hostile.cases import FORGED, FRAMES
from tests.hostile.table import LANGUAGES
from tests.hostile.verdicts import RUNTIMES, ends_as_said

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("arena", RUNTIMES, indirect=True, scope="module"),
]


@pytest.mark.parametrize(("name", "language"), FRAMES.cells())
async def test_it_ends_as_said(arena: Arena, name: str, language: str) -> None:
    await ends_as_said(arena, FRAMES, name, language)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_forged_answer_displaces_no_other(arena: Arena, language: str) -> None:
    spec = arena.bench.spec(language, FORGED[language], memory_mb=128)
    for number in range(4):
        ran = await arena.attack(spec, 60)
        assert ran.verdict.result == b'"forged"'
        # Of the two answers the second is nobody's.
        ran = await arena.attack(spec, 60, str(number).encode())
        if ran.verdict.failure is None:
            assert json.loads(ran.verdict.result) == number
        else:
            # It came before the second: it was found out, and the sandbox is gone.
            assert ran.verdict.failure.code == Invocation.BAD_OUTPUT
    await arena.serve_neighbour()
