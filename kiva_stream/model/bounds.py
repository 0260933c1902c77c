"""Bounds of a backfill and places of dead letters, with the texts that name them."""

from __future__ import annotations

import re
from datetime import MAXYEAR, MINYEAR, date

from kiva_stream.model.ids import OrderId
from kiva_stream.model.positions import DAY1, Position

Bound = Position | date  # a place in the log, or midnight of the site
Place = Position | OrderId  # of a dead letter: that of an entry, or of an order
_ORDER = re.compile(r"order:(\d{1,19})")
_MAX_BIGINT = 2**63 - 1


def parse_date(text: str) -> date:
    """Read YYYY-MM-DD. Raises ValueError when it is not that, or a day that not every timezone can write."""
    day = date.fromisoformat(text)
    if day.isoformat() != text or not MINYEAR < day.year < MAXYEAR:
        raise ValueError(f"{text!r} is not a date (YYYY-MM-DD)")
    return day


def parse_bound(text: str) -> Bound:
    """Read `day1`, YYYY-MM-DD or TXID:ID. Raises ValueError when it is none of them."""
    if text == "day1":
        return DAY1
    try:
        return Position.parse(text) if ":" in text else parse_date(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither day1, nor a date (YYYY-MM-DD), nor a position (TXID:ID)"
        ) from None


def bound_text(bound: Bound) -> str:
    """Write a bound as `parse_bound` reads it."""
    return "day1" if bound == DAY1 else str(bound)


def parse_place(text: str) -> Place:
    """Read TXID:ID or order:ID. Raises ValueError when it is neither."""
    written = _ORDER.fullmatch(text)
    if written is None:
        return Position.parse(text)
    if int(written[1]) > _MAX_BIGINT:
        raise ValueError(f"{text!r} is not an order (order:ID)")
    return OrderId(int(written[1]))


def place_text(place: Place) -> str:
    """Write a place as `parse_place` reads it."""
    return str(place) if isinstance(place, Position) else f"order:{place}"
