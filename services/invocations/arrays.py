"""Arrays as PostgreSQL writes them.

psycopg adapts lists element by element in Python: a tenth of InvocationService's time,
with the two dozen arrays of a statement. Bytes are left to it, which sends them as
they are.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar
from uuid import UUID

Value = TypeVar("Value")


def uuids(values: Iterable[UUID | None]) -> str:
    """`{…}` of them; None is NULL, here and below."""
    return _array(values, lambda value: value.hex)


def numbers(values: Iterable[float | bool]) -> str:
    """Of integers, floats and booleans."""
    return _array(values, str)


def moments(values: Iterable[datetime | None]) -> str:
    """Of moments with their time zone."""
    return _array(values, datetime.isoformat)


def texts(values: Iterable[str | None]) -> str:
    """Of any text that PostgreSQL takes."""
    return _array(values, _quoted)


def _array(values: Iterable[Value | None], write: Callable[[Value], str]) -> str:
    return "{" + ",".join(["NULL" if one is None else write(one) for one in values]) + "}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
