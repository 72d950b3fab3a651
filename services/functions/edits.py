"""Creating, changing and deleting functions.

Code is stored before the row that names it is committed, so a crash between leaves
an object that nothing shows, for the sweeper.
"""

import contextlib
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from services.archive import Limits
from services.errors import (
    EtagMismatch,
    FunctionExists,
    InvalidField,
    MeshError,
    UnknownRuntime,
)
from services.functions import keys, uploads
from services.functions.build_waits import BuildWaits
from services.functions.builds import Builds, Source
from services.functions.catalog import NAMESPACE, Catalog, Found, meant, not_found
from services.functions.changes import Changes
from services.functions.database import Database
from services.functions.messages import format_name, format_of, show_etag
from services.functions.requests import Values
from services.functions.sources import Code, received, settle_handler
from services.functions.tables import FunctionRow, VersionRow
from services.ids import new_uuid
from services.storage import CodeStorage, StorageUnavailable

# Changes without an etag that meet others' changes are made anew so often.
TRIES = 10

_OF_FUNCTION = (
    "name",
    "description",
    "labels",
    "retry_policy",
    "max_age_ms",
    "max_concurrency",
    "min_warm",
)
_OF_VERSION = (
    "runtime",
    "handler",
    "memory_mb",
    "cpus",
    "timeout_ms",
    "env",
    "code_format",
    "code_sha256",
    "code_size_bytes",
    "sandbox",
)


