"""When things happen in a week: the profiles of its hours, and instants drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from kiva_stream.sandbox.generator.clock import SECOND, Calendar
from kiva_stream.sandbox.generator.draw import Draw

FRIDAY, SUNDAY, MONDAY = 0, 2, 3  # days since the week opened
OPENED = 11 * 3600 + 1800  # seconds into Friday
MAILED = 12 * 3600
CUT_OFF = 24 * 3600 - 60  # seconds into Sunday

_HOURS = (1, 1, 0, 0, 0, 1, 3, 5, 6, 6, 5, 5, 7, 5, 4, 4, 5, 6, 7, 8, 9, 7, 4, 1)  # of a day, site time
# The shares of the days from Friday on, without the weekly cycle and the shopping.
_DAYS = (0.3, 1.5, 1.0, 12.5, 6.5, 5.5, 2.7)
_EVENING = 20  # o'clock
_RUSH = 3  # how much busier the last evening before the cut-off is


def _profile(days: Sequence[float]) -> list[float]:
    return list(accumulate(share * hour for share in days for hour in _HOURS))


# A profile holds the cumulated weights of the hours of a week.
ANY_TIME = _profile(_DAYS)
SHOPPING = list(
    accumulate(
        # From the menu mail on with a half-life of three hours, and a rush on the last evening.
        [0.0] * 12
        + [16.5 * 0.5 ** (hour / 3) for hour in range(12)]
        + [2.7 * hour for hour in _HOURS]
        + [1.85 * hour * (_RUSH if n >= _EVENING else 1) for n, hour in enumerate(_HOURS)]
    )
)
EVEN = list(accumulate([1.0] * 24 * 7))


class WeekTimes:
    """Draws instants of one week."""

    def __init__(self, draw: Draw, calendar: Calendar) -> None:
        self._draw = draw
        self._calendar = calendar

    def spread(self, count: int, profile: list[float] = ANY_TIME) -> Iterator[int]:
        """Yield `count` instants, spread over the hours of the week by the weights of `profile`."""
        draw, at = self._draw, self._calendar.at
        for hour in draw.choices(range(len(profile)), cum_weights=profile, k=count) if count else ():
            yield at(hour // 24, hour % 24 * 3600 + draw.below(3600)) + draw.below(SECOND)

    def within(self, day: int, second: int, length_s: int) -> int:
        """Return an instant of the `length_s` seconds that begin `second` seconds into a day."""
        return self._calendar.at(day, second) + self._draw.below(length_s * SECOND)
