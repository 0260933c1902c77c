"""A history: the rows of all sites in the order in which they were written, week by week."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

from kiva_stream.sandbox.generator.dirt import Dirt, DuplicateRows
from kiva_stream.sandbox.generator.mix import WEEKS
from kiva_stream.sandbox.generator.orders import Order
from kiva_stream.sandbox.generator.rows import Row, RowWriter
from kiva_stream.sandbox.generator.shop import Shop, shops
from kiva_stream.sandbox.generator.weeks import PlannedEntry, Week

START = date(2025, 9, 15)  # a Monday; the year ends in September 2026


class Member(NamedTuple):
    """A site that takes part, with what spoils its rows."""

    shop: Shop
    counts: bool  # whether its entries are among those asked for
    dirt: Dirt
    duplicates: DuplicateRows


class History:
    """The year of one log. Holds one week of acts and two of orders at a time, whatever its length."""

    def __init__(self, entries: int, seed: int, sites: int = 1, start: date = START) -> None:
        self.members = [
            Member(shop, counts, Dirt(shop), DuplicateRows(shop.draw, shop.duplicates, shop.quotas.events))
            for shop, counts in shops(entries, seed, sites, start)
        ]
        self._carried: list[tuple[PlannedEntry, int]] = []

    def weeks(self) -> Iterator[Iterator[Row]]:
        """Yield the rows of each week, to be read to their end before the next one; last, the leftovers."""
        for week in range(WEEKS + 1):
            yield self._week(week)

    def settled(self) -> Iterator[tuple[Shop, Order]]:
        """Yield the orders nothing more will happen to, after a week was read."""
        for member in self.members:
            for order in member.shop.settle():
                yield member.shop, order

    def leftover(self) -> Iterator[tuple[Shop, Order]]:
        """Yield the orders that the end of the history finds unsettled."""
        for member in self.members:
            for order in member.shop.leftover():
                yield member.shop, order

    def dirt(self) -> Counter[str]:
        """Return how many rows of the sites that count are spoilt, by how."""
        return sum((member.dirt.counts for member in self.members if member.counts), Counter())

    def _week(self, week: int) -> Iterator[Row]:
        writers = [RowWriter(member.shop, week, member.shop.calendar(week)).write for member in self.members]
        for act, place in self._due(week):
            row = writers[place](act)
            member = self.members[place]
            member.dirt.apply(row)
            yield row
            if double := member.duplicates.of(row):
                yield double

    def _due(self, week: int) -> list[tuple[PlannedEntry, int]]:
        """Return the acts of this week in order of time, and keep those that fall in the next."""
        acts = self._carried
        for place, member in enumerate(self.members):
            if week < WEEKS:
                acts.extend((act, place) for act in Week(member.shop, week).acts())
        acts.sort(key=lambda found: (found[0].at_ms, found[1], found[0].number))
        ends_ms = self.members[0].shop.calendar(week).end_ms
        begun = next((n for n, (act, _) in enumerate(acts) if act.at_ms >= ends_ms), len(acts))
        self._carried = acts[begun:]
        return acts[:begun]
