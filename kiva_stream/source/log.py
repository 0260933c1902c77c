"""The system log in log order: page ranges through a server-side cursor, each entry with its customer."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import NamedTuple

import anyio
import asyncpg

from kiva_stream.errors import SourceError
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.positions import DAY1, HighWaterMark, IdGap, Position
from kiva_stream.model.site import Site
from kiva_stream.ports.state import IdGaps
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import SourceSettings
from kiva_stream.source.customers import ShopCustomers
from kiva_stream.source.entry_customers import EntryCustomers, Row, claim_of, entries_of, missing_since
from kiva_stream.source.source import Source

SETTLE_POLL_S = 1.0
SAMPLE_PLACES, SAMPLE_ROWS = 200, 10


class Range(NamedTuple):
    """Consecutive rows of the log, read in one transaction that is closed by now."""

    pages: list[list[Row]]
    is_last: bool  # nothing below the mark comes after
    gaps: Sequence[IdGap] | None = None  # among its ids, where somebody keeps them


class SystemLog:
    """The system log of one site. Every call raises SourceError when the source cannot be read."""

    def __init__(
        self,
        source: Source,
        settings: SourceSettings,
        customers: ShopCustomers,
        sleep: Sleep = anyio.sleep,
        id_gaps: IdGaps | None = None,
    ) -> None:
        self._source = source
        self._settings = settings
        self._site_id = settings.site_id
        self._entry_customers = EntryCustomers(customers, settings.customer_cache_rows)
        self._sleep = sleep
        self._paced_to = -math.inf  # until when what was read lasts at max_rows_per_s
        self._id_gaps = id_gaps  # where the ids that were read past are kept; without a horizon only

    def with_customers(self, customers: ShopCustomers, id_gaps: IdGaps | None) -> SystemLog:
        """Return the same log, of other customers, which keeps its id gaps."""
        return SystemLog(self._source, self._settings, customers, self._sleep, id_gaps)

    @property
    def horizon(self) -> bool:
        """Whether the log is read below the horizon; else by id alone, and positions are (0, id)."""
        return self._settings.horizon

    async def site(self) -> Site:
        """Return the site. Raises SourceError when there is none of this id."""
        for row in await self._source.fetch("site", self._site_id):
            return Site(**row)
        raise SourceError(
            f"There is no site {self._site_id} in the shop's database: "
            "set source.site_id to an id of its table sites."
        )

    async def mark(self) -> HighWaterMark:
        """Return the newest position safe to read now, and the moment at which the delay cuts."""
        for row in await self._source.fetch("mark", self._site_id, float(self._settings.delay_s)):
            return HighWaterMark(Position(row["txid"], row["id"]), row["inserted_before"])
        return HighWaterMark(DAY1, datetime.min.replace(tzinfo=UTC))

    async def obstacle(self, after: Position) -> str | None:
        """Return a sentence about what keeps the log from being read on above `after`; None: nothing does.

        Entries that are only too young are no obstacle.
        """
        for row in await self._source.fetch("next", self._site_id, *after, float(self._settings.delay_s)):
            place = f"Reading stopped before the entry {row['txid']}:{row['id']}"
            if row["is_in_future"]:
                return (
                    f"{place}: its inserted_at {row['inserted_at']:%Y-%m-%d %H:%M} lies in the future, and "
                    "nothing behind it is read before then. Correct it at the shop."
                )
            if row["is_held_up"] and row["is_of_another_server"]:
                return (
                    f"{place}: no transaction of this server has its txid yet; the log was restored from a "
                    "dump or copied from another server, and its txids mean nothing here."
                )
            if row["is_held_up"]:
                holder = await self.holder() or "which has just ended, or is not shown"
                return f"{place}: a writing transaction that could still precede it is open: {holder}."
        return None

    async def holder(self) -> str | None:
        """Return who has the oldest writing transaction of the server open, in any of its databases.

        None: nobody any more. Since when is said where the role may see it.
        """
        for row in await self._source.fetch("holder"):
            kind = "the prepared transaction" if row["application"] is None else "the session with pid"
            place = f"{kind} {row['name']} in the database {row['database']}"
            named = f"{place} ({row['application']})" if row["application"] else place
            return named if row["for_s"] is None else f"{named}, for {row['for_s']:.0f} s"
        return None

    async def first_since(self, moment: datetime) -> Position | None:
        """Return the lowest position whose `inserted_at` is at or after a moment, None when there is none."""
        for row in await self._source.fetch("first_since", self._site_id, moment):
            return Position(row["txid"], row["id"])
        return None

    async def midnight(self, day: date) -> datetime:
        """Return the moment at which a day begins in the site's timezone."""
        rows = await self._source.fetch("midnight", self._site_id, day)
        return rows[0][0]  # type: ignore[no-any-return]  # timestamptz

    async def _clock(self) -> datetime:
        rows = await self._source.fetch("clock")
        return rows[0][0]  # type: ignore[no-any-return]  # timestamptz

    async def count(self, after: Position, until: Position) -> int:
        """Return the number of entries above one position, up to and including another.

        It is only shown: where counting takes too long, the distance of the ids must do.
        """
        rows = await self._source.fetch_if_quick("count", self._site_id, *after, *until)
        return rows[0][0] if rows else max(until.id - after.id, 0)

    async def sample(self, after: Position, until: Position) -> list[Entry]:
        """Return entries from all over a stretch of the log, for an estimate; repeats where it is short."""
        rows = await self._source.fetch(
            "sample", self._site_id, after.id, until.id, SAMPLE_PLACES, SAMPLE_ROWS
        )
        return await self._entries([tuple(row) for row in rows])

    async def entries(self, positions: Collection[Position]) -> list[Entry]:
        """Return the entries at these positions that are there, in log order, with their customers as now."""
        wanted = set(positions)
        txids, ids = [each.txid for each in wanted], [each.id for each in wanted]
        rows = await self._source.fetch("entries", self._site_id, txids, ids)
        self.forget_customers()
        return await self._entries([tuple(row) for row in rows])

    async def entries_of(self, customers: Collection[CustomerId], until: Position) -> list[Entry]:
        """Return the entries up to a position that name these customers by their id, in log order."""
        rows = await self._source.fetch("entries_of", self._site_id, list(customers))
        entries = await self._entries([tuple(row) for row in rows])
        return sorted((each for each in entries if each.position <= until), key=lambda each: each.position)

    async def positions(self, ids: Collection[int]) -> dict[int, Position]:
        """Return the positions of those entries of these ids that are there, by id."""
        rows = await self._source.fetch("positions", self._site_id, list(ids))
        return {row["id"]: Position(row["txid"], row["id"]) for row in rows}

    async def count_exactly(self, after: Position, until: Position) -> int | None:
        """Return the number of entries above one position, up to another; None: it takes too long."""
        rows = await self._source.fetch_if_quick("count", self._site_id, *after, *until, within_s=math.inf)
        return rows[0][0] if rows else None

    async def lowest_id_above(self, position: Position) -> int | None:
        """Return the lowest id among the entries above a position, None when there is none."""
        rows = await self._source.fetch("lowest_id_above", self._site_id, *position)
        return rows[0][0]  # type: ignore[no-any-return]  # bigint

    async def below_ids_above(self, log_id: int) -> Position:
        """Return the newest position at or below which no entry has, or may still get, a higher id."""
        mark = await self.mark()  # before: what appears meanwhile lies above it
        for row in await self._source.fetch("first_of_ids_above", self._site_id, log_id):
            return min(Position(row["txid"], row["id"] - 1), mark.position)
        return mark.position

    async def txids(self, ids: Collection[int]) -> dict[int, int]:
        """Return the transaction ids of those entries of these ids that are there, by id."""
        rows = await self._source.fetch("txids", self._site_id, list(ids))
        return {row["id"]: row["txid"] for row in rows}

    def forget_customers(self) -> None:
        """Read customers anew from now on: their addresses may have changed."""
        self._entry_customers.forget()

    async def before(self, position: Position, count: int) -> Position:
        """Return the position after which the last `count` entries at or below `position` lie."""
        for row in await self._source.fetch("before", self._site_id, *position, count):
            return Position(row["txid"], row["id"])
        return DAY1

    async def pages(
        self, after: Position, mark: HighWaterMark, *, settle: bool = True
    ) -> AsyncIterator[list[Entry]]:
        """Yield the entries above `after` up to the mark, a page at a time.

        Reading stops at the first entry as young as the mark's moment: the delay is a cut, not a filter, or
        the late row of an old transaction would be passed over while young, and lie below the position
        for ever after. No source transaction is open while a page is out. With `settle`, a customer who is
        not there yet is waited for, and gaps are kept before what lies behind them is given.
        Raises SourceError, CheckpointError.
        """
        keeper = self._id_gaps if settle else None
        entries = self._settled_entries if settle else self._entries
        at_end = after >= mark.position
        while not at_end:
            pages, at_end, gaps = await self._source.read(
                partial(self._range, after=after, mark=mark, with_gaps=keeper is not None)
            )
            if keeper is not None and gaps is not None:
                await keeper.keep(after.id, pages[-1][-1][1], gaps)
            while pages:
                rows = pages.pop(0)  # all but the last are let go of before the next range is read
                await self._pace(len(rows))
                after = Position(rows[-1][0], rows[-1][1])
                yield await entries(rows)

    async def _range(
        self, connection: asyncpg.Connection, *, after: Position, mark: HighWaterMark, with_gaps: bool
    ) -> Range:
        async with self._source.cursor(
            connection, "read", self._site_id, *after, *mark.position, self._settings.range_rows
        ) as cursor:
            found = await self._pages(cursor, mark)
            if not with_gaps or not found.pages or self._is_old(found.pages[-1][-1], mark):
                return found
            ids, keep_s = (after.id, found.pages[-1][-1][1]), float(self._settings.gap_reread_s)
            rows = await self._source.fetch_beside(connection, "gaps", *ids, keep_s)
            return found._replace(gaps=[IdGap(*row) for row in rows])

    def _is_old(self, row: Row, mark: HighWaterMark) -> bool:
        """Return whether the gaps before a row are too old to be looked for again."""
        return row[3] < mark.inserted_before - timedelta(seconds=self._settings.gap_reread_s)

    async def _pages(self, cursor: asyncpg.cursor.Cursor, mark: HighWaterMark) -> Range:
        limits = self._settings
        rows_left, bytes_left = limits.range_rows, limits.range_bytes
        deadline = time.monotonic() + limits.range_max_s
        pages: list[list[Row]] = []
        while True:  # at least a page, however slow the database is
            rows = await cursor.fetch(min(limits.page_rows, rows_left))
            page = _older_than(mark.inserted_before, rows)
            if page:
                pages.append(page)
            if len(page) < len(rows) or not rows:
                return Range(pages, is_last=True)
            rows_left -= len(rows)
            bytes_left -= sum(len(row[7]) + len(row[8] or "") for row in page)
            if rows_left <= 0 or bytes_left <= 0 or time.monotonic() >= deadline:
                return Range(pages, is_last=False)

    async def _pace(self, rows: int) -> None:
        """Wait until so many rows more may be given."""
        if not self._settings.max_rows_per_s:
            return
        now = anyio.current_time()
        begins_at = max(now, self._paced_to)
        self._paced_to = begins_at + rows / self._settings.max_rows_per_s
        await self._sleep(begins_at - now)

    async def in_gaps(self, gaps: Sequence[IdGap], count: int) -> list[Entry]:
        """Return up to `count` entries that are in these gaps by now, in log order."""
        first, last = [gap.first for gap in gaps], [gap.last for gap in gaps]
        rows = await self._source.fetch("in_gaps", self._site_id, first, last, count)
        return await self._entries([tuple(row) for row in rows])

    async def _entries(self, rows: list[Row]) -> list[Entry]:
        claims = list(map(claim_of, rows))
        return entries_of(rows, claims, await self._entry_customers.find(claims))

    async def _settled_entries(self, rows: list[Row]) -> list[Entry]:
        """Return rows as entries once each customer is found, or the entry is `customer_settle_s` old."""
        claims = list(map(claim_of, rows))
        found = await self._entry_customers.find(claims)
        while missing := missing_since(rows, claims, found):
            if max(missing) < await self._clock() - timedelta(seconds=self._settings.customer_settle_s):
                break
            await self._sleep(SETTLE_POLL_S)
            found = await self._entry_customers.find(claims)
        return entries_of(rows, claims, found)


def _older_than(moment: datetime, rows: list[Row]) -> list[Row]:
    """Return the rows before the first one that is not older."""
    return list(takewhile(lambda row: row[3] < moment, rows))
