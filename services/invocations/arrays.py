"""Arrays as PostgreSQL writes them.

psycopg adapts lists element by element in Python: a tenth of InvocationService's time,
with the two dozen arrays of a statement. Bytes are left to it, which sends them as
they are.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID


def uuids(values: Iterable[UUID | None]) -> str:
    """`{…}` of them; None is NULL, here and below."""
    return _array([None if value is None else value.hex for value in values])


def numbers(values: Iterable[float | bool]) -> str:
    """Of integers, floats and booleans."""
    return _array([str(value) for value in values])


def moments(values: Iterable[datetime | None]) -> str:
    """Of moments with their time zone."""
    return _array([None if value is None else value.isoformat() for value in values])


def texts(values: Iterable[str | None]) -> str:
    """Of any text that PostgreSQL takes."""
    return _array([None if value is None else _quoted(value) for value in values])


def _array(elements: list[str | None]) -> str:
    return "{" + ",".join(["NULL" if one is None else one for one in elements]) + "}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
