"""Chunks of lines as workers send them: again after every break, and never too much."""

from collections.abc import AsyncIterator

import pytest

from faas.v1.invocation_pb2 import LogLine
from services.ids import new_uuid
from services.invocations.database import Database
from services.invocations.logs import Chunk, Logs, Position
from services.invocations.records import Record, Records
from tests.integration.test_records import a_boot, accepted

MAX_BYTES = 1000


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, connections=2)
    await database.open()
    yield database
    await database.close()


def chunk(record: Record, sequence: int, characters: int, text: str = "x") -> Chunk:
    line = LogLine(stream=LogLine.STDOUT, text=text * (characters - 1))
    return Chunk(record.id, record.attempt, sequence, [line])


async def kept(logs: Logs, record: Record) -> list[str]:
    lines, _ = await logs.read(record.id, Position(), 1000)
    return [line.text[0] for line in lines]


async def test_what_comes_again_after_each_break_leaves_room_for_more(database: Database) -> None:
    records, logs = Records(database), Logs(database, max_bytes=MAX_BYTES)
    boot = await a_boot(database)
    granted = await records.grant((await accepted(records)).id, new_uuid(), boot, new_uuid())
    assert granted is not None
    sent: list[Chunk] = []
    for sequence, text in enumerate("abcdefgh"):
        sent.append(chunk(granted, sequence, MAX_BYTES // 10, text))
        await logs.append(sent, boot)
    assert await kept(logs, granted) == list("abcdefgh")


async def test_no_more_is_kept_whatever_is_sent(database: Database) -> None:
    records, logs = Records(database), Logs(database, max_bytes=MAX_BYTES)
    boot = await a_boot(database)
    record = await accepted(records)
    early = chunk(Record(**{**vars(record), "attempt": 1}), 0, 2)
    await logs.append([early], boot)  # before the grant: counted, and not kept
    granted = await records.grant(record.id, new_uuid(), boot, new_uuid())
    assert granted is not None
    await logs.append([chunk(granted, 0, 50 * MAX_BYTES, "b")], boot)
    for sequence in range(1, 40):
        await logs.append([chunk(granted, sequence, MAX_BYTES // 10, "c")], boot)
    lines = await kept(logs, granted)
    assert "b" not in lines
    assert len(lines) == 19
