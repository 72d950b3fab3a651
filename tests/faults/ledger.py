"""What a client was told, on disk before it goes on: the one witness that no part has."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Ledger:
    """An append-only file, each entry flushed, and the same in memory."""

    path: Path
    asked: dict[str, Any] = field(default_factory=dict)
    """By request id: the payload."""
    accepted: dict[str, str] = field(default_factory=dict)
    """By request id: the invocation's id that was answered."""
    seen: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """By invocation id: status and result, once it was seen to have ended."""
    failures: list[str] = field(default_factory=list)
    """Calls that failed even when they were made again."""

    def __post_init__(self) -> None:
        self._file = self.path.open("a")

    def ask(self, request_id: str, payload: Any) -> None:
        """Before the call."""
        self.asked[request_id] = payload
        self._write({"asked": request_id, "payload": payload})

    def accept(self, request_id: str, invocation_id: str) -> None:
        """After an answer. A request id is always answered with the same id."""
        known = self.accepted.setdefault(request_id, invocation_id)
        self._write({"accepted": request_id, "id": invocation_id})
        assert known == invocation_id, f"{request_id} made {known} and {invocation_id}"

    def see(self, invocation_id: str, status: int, result: Any) -> None:
        """It was seen to have ended. What has ended never changes."""
        known = self.seen.setdefault(invocation_id, (status, result))
        self._write({"seen": invocation_id, "status": status, "result": result})
        assert known == (status, result), f"{invocation_id} was {known}, is {(status, result)}"

    def fail(self, request_id: str, error: str) -> None:
        """A call failed, and so did its repetition."""
        self.failures.append(f"{request_id}: {error}")
        self._write({"failed": request_id, "error": error})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
