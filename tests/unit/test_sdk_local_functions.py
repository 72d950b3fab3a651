"""Python functions as source: what is taken, and what is refused."""

import functools
import json
import math as m
from collections.abc import Callable

import pytest

import faas
from faas.errors import InvalidSettings, UnusableSource
from faas.local import code_of

FACTOR = 3
unknown: object
globals()["made_at_run_time"] = 1


def helper(value: int) -> int:
    return value * FACTOR


@functools.lru_cache
def kept(value: int) -> float:
    return m.sqrt(value)


@faas.function(name="tripled", memory_mb=256, timeout="5s")
def triple(payload, context=None):
    """Use what is around."""
    json = payload  # a local name, as the module's
    return [helper(value) for value in json] + [kept(4)]


def uses_what_cannot_be_found(payload):
    return made_at_run_time  # noqa: F821


def not_used() -> Callable:
    return json.loads


def run(text: str, name: str) -> Callable:
    space: dict = {"__name__": "main"}
    exec(compile(text, "main.py", "exec"), space)
    return space[name]


def test_the_source_stands_alone():
    code = code_of(triple)
    assert code.text is not None
    assert run(code.text, "triple")([1, 2]) == [3, 6, 2.0]
    assert (code.name, code.handler, code.runtime) == ("tripled", "main.triple", "python")


def test_only_what_is_used_travels():
    text = code_of(triple).text or ""
    assert "not_used" not in text
    assert "import pytest" not in text
    assert "import faas" not in text
    assert "@faas" not in text
    assert "@functools.lru_cache" in text


def test_lines_stay_where_they_were():
    text = code_of(triple).text or ""
    with open(__file__) as own:
        lines = own.read().splitlines()
    for number, line in enumerate(text.splitlines()):
        assert line in ("", lines[number])


def test_it_still_runs_here():
    assert triple([1]) == [3, 2.0]
    assert triple.settings == {"memory_mb": 256, "timeout": "5s"}


def test_what_cannot_be_found_is_named():
    with pytest.raises(UnusableSource, match="made_at_run_time"):
        code_of(uses_what_cannot_be_found)


def test_only_functions_of_a_module_can_be_deployed():
    with pytest.raises(UnusableSource, match="top of a module"):
        code_of(lambda payload: payload)

    def inner(payload):
        return payload

    for wrong in (inner, functools.partial(helper, 1), len, TestCase.method):
        with pytest.raises(UnusableSource, match="top of a module"):
            code_of(wrong)


class TestCase:
    def method(self, payload):
        return payload


def test_an_unknown_setting_is_refused_at_once():
    with pytest.raises(InvalidSettings, match="memory_mb"):
        faas.function(memory=3)  # type: ignore[call-arg]
