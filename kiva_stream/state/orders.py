"""The orders as they were last sent to ActiveCampaign (the table `sent_order`), and how many go together."""

from __future__ import annotations

from collections.abc import Collection

from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import BatchLimit, OrderSource, SentOrder
from kiva_stream.state.store import Store, columns


class OrderStates:
    """Implements the port SentOrders for one site."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def sent(self, ids: Collection[OrderId]) -> dict[OrderId, SentOrder]:
        """Return what was last sent, by order."""
        rows = await self._store.fetch("sent_orders", self._site_id, list(ids))
        return {
            row["order_id"]: SentOrder(
                id=row["order_id"],
                source=OrderSource(row["source"]),
                fingerprint=row["fingerprint"],
                accepted_at=row["accepted_at"],
                refused=row["refused"],
            )
            for row in rows
        }

    async def ids_between(self, after: OrderId, until: OrderId) -> list[OrderId]:
        """Return the ids of the rows in a range of ids."""
        rows = await self._store.fetch("order_ids_between", self._site_id, after, until)
        return [row["order_id"] for row in rows]

    async def record(self, orders: Collection[SentOrder]) -> None:
        """Write the rows and their tallies in one statement."""
        rows = [
            (order.id, order.source, order.fingerprint, order.refused, order.accepted_at) for order in orders
        ]
        await self._store.fetch("record_orders", self._site_id, *columns(rows, 5))

    async def record_carried(self, ids: Collection[OrderId]) -> list[OrderId]:
        """Insert rows of `carried_order`; return the ids of the new ones."""
        rows = await self._store.fetch("record_carried", self._site_id, list(ids))
        return [row["order_id"] for row in rows]

    async def withdraw_carried(self, ids: Collection[OrderId]) -> None:
        """Delete rows of `carried_order`."""
        await self._store.fetch("withdraw_carried", self._site_id, list(ids))

    async def batch_limit(self) -> BatchLimit | None:
        """Return the limit in the site's row."""
        rows = await self._store.fetch("batch_limit", self._site_id)
        return next((BatchLimit(*row) for row in rows), None)

    async def record_batch_limit(self, limit: BatchLimit) -> None:
        """Write it into the site's row."""
        await self._store.fetch("record_batch_limit", self._site_id, *limit)
