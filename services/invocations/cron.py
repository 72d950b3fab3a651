"""Cron lines: the moments that they name, in a time zone.

Fields mean what they do in Debian's cron, and so do the days on which clocks change
(https://manpages.debian.org/cron): what has a fixed hour is neither left out nor
doubled.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from services.errors import InvalidField

FIELDS = 5
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


@dataclass(frozen=True)
class Cron:
    """A cron line in a time zone."""

    line: str
    time_zone: str

    @classmethod
    def checked(cls, line: str, time_zone: str, now: datetime) -> "Cron":
        """What fires at least once after `now`. Raises InvalidField."""
        cron = cls(line.strip(), time_zone or "UTC")
        try:
            ZoneInfo(cron.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            told = "is no time zone known here: an IANA name such as 'Europe/Berlin'"
            raise InvalidField.of("time_zone", told) from error
        try:
            if cron.next(now) is None:
                raise InvalidField.of("cron", "names no moment that will ever come")
        except CronSimError as error:
            raise InvalidField.of("cron", f"is no cron line of five fields: {error}") from error
        return cron

    def next(self, moment: datetime) -> datetime | None:
        """The first moment after `moment`, UTC; None where there is none."""
        return next(self.after(moment), None)

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The moments after `moment`, UTC, in order."""
        yield from self._moments(moment, reverse=False)

    def between(self, first: datetime, now: datetime, most: int) -> list[datetime]:
        """Of `first` and the moments after it the last `most` that are not after `now`."""
        # Backwards: of a year of minutes only the last are looked at.
        before = self._moments(now + timedelta(seconds=1), reverse=True)
        later = takewhile(lambda moment: moment > first, before)
        return [first, *reversed(list(islice(later, most)))][-most:]

    def _moments(self, start: datetime, *, reverse: bool) -> Iterator[datetime]:
        line = _NICKNAMES.get(self.line.lower(), self.line)
        if len(line.split()) != FIELDS:
            raise CronSimError("it has another number of fields")
        local = start.astimezone(ZoneInfo(self.time_zone))
        for found in CronSim(line, local, reverse=reverse):
            yield found.astimezone(UTC)
