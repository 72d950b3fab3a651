"""The grammar of filters: what is refused, and that values are bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

from services.errors import InvalidFilter
from services.functions.filters import parse_filter, parse_order


def sql(text: str) -> tuple[str, list[object]]:
    condition = parse_filter(text)
    assert condition is not None
    compiled = condition.compile(dialect=postgresql.dialect(paramstyle="format"))
    return str(compiled).replace("::VARCHAR", ""), list(compiled.params.values())


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_no_filter_is_no_condition(text: str) -> None:
    assert parse_filter(text) is None


def test_or_binds_tighter_than_and_as_in_aip_160() -> None:
    text, _ = sql('name = "a" AND name = "b" OR name = "c"')
    assert text == "functions.name = %s AND (functions.name = %s OR functions.name = %s)"


def test_values_are_bound() -> None:
    text, values = sql('name = "\'; DROP TABLE functions; --"')
    assert "DROP" not in text
    assert values == ["'; DROP TABLE functions; --"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('name = "it\'s"', "it's"),
        (r'name = "a \"b\" \\"', 'a "b" \\'),
        ("name = 'x y'", "x y"),
        ("name = plain-word", "plain-word"),
        ("name = 10x", "10x"),
        ("name = ORDER", "ORDER"),
        ("version = -1", -1),
    ],
)
def test_values_are_what_they_say(text: str, value: object) -> None:
    assert sql(text)[1] == [value]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name", "does not parse at its end"),
        ("(name = a", "does not parse at its end"),
        ("= a", "does not parse at character 1"),
        ("name == a", "does not parse at character 7"),
        ("name = AND", "does not parse at character 8"),
        ('name = "a', "does not parse at character 8"),
        ("name = a OR", "does not parse at its end"),
        ("memory = 1", "no field 'memory'"),
        ("name.first = a", "no field 'name.first'"),
        ("labels = a", "no field 'labels'"),
        ("labels.a.b = c", "no field 'labels.a.b'"),
        ("version = 1.5", "version is compared with an integer"),
        ("version = 99999999999999999999", "version is compared with an integer"),
        ("version : 1", "does not go with version"),
        ("created_at > yesterday", "created_at is compared with a moment"),
        ('created_at > "2026-01-31"', "created_at is compared with a moment"),
        ('created_at > "0001-01-01T00:00:00+23:59"', "created_at is compared with a moment"),
        ('created_at > "9999-12-31T23:59:59-23:59"', "created_at is compared with a moment"),
        ('name = "a\x00"', "NUL"),
        ("(" * 33 + "name = a" + ")" * 33, "more than 32 parentheses"),
    ],
)
def test_a_wrong_filter_is_refused_and_named(text: str, told: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(text)
    assert told in caught.value.message
    assert [v.field for v in caught.value.violations] == ["filter"]


_PIECES = ["(", ")", "AND", "OR", "NOT", "-", "name", "version", "labels.x", "=", ":", "<", '"a"']


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_PIECES)).map(" ".join)))
def test_any_text_is_a_condition_or_an_invalid_filter(text: str) -> None:
    try:
        condition = parse_filter(text)
    except InvalidFilter:
        return
    if condition is not None:
        condition.compile(dialect=postgresql.dialect())


def test_orders() -> None:
    assert parse_order("") == ("created_at", True)
    assert parse_order("name") == ("name", False)
    assert parse_order(" updated_at  desc ") == ("updated_at", True)


@pytest.mark.parametrize("text", ["id", "name down", "name desc desc", "name, created_at", "name;"])
def test_a_wrong_order_is_refused(text: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_order(text)
    assert [v.field for v in caught.value.violations] == ["order_by"]
