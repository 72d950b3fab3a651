"""Arrays come out of PostgreSQL as they went in."""

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.invocations import arrays
from services.invocations.database import Database
from tests.integration.invocations import database

__all__ = ["database"]

# What PostgreSQL takes: no NUL, no lone surrogates.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))
ONCE_A_DATABASE = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@ONCE_A_DATABASE
@given(
    st.lists(st.none() | TEXTS | st.sampled_from(["NULL", "null", "{}", '"', "\\", "a,b", " "])),
    st.lists(st.none() | st.uuids()),
    st.lists(st.integers(-(2**31), 2**31 - 1)),
    st.lists(st.floats(allow_nan=False)),
    st.lists(st.booleans()),
    st.lists(st.none() | MOMENTS),
)
async def test_they_are_the_same(
    database: Database,
    texts: list[str | None],
    uuids: list[UUID | None],
    integers: list[int],
    floats: list[float],
    booleans: list[bool],
    moments: list[datetime | None],
) -> None:
    query = """SELECT %(texts)s::text[] AS texts, %(uuids)s::uuid[] AS uuids,
      %(integers)s::int[] AS integers, %(floats)s::float8[] AS floats,
      %(booleans)s::bool[] AS booleans, %(moments)s::timestamptz[] AS moments"""
    parameters = {
        "texts": arrays.texts(texts),
        "uuids": arrays.uuids(uuids),
        "integers": arrays.numbers(integers),
        "floats": arrays.numbers(floats),
        "booleans": arrays.numbers(booleans),
        "moments": arrays.moments(moments),
    }
    [row] = await database.fetch(query, parameters)
    assert row == {
        "texts": texts,
        "uuids": uuids,
        "integers": integers,
        "floats": floats,
        "booleans": booleans,
        "moments": moments,
    }
