"""What every attack must come to."""

import pytest

from faas.v1.invocation_pb2 import Invocation
from tests.conformance.conftest import Ran
from tests.hostile.arena import FLAT_BYTES, Arena, flat_memory
from tests.hostile.table import Table

WARM = pytest.param("warm", marks=pytest.mark.docker)
RUNTIMES = ["process", WARM]


async def ends_as_said(arena: Arena, table: Table, name: str, language: str) -> Ran:
    """Attack; its verdict, the worker's memory, what is left, and the neighbour."""
    case = table.rows[name]
    end = case.end_in(language)
    spec = arena.spec(table, name, language)
    # What is compiled is compiled before its time and its memory are looked at.
    await arena.bench.runtime.prepare(spec)
    with flat_memory() as memory:
        ran = await arena.attack(spec, case.timeout_s)
    failure = ran.verdict.failure
    code = failure.code if failure else None
    assert code == end.code, ran.verdict
    if failure is not None:
        assert failure.exit_code == end.exit_code, failure
        assert end.says in failure.message
    assert any(end.prints in text for text in ran.texts) or not end.prints
    assert case.truncates in (None, ran.verdict.logs_truncated)
    assert memory.grown < FLAT_BYTES, memory
    if arena.warm and language in case.keeps_sandbox:
        arena.keep(spec)
        again = await arena.attack(spec, case.timeout_s)
        assert again.verdict.start_kind == Invocation.WARM
    await arena.nothing_is_left()
    await arena.serve_neighbour()
    return ran
