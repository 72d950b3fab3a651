"""Builds of functions that are compiled: each source once for each target.

A build waits (`pending`) until a worker takes it (`building`), which renews its lease
and hands in a binary (`ready`) or what the compiler said (`failed`). A lease that ends
makes it anybody's again. Each change is one statement that names the grant, so what a
worker says whose lease was taken over changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Update,
    and_,
    case,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from faas.v1.function_pb2 import FunctionVersion
from services.functions import keys
from services.functions.database import Database
from services.functions.tables import BuildRow, VersionRow
from services.ids import new_uuid
from services.storage import CodeStorage

COMPILED = frozenset({"go"})
"""Runtimes whose functions are compiled. Versions of others can run at once."""
MAX_LOSSES = 3
"""A build that takes so many workers' lives is given up."""
RETRY_S = 5.0
"""A build that was given back waits so long for its next try."""
MAX_REASON_CHARACTERS = 16 * 1024

_OPEN = ("pending", "building")
_STATES = {"ready": FunctionVersion.READY, "failed": FunctionVersion.FAILED}
_OF_SOURCE = ("function_id", "code_sha256", "runtime", "handler")


@dataclass(frozen=True)
class Source:
    """What is built: versions that agree in all of it run the same binary."""

    function_id: UUID
    code_sha256: str
    runtime: str
    handler: str

    @classmethod
    def of(cls, row: VersionRow | BuildRow) -> "Source":
        """That of a version, or of a build."""
        return cls(row.function_id, row.code_sha256, row.runtime, row.handler)

    @property
    def is_compiled(self) -> bool:
        """Whether there is anything to build."""
        return self.runtime in COMPILED


@dataclass(frozen=True)
class State:
    """Whether a version can run, and why not."""

    state: FunctionVersion.State.ValueType
    reason: str = ""


READY = State(FunctionVersion.READY)


