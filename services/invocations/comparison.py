"""How the ends of two invocations differ: status, error and result."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from faas.json_values import is_json, loads
from services.invocations.records import Record

MOST = 100
"""Differences that are told."""

ABSENT: Any = object()
"""Stands where one side has nothing."""


@dataclass(frozen=True)
class Difference:
    """One place: a JSON pointer, and what is there on either side, or ABSENT."""

    path: str
    before: Any
    after: Any


def compare(before: Record, after: Record) -> tuple[list[Difference], bool]:
    """At most MOST differences of two that have ended, and whether there are more.

    If a result is too large for its row, both are compared by size and checksum alone.
    """
    large = before.result_blob is not None or after.result_blob is not None
    found = list(islice(differences(_end(before, large), _end(after, large)), MOST + 1))
    return found[:MOST], len(found) > MOST


def differences(before: Any, after: Any, path: str = "") -> Iterator[Difference]:
    """Where two JSON documents differ. Numbers are equal if their values are."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            place = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            yield from differences(before.get(key, ABSENT), after.get(key, ABSENT), place)
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            here, there = (side[index] if index < len(side) else ABSENT for side in (before, after))
            yield from differences(here, there, f"{path}/{index}")
    elif isinstance(before, bool) is not isinstance(after, bool) or before != after:
        yield Difference(path, before, after)


def _end(record: Record, large: bool) -> dict[str, Any]:
    """What is compared of a record, as one document."""
    end: dict[str, Any] = {"status": record.status.upper()}
    if record.error is not None:
        # The stack has line numbers, which another version moves.
        end["error"] = {k: v for k, v in record.error.items() if k in ("code", "type", "message")}
    content_type = record.result_type or "application/json"
    if large and record.status == "completed":
        end["result_type"] = content_type
        end["result"] = _summary(record)
    elif record.result is not None:
        end["result_type"] = content_type
        # Bytes are compared as what they are, one by one.
        end["result"] = loads(record.result) if is_json(content_type) else record.result.hex()
    return end


def _summary(record: Record) -> dict[str, Any]:
    """What stands for a result that is not looked into."""
    if record.result_blob is not None:
        return {name: record.result_blob[name] for name in ("size_bytes", "sha256")}
    result = record.result or b""
    return {"size_bytes": len(result), "sha256": hashlib.sha256(result).hexdigest()}
