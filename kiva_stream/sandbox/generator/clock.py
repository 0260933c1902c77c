"""Time in the generator: whole milliseconds since 1970 in UTC, and the calendar of a week at a shop."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=8192)
def _minute(minutes: int) -> str:
    return (_EPOCH + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:")


def stamp(ms: int) -> str:
    """Format an instant as PostgreSQL reads it, `2018-03-04T17:02:10.250Z`."""
    minutes, rest = divmod(ms, MINUTE)
    return f"{_minute(minutes)}{rest // SECOND:02d}.{rest % SECOND:03d}Z"


def instant(ms: int) -> str:
    """Format an instant truncated to whole seconds, `2018-03-04T17:02:10Z`."""
    minutes, rest = divmod(ms, MINUTE)
    return f"{_minute(minutes)}{rest // SECOND:02d}Z"


def midnight_ms(day: date, zone: ZoneInfo) -> int:
    """Return the instant at which `day` begins in `zone`."""
    begins = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int((begins - _EPOCH).total_seconds()) * SECOND


class Calendar:
    """The days of one entry week, from the Friday on which it opens to the Thursday after its Monday.

    On a day on which daylight-saving time changes, instants follow the wall clock: a repeated hour gets
    entries in both its passes.
    """

    def __init__(self, monday: date, zone: ZoneInfo) -> None:
        self.monday = monday
        friday = monday - timedelta(days=3)
        self._midnights = [midnight_ms(friday + timedelta(days=n), zone) for n in range(9)]
        lengths = zip(self._midnights, self._midnights[1:], strict=False)
        self._shifts = [after - before - DAY for before, after in lengths]
        self.end_ms = self._midnights[7]
        self.mondays = [(monday + timedelta(weeks=n)).isoformat() for n in range(8)]

    def at(self, day: int, second: int) -> int:
        """Return the instant `second` seconds into the wall clock of a day, 0 being the opening Friday."""
        shift = self._shifts[day]
        if shift and (second >= 7200 or (second >= 3600 and shift > 0 and second % 2)):  # noqa: PLR2004  2:00
            return self._midnights[day] + second * SECOND + shift
        return self._midnights[day] + second * SECOND

    def repeated_hour(self) -> range:
        """Return the second pass of a repeated hour in this week; empty when there is none.

        Both America/Chicago and Europe/London put the clock back from 2:00 to 1:00.
        """
        for begins, shift in zip(self._midnights, self._shifts, strict=False):
            if shift > 0:
                return range(begins + 2 * HOUR, begins + 3 * HOUR)
        return range(0)

    def date(self, week: int, weekday: int) -> str:
        """Return the date of an ISO weekday (Monday is 1), `week` weeks after this one, as ISO text."""
        return (self.monday + timedelta(days=7 * week + weekday - 1)).isoformat()
