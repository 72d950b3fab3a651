"""Runtimes that this worker cannot run just now: offers of them are declined at once."""

import time
from dataclasses import dataclass

FIRST_S = 1.0
LONGEST_S = 60.0


@dataclass
class _Pause:
    reason: str
    length_s: float
    until: float


class Pauses:
    """Which runtimes pause, and why; longer each time that they fail."""

    def __init__(self) -> None:
        """Begin with none."""
        self._pauses: dict[str, _Pause] = {}

    def pause(self, runtime: str, reason: str) -> None:
        """It could not be run: leave it alone for a while."""
        before = self._pauses.get(runtime)
        length_s = FIRST_S if before is None else min(LONGEST_S, before.length_s * 2)
        self._pauses[runtime] = _Pause(reason, length_s, time.monotonic() + length_s)

    def worked(self, runtime: str) -> None:
        """It could be run."""
        self._pauses.pop(runtime, None)

    def reason(self, runtime: str) -> str | None:
        """Why it pauses; None: it does not."""
        pause = self._pauses.get(runtime)
        return pause.reason if pause and time.monotonic() < pause.until else None
