"""The health of the whole: what each part answers, now.

Every part is asked at once and has one deadline; nothing that it says about
itself beyond that is passed on, so that addresses and errors stay inside.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

SERVING = "SERVING"
NOT_SERVING = "NOT_SERVING"

# Asking one part: returns a detail for people, or nothing; raises if it does not serve.
Probe = Callable[[], Awaitable[str | None]]

log = structlog.get_logger()


class NotServing(Exception):
    """The part answers, and says that it does not serve; the message may be shown."""


@dataclass(frozen=True)
class Part:
    """What one part answered."""

    name: str
    serving: bool
    latency_ms: float
    detail: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As `/health` shows it."""
        shown: dict[str, Any] = {
            "name": self.name,
            "status": SERVING if self.serving else NOT_SERVING,
            "latency_ms": round(self.latency_ms, 1),
        }
        return shown | ({"detail": self.detail} if self.detail else {})


@dataclass(frozen=True)
class Report:
    """What all parts answered at one moment."""

    parts: tuple[Part, ...]
    taken: float = field(default_factory=time.monotonic)

    @property
    def serving(self) -> bool:
        """Whether every part serves: a call can be made and will be run."""
        return all(part.serving for part in self.parts)

    def part(self, name: str) -> bool:
        """Whether the part of this name serves."""
        return any(part.serving for part in self.parts if part.name == name)

    def to_json(self) -> dict[str, Any]:
        """As `/health` shows it."""
        return {
            "status": SERVING if self.serving else NOT_SERVING,
            "parts": [part.to_json() for part in self.parts],
        }


class Health:
    """Asks the parts, and answers from memory those who ask again within `fresh_s`."""

    def __init__(
        self, probes: Mapping[str, Probe], *, timeout_s: float = 2.0, fresh_s: float = 1.0
    ) -> None:
        self._probes = dict(probes)
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._report: Report | None = None
        self._asking = asyncio.Lock()

    async def report(self) -> Report:
        """What the parts answer; at most `fresh_s` old."""
        async with self._asking:
            report = self._report
            if report is None or time.monotonic() - report.taken >= self._fresh_s:
                parts = (self._ask(name, probe) for name, probe in self._probes.items())
                report = self._report = Report(tuple(await asyncio.gather(*parts)))
            return report

    async def _ask(self, name: str, probe: Probe) -> Part:
        started = time.monotonic()
        serving, detail = True, None
        try:
            async with asyncio.timeout(self._timeout_s):
                detail = await probe()
        except TimeoutError:
            serving, detail = False, f"no answer within {self._timeout_s:g} s"
        except NotServing as error:
            serving, detail = False, str(error)
        except Exception as error:
            log.warning("a part does not answer", name=name, error=str(error))
            serving, detail = False, "does not answer"
        return Part(name, serving, (time.monotonic() - started) * 1000, detail)
