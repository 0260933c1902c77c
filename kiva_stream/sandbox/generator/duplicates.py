"""Event rows that the shop writes twice within two seconds, as a double click does."""

from __future__ import annotations

import msgspec

from kiva_stream.sandbox.generator.draw import Draw
from kiva_stream.sandbox.generator.rows import Row


class DuplicateRows:
    """Decides which event rows are written twice."""

    def __init__(self, draw: Draw, duplicates: int, events: int) -> None:
        """Spread exactly `doubles` copies over `events` rows."""
        self._draw = draw
        self._duplicates = duplicates
        self._events = max(1, events)
        self._seen = 0

    def copy_of(self, row: Row) -> Row | None:
        """Return a copy of the row with later times, or None when the row is written once."""
        if row.kind.sort != "event":
            return None
        done = self._seen * self._duplicates // self._events
        self._seen += 1
        if self._seen * self._duplicates // self._events == done:
            return None
        later = self._draw.below(1_800)
        occurred_ms, inserted_ms = row.occurred_ms + later, row.inserted_ms + later
        return msgspec.structs.replace(row, occurred_ms=occurred_ms, inserted_ms=inserted_ms)
