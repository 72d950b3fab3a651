"""Blobs and the records that name them: what is swept, what is kept, what goes with its day."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from services.ids import new_uuid
from services.invocations.blobs import Blob, Blobs, one, result_blob
from services.invocations.database import Database
from services.invocations.orphans import Orphans
from services.invocations.partitions import Partitions, first_id
from services.invocations.records import Ending, Records
from services.storage import FileStorage
from tests.integration.invocations import arrival, boot, database, records

__all__ = ["boot", "database", "records"]

AGE_S = 3600.0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def blobs(directory: Path) -> Blobs:
    return Blobs(FileStorage(directory), max_payload_bytes=1000, max_result_bytes=1000, transfers=2)


@pytest.fixture
def orphans(database: Database, directory: Path) -> Orphans:
    return Orphans(database, FileStorage(directory), interval_s=1, age_s=AGE_S)


def grow_old(directory: Path) -> None:
    """Have everything written longer ago than orphans may be."""
    then = (datetime.now(UTC) - timedelta(seconds=AGE_S + 60)).timestamp()
    for path in directory.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def keys(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}


async def accepted(records: Records, blobs: Blobs, key: UUID | None = None) -> tuple[UUID, Blob]:
    """A record with a payload of its own."""
    key = key or new_uuid()
    blob = await blobs.keep_payload(key, one(b"payload"), "body")
    values = {**arrival(offer=False), "payload": b"", "payload_blob": blob.to_row()}
    await records.accept(key, **values)
    return key, blob


async def test_what_no_record_names_is_swept_when_it_is_old(
    records: Records, blobs: Blobs, orphans: Orphans, directory: Path, boot: UUID
) -> None:
    named, payload = await accepted(records, blobs)
    ended, _ = await accepted(records, blobs)
    for key in (named, ended):
        assert await records.grant(key, new_uuid(), boot, new_uuid())
    result = result_blob(ended, 1, boot, 6, "0" * 64)
    # Of a start that has not ended it may still be told.
    untold = result_blob(named, 1, boot, 6, "0" * 64)
    lost = await blobs.keep_payload(new_uuid(), one(b"accepted by nobody"), "body")
    for blob in (result, untold):
        file = directory / blob.key
        file.write_bytes(b"result")
    (directory / payload.key).with_name(".writing-abc").write_bytes(b"resu")
    before = keys(directory)
    assert await orphans.sweep() == 0
    assert keys(directory) == before

    grow_old(directory)
    assert await orphans.sweep() == 2
    gone = before - keys(directory)
    assert gone == {lost.key, str(Path(payload.key).with_name(".writing-abc"))}

    # Two have ended: one with its result, one without.
    told = Ending("completed", result_type="a/b", result_blob=result.to_row())
    assert await records.conclude(ended, 1, boot, told)
    await records.cancel([named])
    assert await orphans.sweep() == 1
    assert untold.key not in keys(directory)
    assert {payload.key, result.key} <= keys(directory)
    assert await orphans.sweep() == 0


async def test_a_day_goes_with_its_folder(
    database: Database, records: Records, blobs: Blobs, directory: Path
) -> None:
    today = datetime.now(UTC).date()
    old_day, kept_day = today - timedelta(days=31), today - timedelta(days=30)
    partitions = Partitions(database, retention_days=30, on_drop=blobs.drop_day)
    await partitions.ensure(old_day)
    old, _ = await accepted(records, blobs, UUID(int=first_id(old_day).int + 5))
    _, kept = await accepted(records, blobs, UUID(int=first_id(kept_day).int + 5))
    await partitions.expire(today)
    assert len(keys(directory)) == 2  # it is unfinished
    await records.cancel([old])
    await partitions.expire(today)
    assert keys(directory) == {kept.key}
    assert not (directory / f"invocations/{old_day:%Y%m%d}").exists()


async def test_a_day_dropped_before_its_folder_was_is_swept(
    database: Database, records: Records, blobs: Blobs, orphans: Orphans, directory: Path
) -> None:
    today = datetime.now(UTC).date()
    old_day = today - timedelta(days=31)
    partitions = Partitions(database, retention_days=30)
    await partitions.ensure(old_day)
    old, _ = await accepted(records, blobs, UUID(int=first_id(old_day).int + 5))
    await records.cancel([old])
    await partitions.expire(today)
    assert len(keys(directory)) == 1
    grow_old(directory)
    assert await orphans.sweep() == 1
    assert keys(directory) == set()


async def test_only_what_is_stored_counts_as_stored(blobs: Blobs, directory: Path) -> None:
    blob = result_blob(new_uuid(), 1, new_uuid(), 6, "0" * 64)
    assert not await blobs.is_stored(blob)
    file = directory / blob.key
    file.parent.mkdir(parents=True)
    file.write_bytes(b"resul")
    assert not await blobs.is_stored(blob)
    file.write_bytes(b"result")
    assert await blobs.is_stored(blob)
