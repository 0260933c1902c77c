"""The customers and orders that the shop changed, with or without an entry in the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import asyncpg

from kiva_stream.model.customers import Customer
from kiva_stream.model.entries import Change
from kiva_stream.model.ids import LOWEST_ID, CustomerId, OrderId
from kiva_stream.source.customers import ShopCustomers
from kiva_stream.source.source import Source

PAGE_ROWS = 1000


class ChangeLog:
    """The changes of one site, by `updated_at`. Every call raises SourceError.

    Rows are read along an index on (updated_at, id). A row that is changed while it is read may come twice.
    """

    def __init__(self, source: Source, site_id: int, customers: ShopCustomers) -> None:
        self._source = source
        self._site_id = site_id
        self._customers = customers

    def with_customers(self, customers: ShopCustomers) -> ChangeLog:
        """Return the same changes, with their customers from here."""
        return ChangeLog(self._source, self._site_id, customers)

    async def now(self) -> datetime:
        """Return the time by the database's clock."""
        rows = await self._source.fetch("clock")
        return rows[0][0]  # type: ignore[no-any-return]  # timestamptz

    async def since(self, moment: datetime) -> AsyncIterator[list[Change]]:
        """Yield the customers changed at or after a moment, then those with orders changed since."""
        async for rows in self._pages("changed_customers", moment):
            yield await self._changes(rows, of_orders=False)
        async for rows in self._pages("changed_orders", moment):
            yield await self._changes(rows, of_orders=True)

    async def _pages(self, block: str, moment: datetime) -> AsyncIterator[list[asyncpg.Record]]:
        after: tuple[datetime, int] = moment, LOWEST_ID
        while rows := await self._source.fetch(block, self._site_id, *after, PAGE_ROWS):
            yield rows
            after = rows[-1]["updated_at"], rows[-1]["id"]

    async def _changes(self, rows: Sequence[asyncpg.Record], *, of_orders: bool) -> list[Change]:
        """Return a change for each customer of these rows that exists on this site."""
        found: dict[CustomerId, list[asyncpg.Record]] = {}
        for row in rows:
            if row["customer_id"] is not None:
                found.setdefault(CustomerId(row["customer_id"]), []).append(row)
        customers = await self._customers.by_id(found)
        of_site = [customer for customer in customers if customer.site_id == self._site_id]
        return [_change(customer, found[customer.id], of_orders=of_orders) for customer in of_site]


def _change(customer: Customer, rows: Sequence[asyncpg.Record], *, of_orders: bool) -> Change:
    """Return the change that the rows of a customer show: of itself, or of its orders."""
    orders = frozenset(OrderId(row["id"]) for row in rows) if of_orders else frozenset()
    return Change(customer, rows[-1]["updated_at"], orders)
