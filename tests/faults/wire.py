"""A wire between two parts that can be cut, one way or both, or lose one reply."""

import contextlib
import socket
import threading
from pathlib import Path


class Wire:
    """A unix socket in front of others; what is held back goes on when it is mended."""

    _path: Path | None

    def __init__(self, path: Path, *targets: str) -> None:
        """Lead connections to `targets` by turns, past those that nobody listens on."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        self._path = path
        self._begin(listener, targets)

    @classmethod
    def over_tcp(cls, host: str, *targets: str) -> "Wire":
        """The same on a free TCP port of `host`."""
        wire = cls.__new__(cls)
        wire._path = None
        wire._begin(socket.create_server((host, 0)), targets)
        return wire

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._listener.getsockname()[1])

    def _begin(self, listener: socket.socket, targets: tuple[str, ...]) -> None:
        self._targets = list(targets)
        self._there = threading.Event()
        self._back = threading.Event()
        self._ends: list[socket.socket] = []
        self._loses: bytes | None = None
        self.lost = threading.Event()
        """Set when the reply that was to be lost was lost."""
        self.mend()
        self._listener = listener
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

    def reset(self) -> None:
        """End every connection; new ones go through."""
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self.mend()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self.reset()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = self._connected()
                if far is None:
                    near.close()
                    continue
                self._ends += [near, far]
                for source, target, gate in (near, far, self._there), (far, near, self._back):
                    pump = threading.Thread(
                        target=self._pump, args=(source, target, gate), daemon=True
                    )
                    pump.start()

    def _connected(self) -> socket.socket | None:
        """A connection to the next target that takes one."""
        for _ in self._targets:
            target = self._targets.pop(0)
            self._targets.append(target)
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(target)
            except OSError:
                far.close()
            else:
                return far
        return None

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
