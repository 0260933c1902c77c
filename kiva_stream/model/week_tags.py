"""The three week tags."""

from __future__ import annotations

from enum import StrEnum


class WeekTag(StrEnum):
    """Exactly one of these is on every contact, by its orders of the current week."""

    OPEN = "open order"
    CLOSED = "closed order"
    NONE = "no order"
