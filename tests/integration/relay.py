"""A dependency that goes away and comes back, without anybody killing it.

It runs on threads of its own, so that it goes on while a test waits for a process.
"""

import contextlib
import socket
import threading
from pathlib import Path


class Relay:
    """A unix socket in front of another."""

    def __init__(self, path: Path, target: str) -> None:
        self._path = path
        self._target = target
        self._ends: list[socket.socket] = []

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
                threading.Thread(target=_pump, args=(near, far), daemon=True).start()
                threading.Thread(target=_pump, args=(far, near), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Hand on what comes; each end is closed by the one that reads it."""
    with source, contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
