"""A history: the rows of all sites in the order in which they are written, week by week."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

from kiva_stream.sandbox.generator.dirt import Dirt
from kiva_stream.sandbox.generator.duplicates import DuplicateRows
from kiva_stream.sandbox.generator.mix import WEEKS
from kiva_stream.sandbox.generator.orders import Order
from kiva_stream.sandbox.generator.rows import Row, RowWriter
from kiva_stream.sandbox.generator.shop import Shop, open_shops
from kiva_stream.sandbox.generator.week import PlannedEntry, plan_week

START = date(2025, 9, 15)  # a Monday; the year ends in September 2026


class Member(NamedTuple):
    """A site of the history, with what makes its rows dirty."""

    shop: Shop
    counts: bool  # whether its entries are among those asked for
    dirt: Dirt
    duplicates: DuplicateRows


class History:
    """The year of one log. It holds the entries of one week and the orders of two, whatever its length."""

    def __init__(self, entries: int, seed: int, *, sites: int = 1, start: date = START) -> None:
        self.members = [
            Member(shop, counts, Dirt(shop), DuplicateRows(shop.draw, shop.duplicates, shop.quotas.events))
            for shop, counts in open_shops(entries, seed, sites=sites, start=start)
        ]
        self._carried: list[tuple[PlannedEntry, int]] = []  # entries of the next week, with their members

    def weeks(self) -> Iterator[Iterator[Row]]:
        """Yield the rows of each week, and last those that are left. Read one to its end before the next."""
        for week in range(WEEKS + 1):
            yield self._week(week)

    def finished_orders(self) -> Iterator[tuple[Shop, Order]]:
        """Yield the orders to which nothing more will happen. Called after each week."""
        for member in self.members:
            for order in member.shop.take_finished_orders():
                yield member.shop, order

    def unfinished_orders(self) -> Iterator[tuple[Shop, Order]]:
        """Yield the orders that are not finished when the history ends."""
        for member in self.members:
            for order in member.shop.unfinished_orders():
                yield member.shop, order

    def dirt(self) -> Counter[str]:
        """Return how many rows of the sites that count are malformed, by what is wrong with them."""
        return sum((member.dirt.counts for member in self.members if member.counts), Counter())

    def _week(self, week: int) -> Iterator[Row]:
        writers = [RowWriter(member.shop, week, member.shop.calendar(week)).write for member in self.members]
        for planned, index in self._due(week):
            row = writers[index](planned)
            member = self.members[index]
            member.dirt.apply(row)
            yield row
            if duplicate := member.duplicates.copy_of(row):
                yield duplicate

    def _due(self, week: int) -> list[tuple[PlannedEntry, int]]:
        """Return the planned entries of this week in order of time, and keep those of the next."""
        entries = self._carried
        for index, member in enumerate(self.members):
            if week < WEEKS:
                entries.extend((planned, index) for planned in plan_week(member.shop, week))
        entries.sort(key=lambda entry: (entry[0].at_ms, entry[1], entry[0].number))
        ends_ms = self.members[0].shop.calendar(week).end_ms
        count = next((n for n, (planned, _) in enumerate(entries) if planned.at_ms >= ends_ms), len(entries))
        self._carried = entries[count:]
        return entries[:count]
