"""Duplicates: events that the shop wrote twice."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

from kiva_stream.model.classifications import Classification, Event
from kiva_stream.model.entries import Entry


class Duplicates:
    """Recognizes an event that the shop wrote twice: the same customer, action, message and data.

    An event is compared with the events among the `window` entries before it that were inserted within
    `within_s` seconds of it.
    """

    def __init__(self, window: int, within_s: float) -> None:
        self._window = window
        self._within = timedelta(seconds=within_s)
        self._entries = 0
        self._seen: dict[int, list[datetime]] = {}  # by hash: when its events were inserted, in log order
        self._order: deque[tuple[int, int]] = deque()  # the number and hash of each event, in log order

    def compare_and_add(self, entry: Entry, classification: Classification) -> bool:
        """Return whether the next entry in log order repeats an earlier event, and remember the entry."""
        self._entries += 1
        if not isinstance(classification, Event):  # it only counts as one of the window
            return False
        self._forget()
        key = hash((entry.customer_id, entry.action, entry.message, entry.data))
        self._order.append((self._entries, key))
        times = self._seen.get(key)
        if times is None:
            self._seen[key] = [entry.inserted_at]
            return False
        repeat = any(abs(entry.inserted_at - time) <= self._within for time in times)
        times.append(entry.inserted_at)
        return repeat

    def _forget(self) -> None:
        oldest = self._entries - self._window
        while self._order and self._order[0][0] < oldest:
            _, key = self._order.popleft()
            times = self._seen[key]
            del times[0]
            if not times:
                del self._seen[key]