@dataclass(frozen=True)
class Builds:
    """All builds, in PostgreSQL; the binaries are in the code storage."""

    database: Database
    storage: CodeStorage
    lease_s: float

    async def states(self, versions: Iterable[VersionRow]) -> Mapping[Source, State]:
        """How the builds of these versions are, where they are compiled at all."""
        sources = {Source.of(version) for version in versions}
        compiled = [source for source in sources if source.is_compiled]
        states = {source: READY for source in sources if not source.is_compiled}
        if not compiled:
            return states
        async with self.database.reading() as session:
            rows = (await session.execute(select(BuildRow).where(_is_of(*compiled)))).scalars()
            builds = list(rows)
        for source in compiled:
            states[source] = _state([row for row in builds if Source.of(row) == source])
        return states

    async def want(self, session: AsyncSession, version: VersionRow) -> None:
        """Have a version built that the session commits, unless that has begun already."""
        source = Source.of(version)
        if source.is_compiled and not await _is_known(session, source):
            await _add(session, source, version.code_format)

    async def try_again(self, source: Source, code_format: str) -> None:
        """Have it built if it is not, even if that failed before."""
        async with self.database.transaction() as session:
            values = {"status": "pending", "reason": "", "losses": 0, **_now("due_at")}
            await session.execute(
                update(BuildRow).where(_is_of(source), BuildRow.status == "failed").values(values)
            )
            if not await _is_known(session, source):
                await _add(session, source, code_format)

    async def is_taken(self, source: Source) -> bool:
        """Whether a worker builds it now."""
        taken = select(BuildRow.id).where(_is_of(source), BuildRow.status == "building").limit(1)
        async with self.database.reading() as session:
            return (await session.execute(taken)).first() is not None

    async def withdraw(self, source: Source) -> None:
        """Forget the builds of a source that no version has."""
        async with self.database.transaction() as session:
            await session.execute(delete(BuildRow).where(_is_of(source), _is_unnamed()))

    async def forget_unnamed(self, age_s: float) -> None:
        """Forget builds that no version has and that have not changed for so long."""
        old = BuildRow.changed_at <= func.now() - timedelta(seconds=age_s)
        async with self.database.transaction() as session:
            await session.execute(delete(BuildRow).where(old, _is_unnamed()))

    async def find(self, source: Source, target: str) -> BuildRow:
        """The build for a target; what nobody asked for before begins to wait for a worker."""
        wanted = select(BuildRow).where(_is_of(source), BuildRow.target == target)
        async with self.database.reading() as session:
            build = (await session.execute(wanted)).scalar_one_or_none()
        if build is not None:
            return build
        async with self.database.transaction() as session:
            # The one that is for anybody is for this target then, if nobody took it.
            adopt = update(BuildRow).where(
                _is_of(source), BuildRow.target == "", BuildRow.status == "pending"
            )
            adopted = await session.execute(adopt.values(target=target).returning(BuildRow.id))
            if adopted.scalar_one_or_none() is None:
                code_format = select(VersionRow.code_format).where(
                    VersionRow.function_id == source.function_id,
                    VersionRow.code_sha256 == source.code_sha256,
                )
                found = (await session.execute(code_format.limit(1))).scalar_one()
                await _add(session, source, found, target)
            return (await session.execute(wanted)).scalar_one()

    async def take(self, runtime: str, target: str, worker_id: str) -> BuildRow | None:
        """Grant a build to a worker; None: there is none."""
        values = {
            "status": "building",
            "target": target,
            "grant_id": new_uuid(),
            "worker_id": worker_id,
            "losses": BuildRow.losses + case((BuildRow.status == "building", 1), else_=0),
            "changed_at": func.now(),
            "due_at": self._lease_end(),
        }
        due = _due(runtime, target).scalar_subquery()
        statement = update(BuildRow).where(BuildRow.id == due).values(values)
        async with self.database.transaction() as session:
            await session.execute(_give_up_deadly())
            return (await session.execute(statement.returning(BuildRow))).scalar_one_or_none()

    async def granted(self, grant: UUID) -> BuildRow | None:
        """The build that a worker has by this grant."""
        async with self.database.reading() as session:
            return (
                await session.execute(select(BuildRow).where(_held(grant)))
            ).scalar_one_or_none()

    async def renew(self, grant: UUID) -> bool:
        """Begin the lease anew; False: it is not the worker's any more."""
        return await self._change(grant, due_at=self._lease_end())

    async def built(self, build: BuildRow, sha256: str, file: Path) -> bool:
        """Keep the binary; False: the grant was over."""
        if build.grant_id is None:
            return False
        # Under a key of the grant's own: nothing is ever overwritten.
        await self.storage.put(binary_key(build), file)
        return await self._change(
            build.grant_id, status="ready", reason="", binary_sha256=sha256, **_now()
        )

    async def failed(self, grant: UUID, reason: str) -> bool:
        """Note what the compiler said; False: the grant was over."""
        values = {"status": "failed", "reason": _text(reason)}
        return await self._change(grant, **values, **_now())

    async def given_back(self, grant: UUID, reason: str) -> bool:
        """Let it be tried again, a little later; False: the grant was over."""
        due_at = func.now() + timedelta(seconds=RETRY_S)
        values = {"status": "pending", "reason": _text(reason), "due_at": due_at, "grant_id": None}
        return await self._change(grant, **values, changed_at=func.now())

    async def lost_binary(self, build: BuildRow) -> None:
        """Have it built again: the storage does not have it."""
        statement = update(BuildRow).where(
            BuildRow.id == build.id,
            BuildRow.grant_id == build.grant_id,
            BuildRow.status == "ready",
        )
        values = {"status": "pending", "grant_id": None, "binary_sha256": None, **_now("due_at")}
        async with self.database.transaction() as session:
            await session.execute(statement.values(values))

    async def _change(self, grant: UUID, **values: object) -> bool:
        statement = update(BuildRow).where(_held(grant)).values(values).returning(BuildRow.id)
        async with self.database.transaction() as session:
            return (await session.execute(statement)).scalar_one_or_none() is not None

    def _lease_end(self) -> ColumnElement[datetime]:
        return func.now() + timedelta(seconds=self.lease_s)


