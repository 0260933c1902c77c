"""Carried orders: those that ActiveCampaign may have got as REAL_TIME, though no acceptance is recorded.

If the account's connection to the shop becomes another one, every order is sent anew. One on which
automations may have started must not start them a second time, so it goes as HISTORICAL then. For that it is
recorded before a request carries it, and withdrawn when ActiveCampaign refuses that request or surely did not
get it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from kiva_stream.errors import DeliveryError, TryLater
from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import OrderSource
from kiva_stream.ports.destination import Around
from kiva_stream.ports.state import SentOrders
from kiva_stream.sync.order_changes import OrderChange


class CarriedOrders:
    """Records the carried orders of one account."""

    def __init__(self, sent: SentOrders) -> None:
        self._sent = sent

    def around(self, batch: Sequence[OrderChange]) -> Around:
        """Return what each attempt to send a batch is made in. For orders that are history it does nothing.

        What it returns raises CheckpointError.
        """
        ids = [change.id for change in batch if _may_start_automations(change)]
        return partial(self._recorded, ids) if ids else nullcontext

    @asynccontextmanager
    async def _recorded(self, ids: Collection[OrderId]) -> AsyncIterator[None]:
        new = await self._sent.record_carried(ids)
        try:
            yield
        except DeliveryError as error:
            if new and not (isinstance(error, TryLater) and error.is_unanswered):
                await self._sent.withdraw_carried(new)
            raise


def _may_start_automations(change: OrderChange) -> bool:
    """Return whether an order goes as REAL_TIME, and no acceptance of it is recorded."""
    was_accepted = change.sent is not None and change.sent.was_accepted
    return change.desired.source is OrderSource.REAL_TIME and not was_accepted
