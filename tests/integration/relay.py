"""A dependency that goes away and comes back, without anybody killing it.

It runs on threads of its own, so that it goes on while a test waits for a process.
"""

import contextlib
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class Relay:
    """A unix socket in front of another."""

    def __init__(self, path: Path, target: str) -> None:
        self._path = path
        self._target = target
        self._ends: list[socket.socket] = []
        self._cut: _Cut | None = None

    def open(self) -> None:
        """Let connections through."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Break every connection, and refuse new ones."""
        self._path.unlink(missing_ok=True)
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def _accept(self, listener: socket.socket) -> None:
        with listener, contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._ends += [near, far]
                seen = _Seen()
                for pump in (self._there, self._back):
                    threading.Thread(target=pump, args=(near, far, seen), daemon=True).start()

    def cut_at(self, *marks: bytes, when: Literal["asked", "done", "answered"]) -> None:
        """Close, once, when a caller sends the last of these after the others.

        Before it is handed on (`asked`); when its answer has come, which is lost
        (`done`); or when that has been handed back too (`answered`).
        """
        self._cut = _Cut(marks, when)

    def _there(self, near: socket.socket, far: socket.socket, seen: "_Seen") -> None:
        with near, contextlib.suppress(OSError):
            while data := near.recv(65536):
                if self._cut and seen.all_of(self._cut, data):
                    if self._cut.when == "asked":
                        self._cut = None
                        self.close()
                        break
                    seen.cut, self._cut = self._cut, None
                far.sendall(data)
        with contextlib.suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)

    def _back(self, near: socket.socket, far: socket.socket, seen: "_Seen") -> None:
        with far, contextlib.suppress(OSError):
            while data := far.recv(65536):
                if seen.cut is None or seen.cut.when == "answered":
                    near.sendall(data)
                if seen.cut:
                    self.close()
                    break
        with contextlib.suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class _Cut:
    marks: tuple[bytes, ...]
    when: str


class _Seen:
    """What one connection has sent of a cut's marks."""

    def __init__(self) -> None:
        self._count = 0
        self.cut: _Cut | None = None

    def all_of(self, cut: _Cut, data: bytes) -> bool:
        while self._count < len(cut.marks) and cut.marks[self._count] in data:
            self._count += 1
        return self._count == len(cut.marks)
