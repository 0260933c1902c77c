"""The shop's orders, each with its items."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import groupby

import asyncpg

from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.orders import Order, OrderItem
from kiva_stream.source.source import Source


class ShopOrders:
    """Implements the port Orders for one site. Every call raises SourceError."""

    def __init__(self, source: Source, site_id: int) -> None:
        self._source = source
        self._site_id = site_id

    async def page(self, after: OrderId, count: int) -> list[Order]:
        """Return paid orders that have a customer, by id."""
        return _orders(await self._source.fetch("paid_orders_after", self._site_id, after, count))

    async def orders(self, ids: Collection[OrderId]) -> list[Order]:
        """Return orders that have a customer, by id."""
        return _orders(await self._source.fetch("orders", self._site_id, list(ids)))

    async def paid_by(self, customers: Collection[CustomerId]) -> list[OrderId]:
        """Return ids in ascending order."""
        rows = await self._source.fetch("paid_by", self._site_id, list(customers))
        return [OrderId(row["id"]) for row in rows]

    async def of(self, customers: Collection[CustomerId]) -> list[Order]:
        """Return all orders of these customers, paid or not, by id."""
        rows = await self._source.fetch("order_ids_of_customers", self._site_id, list(customers))
        return await self.orders([OrderId(row["id"]) for row in rows])

    async def count_paid(self) -> int | None:
        """Return the number of paid orders, for an estimate; None if counting takes too long."""
        rows = await self._source.fetch_if_quick("count_paid", self._site_id)
        return None if rows is None else rows[0][0]


def _orders(rows: Iterable[asyncpg.Record]) -> list[Order]:
    """Return the orders of rows that have one item each; the rows of an order are consecutive."""
    return [_order(list(items)) for _, items in groupby(rows, key=lambda row: row["id"])]


def _order(rows: list[asyncpg.Record]) -> Order:
    row = rows[0]
    return Order(
        id=OrderId(row["id"]),
        customer_id=CustomerId(row["customer_id"]),
        status=row["status"],
        payment_status=row["payment_status"],
        created_at=row["created_at"],
        paid_at=row["paid_at"],
        total_cents=row["total_cents"],
        discount_cents=row["discount_cents"],
        credit_cents=row["credit_cents"],
        items=tuple(_item(row) for row in rows if row["item_id"] is not None),
    )


def _item(row: asyncpg.Record) -> OrderItem:
    return OrderItem(
        id=row["item_id"],
        product_id=row["product_id"],
        name=row["item_name"],
        category=row["category"],
        qty=row["qty"],
        unit_price_cents=row["unit_price_cents"],
    )
