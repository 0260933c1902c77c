"""Sliding windows: the limits of an account, and the peak that a client reached.

All times are seconds on one steady clock. A window of 1 s that ends now contains what came after `now - 1`.
"""

from __future__ import annotations

from array import array
from collections import deque


class SlidingWindow:
    """Admits at most `limit` a period, whatever moment the period ends at."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._times: deque[float] = deque()

    def admit(self, now: float, limit: int) -> bool:
        """Count one at `now` and return True, or return False if that would be over `limit`.

        A refused one is not counted. A limit of 0 is no limit.
        """
        if limit == 0:
            return True
        _forget(self._times, now - self._period_s)
        if len(self._times) >= limit:
            return False
        self._times.append(now)
        return True


class Peak:
    """The greatest number of arrivals in any sliding second, and the times of all, including refused ones."""

    def __init__(self) -> None:
        self.highest = 0
        self.arrivals = array("d")
        self._times: deque[float] = deque()

    def count(self, now: float) -> None:
        """Count one arrival at `now`."""
        _forget(self._times, now - 1.0)
        self._times.append(now)
        self.arrivals.append(now)
        self.highest = max(self.highest, len(self._times))


def _forget(times: deque[float], until: float) -> None:
    while times and times[0] <= until:
        times.popleft()
