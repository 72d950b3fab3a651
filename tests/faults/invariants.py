"""What must hold after every fault, read from the ledger, the function and PostgreSQL.

L  every id that a client was given ends in a terminal state
T  a terminal state and result never change afterwards
A  starts seen by the function <= attempts recorded <= allowed
E  no acceptance without a committed row
C  nothing is left: no container, process, lease, spool file, list entry, directory
"""

import asyncio
import hashlib
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from services.worker.spool import verdicts_in
from tests.faults.ledger import Ledger
from tests.faults.load import Load, value_of
from tests.faults.stack import WORKERS, Stack
from tests.mesh import eventually

TERMINAL = ("completed", "failed", "timed_out", "dead_lettered", "cancelled")

_ROWS = """
SELECT id, status, attempt, attempt_limit, request_id, result, error,
  payload_blob, result_blob,
  (SELECT count(*) FROM attempts WHERE invocation_id = id) AS closed
FROM invocations WHERE starts_with(request_id, %s)"""


@dataclass(frozen=True)
class Kept:
    """What the invariants found."""

    invocations: int
    reruns: int
    """Starts beyond the first, as the functions saw them."""
    unexpected: list[str]
    """Ends other than COMPLETED."""


async def settled(stack: Stack, ledger: Ledger, load: Load, timeout_s: float) -> float:
    """L: wait until all that was accepted has ended; how long that took."""
    began = time.monotonic()
    waiting = set(ledger.accepted.values()) - ledger.seen.keys()
    async with asyncio.timeout(timeout_s):
        for invocation_id in sorted(waiting):
            while True:
                record = await stack.get(invocation_id, wait_s=10)
                load.note(record)
                if invocation_id in ledger.seen:
                    break
    return time.monotonic() - began


async def check(stack: Stack, ledger: Ledger, load: Load, prefix: str) -> Kept:
    """T, A, E and C, once all has settled."""
    rows = _rows(stack, prefix)
    by_id = {f"inv-{row['id']}": row for row in rows}
    # E: what was answered is there, once, and nothing is there that nobody asked for.
    for request_id, invocation_id in ledger.accepted.items():
        assert by_id[invocation_id]["request_id"] == request_id
    unasked = {row["request_id"] for row in rows} - ledger.asked.keys()
    assert not unasked, unasked
    assert len({row["request_id"] for row in rows}) == len(rows)
    # A call whose answer never came is accepted all the same, and ends like the others.
    for key in by_id.keys() - set(ledger.accepted.values()):
        await stack.get(key, wait_s=60)
    rows = _rows(stack, prefix)
    _check_attempts(rows, load)
    _check_results(rows, load)
    _check_blobs(rows, stack)
    await _check_clean(stack)
    # T: as seen by the client, as they were a moment ago, and as the guard says.
    for invocation_id, seen in ledger.seen.items():
        record = await stack.get(invocation_id)
        assert (record.status, value_of(record)) == seen, (record, seen)
    later = _rows(stack, prefix)
    assert later == rows, [row for row in (*rows, *later) if row not in rows or row not in later]
    with stack.connect() as connection:
        guarded = connection.execute("SELECT invocation_id, wanted, query FROM guard_log")
        refused = guarded.fetchall()
    assert not refused, refused
    starts = _starts(load)
    return Kept(
        invocations=len(rows),
        reruns=sum(starts.values()) - len({key for key, _ in starts}),
        unexpected=[
            f"{row['id']} {row['status']} {row['error']}"
            for row in rows
            if row["status"] != "completed"
        ],
    )


def _has_verdicts(file: Path) -> bool:
    try:
        return any(verdicts_in(file))
    except FileNotFoundError:
        return False  # told meanwhile, and removed


def _rows(stack: Stack, prefix: str) -> list[dict[str, Any]]:
    with stack.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_ROWS, [prefix]).fetchall()
    return sorted(rows, key=lambda row: row["id"])


def _starts(load: Load) -> "Counter[tuple[UUID, int]]":
    lines = [line.split() for line in load.starts.read_text().splitlines()]
    return Counter((UUID(key.removeprefix("inv-")), int(attempt)) for key, attempt in lines)


def _check_attempts(rows: list[dict[str, Any]], load: Load) -> None:
    """A: each granted start was made at most once, and has its row."""
    starts = _starts(load)
    twice = [key for key, count in starts.items() if count > 1]
    assert not twice, twice
    seen = Counter(key for key, _ in starts)
    for row in rows:
        assert row["status"] in TERMINAL, row
        assert seen[row["id"]] <= row["attempt"] <= row["attempt_limit"], row
        assert row["closed"] == row["attempt"], row
        if row["status"] == "completed":
            assert seen[row["id"]] >= 1, row


def _check_results(rows: list[dict[str, Any]], load: Load) -> None:
    """A result is the one of its own payload."""
    for row in rows:
        if row["status"] == "completed":
            blob = row["result_blob"]
            found = blob["sha256"] if blob else int(row["result"])
            assert found == load.expected(row["request_id"]), row


def _check_blobs(rows: list[dict[str, Any]], stack: Stack) -> None:
    """E: what a record names is stored, whole."""
    for row in rows:
        for blob in filter(None, (row["payload_blob"], row["result_blob"])):
            data = (stack.directory / "storage" / blob["key"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (
                blob["size_bytes"],
                blob["sha256"],
            ), row


async def _check_clean(stack: Stack) -> None:
    """C: within a minute, nothing is left."""

    async def lists_are_empty() -> bool:
        names = [key async for key in stack.redis.scan_iter(match="faas:queue:*")]
        return all(name.endswith(b":dead") for name in names)

    left: dict[str, list[Any]] = {}

    async def nothing_is_left() -> bool:
        with stack.connect() as connection:
            query = "SELECT id FROM invocations WHERE status = 'running'"
            left["leases"] = connection.execute(query).fetchall()
        spools = [
            file for name in WORKERS for file in (stack.directory / name / "spool").glob("*.spool")
        ]
        left["directories"] = stack.sandboxes()
        left["processes"] = stack.function_processes()
        left["verdicts"] = list(filter(_has_verdicts, spools))
        left["large"] = [large for file in spools for large in file.parent.glob("large/*")]
        return not any(left.values())

    await eventually("the queue and its lists are empty", lists_are_empty, 60)
    try:
        await eventually("nothing is left", nothing_is_left, 60)
    except TimeoutError as error:
        raise AssertionError(f"there is left: {left}") from error
