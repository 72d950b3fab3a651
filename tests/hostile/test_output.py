"""Floods: read and dropped past the cap, killed in the end, at no cost in memory."""

import pytest

from faas.v1.invocation_pb2 import Invocation
from tests.hostile.arena import Arena
from tests.hostile.cases import FLOOD_AFTERWARDS, OUTPUT
from tests.hostile.table import LANGUAGES
from tests.hostile.verdicts import RUNTIMES, WARM, ends_as_said

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("arena", RUNTIMES, indirect=True, scope="module")
@pytest.mark.parametrize(("name", "language"), OUTPUT.cells())
async def test_it_ends_as_said(arena: Arena, name: str, language: str) -> None:
    await ends_as_said(arena, OUTPUT, name, language)


@pytest.mark.parametrize("arena", [WARM], indirect=True, scope="module")
@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_flood_when_it_has_answered_is_not_read(arena: Arena, language: str) -> None:
    spec = arena.bench.spec(language, FLOOD_AFTERWARDS[language], memory_mb=128)
    ran = await arena.attack(spec, 60)
    assert (ran.verdict.failure, ran.verdict.result) == (None, b"null")
    await arena.falls_silent()
    # The next call has another sandbox, and none of the flood.
    ran = await arena.attack(spec, 60, b"1")
    assert (ran.verdict.failure, ran.verdict.result, ran.lines) == (None, b"1", [])
    assert ran.verdict.start_kind != Invocation.WARM
    await arena.serve_neighbour()
