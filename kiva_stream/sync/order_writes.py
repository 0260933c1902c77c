"""Order writes: order changes go to ActiveCampaign in batches, which it accepts or refuses as a whole.

| ActiveCampaign's answer to a batch         | then                                                          |
|--------------------------------------------|---------------------------------------------------------------|
| it accepts the batch                       | its orders are recorded as sent                               |
| it is too large; it has several orders     | they are sent in batches of half the size (`batch_size`)      |
| it is too large; it has one order          | the order is recorded as refused                              |
| it refuses several orders and names some   | these are recorded as refused; the others are sent again      |
| it refuses several orders and names none   | each half of the batch is sent by itself                      |
| it refuses a batch of one order            | the order is recorded as refused                              |

An order that is refused is not sent again until it changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from kiva_stream.errors import BatchTooLarge, OrdersRejected
from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import NEVER, SentOrder
from kiva_stream.observability.logs import log
from kiva_stream.ports.destination import OrderUploads
from kiva_stream.ports.state import Links, SentOrders
from kiva_stream.sync.batch_size import BatchSize
from kiva_stream.sync.order_changes import OrderChange

TOO_LARGE = "it is too large for a request of its own"


class OrderWrites:
    """Writes the orders of one account. Every call raises AccountRefused, CheckpointError, HeldError."""

    def __init__(
        self,
        *,
        uploads: OrderUploads,
        sent: SentOrders,
        links: Links,
        batch_size: BatchSize,
        now: Callable[[], datetime],
    ) -> None:
        self._uploads = uploads
        self._sent = sent
        self._links = links
        self._now = now
        self._batch_size = batch_size

    async def write(self, changes: Sequence[OrderChange]) -> None:
        """Send orders, one batch after another; those that cannot be sent are recorded as refused."""
        await self._refuse(changes, {change.id: change.fault for change in changes if change.fault})
        left = [change for change in changes if not change.fault]
        while left:
            size = self._batch_size.size
            batch, left = left[:size], left[size:]
            await self._send(batch)

    async def _send(self, batch: Sequence[OrderChange]) -> None:
        try:
            await self._uploads.upsert([change.desired for change in batch])
        except BatchTooLarge:
            await self._send_smaller(batch)
        except OrdersRejected as error:
            await self._send_others(batch, error)
        else:
            await self._accept(batch)

    async def _send_smaller(self, batch: Sequence[OrderChange]) -> None:
        """Send a batch that was too large in smaller ones."""
        if len(batch) == 1:
            await self._refuse(batch, {batch[0].id: TOO_LARGE})
            return
        await self._batch_size.too_large(len(batch))
        await self.write(batch)

    async def _send_others(self, batch: Sequence[OrderChange], error: OrdersRejected) -> None:
        """Send a refused batch again without the orders at fault; if none is named, in halves."""
        named = {change.id: error.reasons[change.id] for change in batch if change.id in error.reasons}
        if not named and len(batch) == 1:
            named = {batch[0].id: error.reply or str(error)}
        await self._refuse(batch, named)
        others = [change for change in batch if change.id not in named]
        # The others go in one part if orders were named, else in two halves.
        middle = len(others) // 2
        for part in [others] if named else [others[:middle], others[middle:]]:
            if part:
                await self._send(part)

    async def _accept(self, batch: Sequence[OrderChange]) -> None:
        await self._batch_size.accepted(len(batch))
        now = self._now()
        await self._sent.record(
            [
                SentOrder(change.id, change.desired.source, change.fingerprint, accepted_at=now)
                for change in batch
            ]
        )
        if notes := Counter(note for change in batch for note in change.desired.notes):
            await self._links.count_notes(notes)

    async def _refuse(self, batch: Sequence[OrderChange], reasons: Mapping[OrderId, str]) -> None:
        """Record as refused those orders of a batch for which there is a reason."""
        refused = [_refused(change, reasons[change.id]) for change in batch if change.id in reasons]
        if refused:
            log.warning("orders are refused", reasons=dict(reasons))
            await self._sent.record(refused)


def _refused(change: OrderChange, reason: str) -> SentOrder:
    accepted_at = change.sent.accepted_at if change.sent else NEVER
    return SentOrder(
        change.id, change.desired.source, change.fingerprint, accepted_at=accepted_at, refused=reason
    )
