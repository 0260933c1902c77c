"""What the stages need of the shop's database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import date
from typing import Protocol

from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.entries import Changes, Entry, ReopenedEntries
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.orders import Order
from kiva_stream.model.positions import HighWaterMark, IdGap, Position


class Log(Protocol):
    """The system log of one site, in log order."""

    def pages(
        self, after: Position, mark: HighWaterMark
    ) -> AsyncIterator[list[Entry] | Changes | ReopenedEntries]:
        """Yield the entries above `after` up to the mark, a page at a time.

        Between them there may be changes without an entry, and reopened entries. No source transaction is
        open while a page is processed. Raises SourceError, CheckpointError.
        """


class Entries(Protocol):
    """Entries of the log by their positions."""

    async def entries(self, positions: Collection[Position]) -> list[Entry]:
        """Return the entries at these positions, in log order, with their customers as they are now.

        A position without an entry is left out. Raises SourceError.
        """


class GapEntries(Protocol):
    """Entries that appeared in id gaps."""

    async def in_id_gaps(self, gaps: Sequence[IdGap], count: int) -> list[Entry]:
        """Return up to `count` entries that are in these gaps now, in log order. Raises SourceError."""


class Customers(Protocol):
    """The site's customers, as they are now. Every call raises SourceError."""

    async def page(self, after: CustomerId, count: int) -> list[Customer]:
        """Return up to `count` customers with ids above `after`, by id."""

    async def accounts(self, ids: Collection[CustomerId]) -> list[CustomerAccount]:
        """Return the customer accounts of these ids. An id that does not exist on this site is left out."""


class Orders(Protocol):
    """The site's orders, as they are now. Every call raises SourceError."""

    async def page(self, after: OrderId, count: int) -> list[Order]:
        """Return up to `count` paid orders with ids above `after`, by id."""

    async def orders(self, ids: Collection[OrderId]) -> list[Order]:
        """Return the orders of these ids, paid or not. An id that does not exist on this site is left out."""

    async def paid_by(self, customers: Collection[CustomerId]) -> list[OrderId]:
        """Return the ids of all paid orders of these customers."""


class Weeks(Protocol):
    """The delivery weeks of the site. Every call raises SourceError."""

    async def current(self) -> date:
        """Return the Monday of the current week: of the one opened last, else the calendar's."""

    async def statuses(self, customers: Collection[CustomerId], week: date) -> dict[CustomerId, set[str]]:
        """Return the statuses of these customers' orders of a week. A customer without orders is left out."""
