"""What ActiveCampaign has of the orders, in the state schema: implements the port SentOrders."""

from __future__ import annotations

from collections.abc import Collection

from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import OrderSource, SentOrder
from kiva_stream.state.store import Store, columns


class OrderStates:
    """The orders of one site as they were last sent. Every call raises CheckpointError."""

    def __init__(self, store: Store, site_id: int) -> None:
        self._store = store
        self._site_id = site_id

    async def sent(self, ids: Collection[OrderId]) -> dict[OrderId, SentOrder]:
        """Return what was last sent of these orders; of those never sent, nothing."""
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
        """Return the ids of the orders sent that lie above one id, up to and including another, in order."""
        rows = await self._store.fetch("sent_between", self._site_id, after, until)
        return [row["order_id"] for row in rows]

    async def record(self, orders: Collection[SentOrder]) -> None:
        """Note what ActiveCampaign has now, or refused."""
        rows = [
            (order.id, order.source, order.fingerprint, order.refused, order.accepted_at) for order in orders
        ]
        await self._store.fetch("keep_orders", self._site_id, *columns(rows, 5))
