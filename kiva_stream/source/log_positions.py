"""Positions in the system log: of dates and ids, how far apart they are, and how many entries lie between."""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import date, datetime

from kiva_stream.model.positions import DAY1, Position
from kiva_stream.source.horizon import Horizon
from kiva_stream.source.source import Source


class LogPositions:
    """The positions of one site's log. Every call raises SourceError when the source cannot be read."""

    def __init__(self, source: Source, site_id: int, horizon: Horizon) -> None:
        self._source = source
        self._site_id = site_id
        self._horizon = horizon

    async def midnight(self, day: date) -> datetime:
        """Return the moment at which a day begins in the site's timezone."""
        rows = await self._source.fetch("midnight", self._site_id, day)
        return rows[0][0]  # type: ignore[no-any-return]  # timestamptz

    async def first_since(self, moment: datetime) -> Position | None:
        """Return the lowest position whose `inserted_at` is at or after a moment, None when there is none."""
        for row in await self._source.fetch("first_since", self._site_id, moment):
            return Position(row["txid"], row["id"])
        return None

    async def before(self, position: Position, count: int) -> Position:
        """Return the position after which the last `count` entries at or below `position` lie."""
        for row in await self._source.fetch("before", self._site_id, *position, count):
            return Position(row["txid"], row["id"])
        return DAY1

    async def count(self, after: Position, until: Position) -> int | None:
        """Return the number of entries above one position, up to and including another.

        None: counting takes longer than `statement_timeout_s`.
        """
        rows = await self._source.fetch_if_quick("count", self._site_id, *after, *until, within_s=math.inf)
        return rows[0][0] if rows else None

    async def count_or_distance(self, after: Position, until: Position) -> int:
        """Return the number of entries as `count` does, or the distance of the ids if counting takes long."""
        rows = await self._source.fetch_if_quick("count", self._site_id, *after, *until)
        return rows[0][0] if rows else max(until.id - after.id, 0)

    async def by_id(self, ids: Collection[int]) -> dict[int, Position]:
        """Return the positions of the entries that have one of these ids, by id."""
        rows = await self._source.fetch("positions_by_id", self._site_id, list(ids))
        return {row["id"]: Position(row["txid"], row["id"]) for row in rows}

    async def txids(self, ids: Collection[int]) -> dict[int, int]:
        """Return the transaction ids of the entries that have one of these ids, by id."""
        rows = await self._source.fetch("txids_by_id", self._site_id, list(ids))
        return {row["id"]: row["txid"] for row in rows}

    async def lowest_id_above(self, position: Position) -> int | None:
        """Return the lowest id among the entries above a position, None when there is none."""
        rows = await self._source.fetch("lowest_id_above", self._site_id, *position)
        return rows[0][0]  # type: ignore[no-any-return]  # bigint

    async def newest_without_ids_above(self, log_id: int) -> Position:
        """Return the newest position at or below which no entry has, or may still get, a higher id."""
        mark = await self._horizon.high_water_mark()  # read first: an entry that appears later lies above it
        for row in await self._source.fetch("first_of_ids_above", self._site_id, log_id):
            return min(Position(row["txid"], row["id"] - 1), mark.position)
        return mark.position
