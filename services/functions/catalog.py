"""Functions and versions as they are: all reads."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from services import ids
from services.errors import FunctionNotFound, VersionNotFound
from services.functions.database import Database
from services.functions.filters import ORDERS
from services.functions.tables import FunctionRow, VersionRow

NAMESPACE = "default"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")

Found = tuple[FunctionRow, VersionRow]
"""A function with its latest version."""


@dataclass(frozen=True)
class Order:
    """By what functions are listed; the id decides between equals."""

    field: str
    descending: bool


@dataclass(frozen=True)
class Position:
    """The last function of the page before: its value of the order's field, and its id."""

    value: Any
    id: UUID


class Catalog:
    """What there is in PostgreSQL. No read ever sees half a change."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database

    async def find(self, reference: str) -> Found:
        """A function by id or name. Raises FunctionNotFound."""
        async with self._database.reading() as session:
            return await _find(session, reference)

    async def find_version(self, reference: str, number: int) -> tuple[FunctionRow, VersionRow]:
        """One version of a function by id or name; 0 is the latest.

        Raises FunctionNotFound, VersionNotFound.
        """
        async with self._database.reading() as session:
            function, version = await _find(session, reference)
            if number not in (0, function.version):
                version = await _version(session, function.id, number)
            return function, version

    async def find_kept_version(self, function_id: str, number: int) -> VersionRow:
        """One version by its function's id, deleted or not. Raises VersionNotFound."""
        async with self._database.reading() as session:
            return await _version(session, ids.parse(ids.FUNCTION, function_id), number)

    async def list_functions(
        self,
        *,
        limit: int,
        order: Order,
        after: Position | None,
        condition: ColumnElement[bool] | None,
    ) -> Sequence[Found]:
        """At most `limit` functions that meet `condition`, those after a position."""
        keys: tuple[Any, Any] = (ORDERS[order.field], FunctionRow.id)
        query = _latest().limit(limit)
        query = query.order_by(*(key.desc() if order.descending else key.asc() for key in keys))
        if condition is not None:
            query = query.where(condition)
        if after is not None:
            here, there = tuple_(*keys), tuple_(after.value, after.id)
            query = query.where(here < there if order.descending else here > there)
        async with self._database.reading() as session:
            return [(function, version) for function, version in await session.execute(query)]

    async def list_versions(
        self, reference: str, *, limit: int, before: int | None
    ) -> Sequence[VersionRow]:
        """At most `limit` versions of a function, newest first. Raises FunctionNotFound."""
        async with self._database.reading() as session:
            function, _ = await _find(session, reference)
            query = (
                select(VersionRow)
                .where(VersionRow.function_id == function.id)
                .order_by(VersionRow.version.desc())
                .limit(limit)
            )
            if before is not None:
                query = query.where(VersionRow.version < before)
            return (await session.execute(query)).scalars().all()

    async def limits(self) -> dict[UUID, int]:
        """The `max_concurrency` of those that have one, deleted or not."""
        query = select(FunctionRow.id, FunctionRow.max_concurrency).where(
            FunctionRow.max_concurrency.is_not(None)
        )
        async with self._database.reading() as session:
            return {key: most for key, most in await session.execute(query) if most}

    async def kept_warm(self) -> Sequence[Found]:
        """Those of which sandboxes are to be kept ready, oldest first."""
        query = _latest().where(FunctionRow.min_warm.is_not(None)).order_by(FunctionRow.id)
        async with self._database.reading() as session:
            return [(function, version) for function, version in await session.execute(query)]


def meant(reference: str) -> ColumnElement[bool]:
    """The condition for the function of this id or name. Raises FunctionNotFound."""
    alive = and_(FunctionRow.deleted_at.is_(None), FunctionRow.namespace == NAMESPACE)
    uuid = ids.parse(ids.FUNCTION, reference)
    if uuid is not None:
        return and_(FunctionRow.id == uuid, alive)
    if _NAME.fullmatch(reference) is None:
        raise not_found(reference)  # nothing has such a name
    return and_(FunctionRow.name == reference, alive)


def not_found(reference: str) -> FunctionNotFound:
    """The error of a function that is not there."""
    return FunctionNotFound(f"There is no function {ascii(reference)[1:-1]}.")


def _latest() -> "Select[FunctionRow, VersionRow]":
    same = and_(VersionRow.function_id == FunctionRow.id, VersionRow.version == FunctionRow.version)
    alive = and_(FunctionRow.deleted_at.is_(None), FunctionRow.namespace == NAMESPACE)
    return select(FunctionRow, VersionRow).join(VersionRow, same).where(alive)


async def _find(session: AsyncSession, reference: str) -> Found:
    row = (await session.execute(_latest().where(meant(reference)))).one_or_none()
    if row is None:
        raise not_found(reference)
    function, version = row
    return function, version


async def _version(session: AsyncSession, function: UUID | None, number: int) -> VersionRow:
    version = None
    if function is not None:
        version = await session.get(VersionRow, (function, number))
    if version is None:
        raise VersionNotFound(f"This function has no version {number}.")
    return version
