"""Reads the system log in log order, a range of pages at a time through a server-side cursor."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import NamedTuple

import anyio
import asyncpg

from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.positions import HighWaterMark, IdGap, Position
from kiva_stream.ports.state import IdGaps
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import SourceSettings
from kiva_stream.source.customers import ShopCustomers
from kiva_stream.source.entry_customers import EntryCustomers, Row, claim_of, entries_of, missing_since
from kiva_stream.source.source import Source

SETTLE_POLL_S = 1.0
SAMPLE_POINTS, SAMPLE_ROWS = 200, 10


class Range(NamedTuple):
    """Consecutive rows of the log, read in one transaction that is closed by now."""

    pages: list[list[Row]]
    is_last: bool  # the mark is reached
    gaps: Sequence[IdGap] | None = None  # among its ids; None: not looked for


class SystemLog:
    """Implements the ports Log, Entries and GapEntries for one site.

    Every call raises SourceError if the source cannot be read.
    """

    def __init__(
        self,
        source: Source,
        settings: SourceSettings,
        customers: ShopCustomers,
        *,
        sleep: Sleep = anyio.sleep,
        id_gaps: IdGaps | None = None,
    ) -> None:
        self._source = source
        self._settings = settings
        self._site_id = settings.site_id
        self._entry_customers = EntryCustomers(customers, settings.customer_cache_rows)
        self._sleep = sleep
        self._paced_to = -math.inf  # when the next page may be yielded, at max_rows_per_s
        self._id_gaps = id_gaps  # where id gaps are recorded; None with a horizon

    def with_customers(self, customers: ShopCustomers, id_gaps: IdGaps | None) -> SystemLog:
        """Return the same log, with its customers from here, and its id gaps recorded there."""
        return SystemLog(self._source, self._settings, customers, sleep=self._sleep, id_gaps=id_gaps)

    async def _clock(self) -> datetime:
        rows = await self._source.fetch("clock")
        return rows[0][0]  # type: ignore[no-any-return]  # timestamptz

    async def sample(self, after: Position, until: Position) -> list[Entry]:
        """Return entries from all over a range of the log, for an estimate. In a short range they repeat."""
        rows = await self._source.fetch(
            "sample", self._site_id, after.id, until.id, SAMPLE_POINTS, SAMPLE_ROWS
        )
        return await self._entries([tuple(row) for row in rows])

    async def entries(self, positions: Collection[Position]) -> list[Entry]:
        """Return entries by position, one index look-up each, with customers that are read anew."""
        wanted = set(positions)
        txids, ids = [each.txid for each in wanted], [each.id for each in wanted]
        rows = await self._source.fetch("entries", self._site_id, txids, ids)
        self.forget_customers()
        return await self._entries([tuple(row) for row in rows])

    async def entries_of(self, customers: Collection[CustomerId], until: Position) -> list[Entry]:
        """Return the entries at or below a position that name these customers by id, in log order."""
        rows = await self._source.fetch("entries_of_customers", self._site_id, list(customers))
        entries = await self._entries([tuple(row) for row in rows])
        return sorted((each for each in entries if each.position <= until), key=lambda each: each.position)

    def forget_customers(self) -> None:
        """Empty the cache, so that customers are read anew: their addresses may have changed."""
        self._entry_customers.clear()

    async def pages(
        self, after: Position, mark: HighWaterMark, *, settle: bool = True
    ) -> AsyncIterator[list[Entry]]:
        """Yield the entries above `after` up to the mark, a page at a time.

        Reading stops at the first entry that is as young as the mark's moment. The delay must not filter
        entries: the late row of an old transaction would be skipped while it is young, and lie below the
        position from then on. With `settle`, a page is held back for up to `customer_settle_s` while one of
        its customers is missing, and id gaps are recorded before the entries behind them are yielded.
        """
        keeper = self._id_gaps if settle else None
        entries = self._settled_entries if settle else self._entries
        at_end = after >= mark.position
        while not at_end:
            pages, at_end, gaps = await self._source.read(
                partial(self._range, after=after, mark=mark, with_gaps=keeper is not None)
            )
            if keeper is not None and gaps is not None:
                await keeper.record(after.id, pages[-1][-1][1], gaps)
            while pages:
                rows = pages.pop(0)  # a page that was yielded is not kept in memory
                await self._pace(len(rows))
                after = Position(rows[-1][0], rows[-1][1])
                yield await entries(rows)

    async def _range(
        self, connection: asyncpg.Connection, *, after: Position, mark: HighWaterMark, with_gaps: bool
    ) -> Range:
        async with self._source.cursor(
            connection, "page_range", self._site_id, *after, *mark.position, self._settings.range_rows
        ) as cursor:
            found = await self._pages(cursor, mark)
            if not with_gaps or not found.pages or self._is_old(found.pages[-1][-1], mark):
                return found
            ids, keep_s = (after.id, found.pages[-1][-1][1]), float(self._settings.gap_reread_s)
            rows = await self._source.fetch_beside(connection, "id_gaps", *ids, keep_s)
            return found._replace(gaps=[IdGap(*row) for row in rows])

    def _is_old(self, row: Row, mark: HighWaterMark) -> bool:
        """Return whether gaps before this row are older than `gap_reread_s`: they are not recorded."""
        return row[3] < mark.inserted_before - timedelta(seconds=self._settings.gap_reread_s)

    async def _pages(self, cursor: asyncpg.cursor.Cursor, mark: HighWaterMark) -> Range:
        limits = self._settings
        rows_left, bytes_left = limits.range_rows, limits.range_bytes
        deadline = time.monotonic() + limits.range_max_s
        pages: list[list[Row]] = []
        while True:  # at least one page, however slow the database is
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
        """Wait until this many more rows may be yielded."""
        if not self._settings.max_rows_per_s:
            return
        now = anyio.current_time()
        starts_at = max(now, self._paced_to)
        self._paced_to = starts_at + rows / self._settings.max_rows_per_s
        await self._sleep(starts_at - now)

    async def in_id_gaps(self, gaps: Sequence[IdGap], count: int) -> list[Entry]:
        """Return entries with their customers, in log order."""
        first, last = [gap.first for gap in gaps], [gap.last for gap in gaps]
        rows = await self._source.fetch("entries_in_id_gaps", self._site_id, first, last, count)
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
    """Return the rows before the first one that is not older than a moment."""
    return list(takewhile(lambda row: row[3] < moment, rows))
