"""Values of options that are more than one word."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from faas.cli.failures import Failed

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def pairs(option: str, given: Sequence[str] | None) -> dict[str, str]:
    """`KEY=VALUE` and again, as a map."""
    found = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Failed(f"{option} {text!r} must be KEY=VALUE.")
        found[key] = value
    return found


def moment(option: str, text: str | None) -> datetime | None:
    """A moment: `90s`, `15m`, `2h`, `7d` ago, or RFC 3339."""
    if not text:
        return None
    try:
        if text[-1] in _UNITS:
            return datetime.now(UTC) - timedelta(seconds=float(text[:-1]) * _UNITS[text[-1]])
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise Failed(
            f"{option} {text!r} is no moment: say how long ago (15m, 2h, 7d), or when"
            " (2026-01-31T12:00:00Z)."
        ) from error
    return found if found.tzinfo else found.astimezone()


def later(option: str, text: str | None) -> datetime | None:
    """A moment to come: in `90s`, `15m`, `2h`, `7d`."""
    if not text:
        return None
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds_of(option, text))
    except OverflowError as error:
        raise Failed(f"{option} {text!r} is too far away.") from error


def seconds_of(option: str, text: str) -> float:
    """A length of time: `90s`, `15m`, `2h`, `7d`."""
    try:
        return float(text[:-1]) * _UNITS[text[-1]]
    except (KeyError, ValueError) as error:
        raise Failed(f"{option} {text!r} is no time: write it as 90s, 15m, 2h or 7d.") from error
