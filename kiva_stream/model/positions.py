"""Positions in the log, the high-water mark, and the gaps between ids."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

_POSITION = re.compile(r"(\d{1,19}):(-?\d{1,19})")
_MAX_BIGINT = 2**63 - 1


class Position(NamedTuple):
    """The place of an entry in the log: its writing transaction, then its id. Log order is position order."""

    txid: int
    id: int

    def __str__(self) -> str:
        return f"{self.txid}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Parse `TXID:ID`. Raises ValueError if it is not that, or a part is no bigint."""
        written = _POSITION.fullmatch(text)
        position = cls(*map(int, written.groups())) if written else None
        if position is None or max(map(abs, position)) > _MAX_BIGINT:
            raise ValueError(f"{text!r} is not a position (TXID:ID)")
        return position


DAY1 = Position(0, 0)  # below every entry


class HighWaterMark(NamedTuple):
    """Where reading stops: after `position`, or sooner, before the first entry that is too young.

    An entry is too young if it was inserted at `inserted_before` or later.
    """

    position: Position
    inserted_before: datetime


class IdGap(NamedTuple):
    """A range of ids, ends included, that no entry had when reading without a horizon passed it."""

    first: int
    last: int
    seen_at: datetime  # by the clock of the shop's database

    def without(self, ids: Iterable[int]) -> list[IdGap]:
        """Return the gaps that are left of it when some of its ids are taken out."""
        edges = [self.first - 1, *sorted(ids), self.last + 1]
        return [IdGap(low + 1, high - 1, self.seen_at) for low, high in pairwise(edges) if high - low > 1]