def _state(builds: list[BuildRow]) -> State:
    """Of a version's builds the one decides that ended last: what new workers would run."""
    ended = [build for build in builds if build.status in _STATES]
    if ended:
        last = max(ended, key=lambda build: build.changed_at)
        return State(_STATES[last.status], last.reason)
    reasons = (build.reason for build in builds if build.reason)
    return State(FunctionVersion.BUILDING, next(reasons, ""))


def state_of(build: BuildRow) -> State:
    """How one build is."""
    return State(_STATES.get(build.status, FunctionVersion.BUILDING), build.reason)


def binary_key(build: BuildRow) -> str:
    """Where the binary of a build is, beside the code that it was made of."""
    assert build.grant_id is not None, "nobody has built it"
    return keys.of_binary(build.function_id, build.code_sha256, build.grant_id)


def _is_of(*sources: Source) -> ColumnElement[bool]:
    columns = tuple_(*(getattr(BuildRow, name) for name in _OF_SOURCE))
    return columns.in_([tuple(getattr(one, name) for name in _OF_SOURCE) for one in sources])


def _is_unnamed() -> ColumnElement[bool]:
    same = (getattr(VersionRow, name) == getattr(BuildRow, name) for name in _OF_SOURCE)
    return ~select(VersionRow.version).where(*same).correlate(BuildRow).exists()


def _held(grant: UUID) -> ColumnElement[bool]:
    return and_(BuildRow.grant_id == grant, BuildRow.status == "building")


def _due(runtime: str, target: str) -> "Select[UUID]":
    """The build that comes first for a worker with this target, locked against others."""
    candidate, other = aliased(BuildRow), aliased(BuildRow)
    same = (getattr(other, name) == getattr(candidate, name) for name in _OF_SOURCE)
    has_own = select(other.id).where(*same, other.target == target).exists()
    return (
        select(candidate.id)
        .where(candidate.status.in_(_OPEN), candidate.due_at <= func.now())
        .where(candidate.runtime == runtime)
        .where(or_(candidate.target == target, and_(candidate.target == "", ~has_own)))
        .order_by(candidate.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def _give_up_deadly() -> Update:
    """What cost one worker after the other would cost the next."""
    reason = f"{MAX_LOSSES} workers were lost while they built it. Deploy it again to try again."
    return (
        update(BuildRow)
        .where(BuildRow.status == "building", BuildRow.due_at <= func.now())
        .where(BuildRow.losses >= MAX_LOSSES - 1)
        .values(status="failed", reason=reason, **_now())
    )


async def _is_known(session: AsyncSession, source: Source) -> bool:
    known = select(BuildRow.id).where(_is_of(source)).limit(1)
    return (await session.execute(known)).first() is not None


async def _add(session: AsyncSession, source: Source, code_format: str, target: str = "") -> None:
    values = {name: getattr(source, name) for name in _OF_SOURCE} | {
        "id": new_uuid(),
        "code_format": code_format,
        "target": target,
        "status": "pending",
        "reason": "",
        "worker_id": "",
        "losses": 0,
        "created_at": func.now(),
        **_now("due_at"),
    }
    await session.execute(insert(BuildRow).values(values).on_conflict_do_nothing())


def _now(*columns: str) -> dict[str, object]:
    """That it changed, and these columns too, at this moment."""
    return dict.fromkeys((*columns, "changed_at"), func.now())


def _text(reason: str) -> str:
    # PostgreSQL refuses NUL in text.
    return reason.replace("\0", "�")[:MAX_REASON_CHARACTERS]
