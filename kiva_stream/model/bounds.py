"""Bounds of a backfill, and places of dead letters, with their texts on the command line."""

from __future__ import annotations

import re
from datetime import MAXYEAR, MINYEAR, date

from kiva_stream.model.ids import OrderId
from kiva_stream.model.positions import DAY1, Position

Bound = Position | date  # of a range of the log: a position, or midnight in the site's timezone
Place = Position | OrderId  # of a dead letter: that of an entry, or of an order
_ORDER = re.compile(r"order:(-?\d{1,19})")
_MAX_BIGINT = 2**63 - 1


def parse_date(text: str) -> date:
    """Parse YYYY-MM-DD. Raises ValueError, also for a day that some timezone cannot represent."""
    day = date.fromisoformat(text)
    if day.isoformat() != text or not MINYEAR < day.year < MAXYEAR:
        raise ValueError(f"{text!r} is not a date (YYYY-MM-DD)")
    return day


def parse_bound(text: str) -> Bound:
    """Parse `day1`, YYYY-MM-DD or TXID:ID. Raises ValueError if it is none of them."""
    if text == "day1":
        return DAY1
    try:
        return Position.parse(text) if ":" in text else parse_date(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither day1, nor a date (YYYY-MM-DD), nor a position (TXID:ID)"
        ) from None


def bound_text(bound: Bound) -> str:
    """Return a bound as `parse_bound` reads it."""
    return "day1" if bound == DAY1 else str(bound)


def parse_place(text: str) -> Place:
    """Parse TXID:ID or order:ID. Raises ValueError if it is neither."""
    written = _ORDER.fullmatch(text)
    if written is None:
        return Position.parse(text)
    if abs(int(written[1])) > _MAX_BIGINT:
        raise ValueError(f"{text!r} is not an order (order:ID)")
    return OrderId(int(written[1]))


def place_text(place: Place) -> str:
    """Return a place as `parse_place` reads it."""
    return str(place) if isinstance(place, Position) else f"order:{place}"
