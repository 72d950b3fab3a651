"""What `faas doctor` finds; whoever brings examinations of their own finds these too.

An installed package registers a callable in the entry point group `faas.examinations`.
It gets the address that is talked to, where that is on this machine, and the directory
that the platform's data is in, None for the usual one; and yields findings.
"""

from dataclasses import dataclass
from enum import StrEnum

EXAMINATIONS_GROUP = "faas.examinations"


class Level(StrEnum):
    """How bad it is."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    cure: str = ""


def good(what: str) -> Finding:
    """As it should be."""
    return Finding(Level.GOOD, what)


def warning(what: str, cure: str) -> Finding:
    """It works, and will not always."""
    return Finding(Level.WARNING, what, cure)


def bad(what: str, cure: str) -> Finding:
    """It cannot work."""
    return Finding(Level.BAD, what, cure)
