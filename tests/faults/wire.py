"""A wire between two parts that can be cut, one way or both, or lose one reply."""

import contextlib
import socket
import threading
from pathlib import Path


class Wire:
    """A unix socket in front of another; what is held back goes on when it is mended."""

    def __init__(self, path: Path, target: str) -> None:
        self._path = path
        self._target = target
        self._there = threading.Event()
        self._back = threading.Event()
        self._ends: list[socket.socket] = []
        self._loses: bytes | None = None
        self.lost = threading.Event()
        """Set when the reply that was to be lost was lost."""
        self.mend()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, there: bool = True, back: bool = True) -> None:
        """Let nothing through, from the caller (`there`) or to it (`back`)."""
        if there:
            self._there.clear()
        if back:
            self._back.clear()

    def mend(self) -> None:
        """Let everything through again, what was held back too."""
        self._there.set()
        self._back.set()

    def lose_reply(self, containing: bytes) -> None:
        """Swallow the next reply that contains this, and reset its connection."""
        self.lost.clear()
        self._loses = containing

    def close(self) -> None:
        """End it."""
        self.mend()
        self._path.unlink(missing_ok=True)
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                try:
                    far.connect(self._target)
                except OSError:
                    near.close()
                    far.close()
                    continue
                self._ends += [near, far]
                for source, target, gate in (near, far, self._there), (far, near, self._back):
                    pump = threading.Thread(
                        target=self._pump, args=(source, target, gate), daemon=True
                    )
                    pump.start()

    def _pump(self, source: socket.socket, target: socket.socket, gate: threading.Event) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(65536):
                gate.wait()
                if gate is self._back and self._loses is not None and self._loses in data:
                    self._loses = None
                    self.lost.set()
                    break
                target.sendall(data)
        for end in (target, source):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
