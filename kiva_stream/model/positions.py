"""Positions in the log, the high-water mark, and the gaps between ids."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

_POSITION = re.compile(r"(\d{1,19}):(\d{1,19})")
_MAX_BIGINT = 2**63 - 1


class Position(NamedTuple):
    """Where an entry stands in the log: its writing transaction, then its id. Log order is position order."""

    txid: int
    id: int

    def __str__(self) -> str:
        return f"{self.txid}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read `TXID:ID`. Raises ValueError when it is not that, or no bigint."""
        written = _POSITION.fullmatch(text)
        position = cls(*map(int, written.groups())) if written else None
        if position is None or max(position) > _MAX_BIGINT:
            raise ValueError(f"{text!r} is not a position (TXID:ID)")
        return position


DAY1 = Position(0, 0)  # below every entry


class HighWaterMark(NamedTuple):
    """Where reading stops: at `position`, or before the first entry inserted at or after a moment."""

    position: Position
    inserted_before: datetime


class IdGap(NamedTuple):
    """Ids that no entry had when the log was read past them without a horizon."""

    first: int
    last: int
    seen_at: datetime  # by the clock of the shop's database

    def without(self, ids: Iterable[int]) -> list[IdGap]:
        """Return what is left of it when these ids, some of its own, are taken out."""
        edges = [self.first - 1, *sorted(ids), self.last + 1]
        return [IdGap(low + 1, high - 1, self.seen_at) for low, high in pairwise(edges) if high - low > 1]