@dataclass(frozen=True)
class Edits:
    """All changes of functions."""

    database: Database
    storage: CodeStorage
    catalog: Catalog
    changes: Changes
    builds: Builds
    waits: BuildWaits
    runtimes: Collection[str]
    limits: Limits

    async def create(self, values: Values, code: Code, *, validate: bool = False) -> Found:
        """Make a function and its version 1; with `validate`, if it compiles.

        Raises InvalidField, UnknownRuntime, InvalidArchive, FunctionExists,
        UploadNotFound; and what `BuildWaits.validate` raises.
        """
        self._check_runtime(values["runtime"])
        _check_warm(values["min_warm"], values["sandbox"])
        handler = await settle_handler(code, values["runtime"], values["handler"], self.limits)
        values = values | {"handler": handler} | _code_values(code)
        await self._refuse_taken(values["name"])
        function = FunctionRow(
            id=new_uuid(),
            namespace=NAMESPACE,
            version=1,
            etag=new_uuid(),
            created_at=(now := datetime.now(UTC)),
            updated_at=now,
            **_pick(values, _OF_FUNCTION),
        )
        version = _version(function, values)
        await self.storage.put(keys.of_function(function.id, code.sha256), code.file)
        if validate:
            async with self._unless_refused(function.id, code):
                await self.waits.validate(version, code.field)
        async with self._writing(values["name"]) as session:
            await _take_upload(session, code)
            session.add(function)
            await session.flush()
            session.add(version)
            await session.flush()
            await self.builds.want(session, version)
        self.waits.tell()
        await self._forget_upload(code)
        return function, version

    async def update(
        self,
        reference: str,
        values: Values,
        code: Code | None,
        etag: str,
        *,
        validate: bool = False,
    ) -> Found:
        """Change what `values` and `code` differ in; nothing, if they do not.

        With `validate` it is changed if what comes of it compiles. Code that is there
        already, and did not compile, is tried again.

        Raises FunctionNotFound, EtagMismatch and what `create` raises.
        """
        if "runtime" in values:
            self._check_runtime(values["runtime"])
        for _ in range(1 if etag else TRIES):
            function, version = found = await self.catalog.find(reference)
            if etag and etag != show_etag(function.etag):
                raise EtagMismatch
            wanted = await self._wanted(version, values, code)
            _check_warm(
                wanted.get("min_warm", function.min_warm), wanted.get("sandbox", version.sandbox)
            )
            if _is_so(function, wanted, _OF_FUNCTION) and _is_so(version, wanted, _OF_VERSION):
                await self._retry(version, code, validate=validate)
                return found
            changed = await self._change(function, version, wanted, code, validate=validate)
            if changed is not None:
                await self.changes.announce(function.id)
                return changed
        raise EtagMismatch("The function was changed by others at the same time: try again.")

    async def delete(self, reference: str, etag: str) -> None:
        """Delete a function; its versions stay. Raises FunctionNotFound, EtagMismatch."""
        if etag:
            function, _ = await self.catalog.find(reference)
            if etag != show_etag(function.etag):
                raise EtagMismatch
        statement = update(FunctionRow).where(meant(reference))
        if etag:
            statement = statement.where(FunctionRow.etag == function.etag)
        async with self.database.transaction() as session:
            statement = statement.values(deleted_at=datetime.now(UTC), etag=new_uuid())
            returned = await session.execute(statement.returning(FunctionRow.id))
            deleted = returned.scalar_one_or_none()
            if deleted is None:
                raise EtagMismatch if etag else not_found(reference)
        await self.changes.announce(deleted)

    def _check_runtime(self, runtime: str) -> None:
        if runtime not in self.runtimes:
            known = ", ".join(self.runtimes)
            raise UnknownRuntime.of(
                "runtime", f"this deployment has no {runtime}, but {known}", runtimes=known
            )

    async def _refuse_taken(self, name: str) -> None:
        """Before anything is stored; the index refuses who comes at the same time."""
        async with self.database.reading() as session:
            taken = await session.execute(select(FunctionRow.id).where(meant(name)))
            if taken.one_or_none() is not None:
                raise _exists(name)

    async def _wanted(self, version: VersionRow, values: Values, code: Code | None) -> Values:
        """All that the change asks for, its handler found."""
        runtime = values.get("runtime", version.runtime)
        handler = values.get("handler", version.handler if runtime == version.runtime else None)
        wanted = values if code is None else values | _code_values(code)
        if code is None and (runtime, handler) == (version.runtime, version.handler):
            return wanted
        async with self._code_of(version, code) as there:
            return wanted | {"handler": await settle_handler(there, runtime, handler, self.limits)}

    @asynccontextmanager
    async def _code_of(self, version: VersionRow, code: Code | None) -> AsyncIterator[Code]:
        """The new code, or that of the version."""
        if code is not None:
            yield code
            return
        chunks = self.storage.get(keys.of_function(version.function_id, version.code_sha256))
        code_format = format_of(version.code_format)
        async with received(chunks, "handler", code_format=code_format) as stored:
            yield stored

    async def _retry(self, version: VersionRow, code: Code | None, *, validate: bool) -> None:
        """What is there is what was asked for, but for a build that failed."""
        source = Source.of(version)
        if validate:
            await self.waits.validate(version, code.field if code else "code")
        elif code and source.is_compiled:
            await self.builds.try_again(source, version.code_format)
            self.waits.tell()

    async def _change(
        self,
        function: FunctionRow,
        version: VersionRow,
        wanted: Values,
        code: Code | None,
        *,
        validate: bool,
    ) -> Found | None:
        """Write; None where somebody else was faster."""
        new_version = not _is_so(version, wanted, _OF_VERSION)
        latest = {name: getattr(version, name) for name in _OF_VERSION}
        key = keys.of_function(function.id, code.sha256) if code and new_version else None
        if key and code:
            await self.storage.put(key, code.file)
        if validate:
            field = code.field if code else "handler"
            await self.waits.validate(_version(function, latest | wanted), field)
        values = _pick(wanted, _OF_FUNCTION)
        values |= {
            "version": function.version + new_version,
            "etag": new_uuid(),
            "updated_at": datetime.now(UTC),
        }
        statement = (
            update(FunctionRow)
            .where(FunctionRow.id == function.id, FunctionRow.etag == function.etag)
            .where(FunctionRow.deleted_at.is_(None))
            .values(values)
            .returning(FunctionRow)
        )
        async with self._writing(wanted.get("name", function.name)) as session:
            changed = (await session.execute(statement)).scalar_one_or_none()
            if changed is None:
                return None
            if code:
                await _take_upload(session, code)
            if new_version:
                version = _version(changed, latest | wanted)
                session.add(version)
                await session.flush()
                await self.builds.want(session, version)
            # From here the row's lock keeps the sweeper away; it may have been before.
            if key and code and await self.storage.find(key) is None:
                await self.storage.put(key, code.file)
        self.waits.tell()
        if code:
            await self._forget_upload(code)
        return changed, version

    @asynccontextmanager
    async def _writing(self, name: str) -> AsyncIterator[AsyncSession]:
        try:
            async with self.database.transaction() as session:
                yield session
        except IntegrityError as error:
            diagnosis = getattr(error.orig, "diag", None)
            if getattr(diagnosis, "constraint_name", None) != "functions_name":
                raise
            raise _exists(name) from error

    @asynccontextmanager
    async def _unless_refused(self, function: UUID, code: Code) -> AsyncIterator[None]:
        """Of a function that is refused the code goes too: nobody else can have its key."""
        try:
            yield
        except MeshError:
            # If it fails the sweeper does it.
            with contextlib.suppress(StorageUnavailable):
                await self.storage.delete(keys.of_function(function, code.sha256))
            raise

    async def _forget_upload(self, code: Code) -> None:
        if code.upload is not None:
            # If it fails the sweeper does it.
            with contextlib.suppress(StorageUnavailable):
                await self.storage.delete(keys.of_upload(code.upload, code.sha256))


def _check_warm(min_warm: int | None, sandbox: str | None) -> None:
    if min_warm and sandbox == "one_shot":
        raise InvalidField.of("min_warm", "must be 0 where the sandbox is ONE_SHOT")


async def _take_upload(session: AsyncSession, code: Code) -> None:
    if code.upload is not None:
        await uploads.take(session, code.upload)


def _code_values(code: Code) -> Values:
    return {
        "code_format": format_name(code.code_format),
        "code_sha256": code.sha256,
        "code_size_bytes": code.size_bytes,
    }


def _version(function: FunctionRow, values: Values) -> VersionRow:
    return VersionRow(
        function_id=function.id,
        version=function.version,
        created_at=function.updated_at,
        **_pick(values, _OF_VERSION),
    )


def _pick(values: Values, names: Collection[str]) -> Values:
    return {name: value for name, value in values.items() if name in names}


def _is_so(row: Any, wanted: Values, names: Collection[str]) -> bool:
    return all(getattr(row, name) == value for name, value in _pick(wanted, names).items())


def _exists(name: str) -> FunctionExists:
    return FunctionExists(f"Another function has the name {name}.", metadata={"name": name})
