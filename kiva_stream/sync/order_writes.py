"""Order writes: order changes go to ActiveCampaign in batches, which it accepts or refuses as a whole.

| ActiveCampaign's answer to a batch         | then                                                          |
|--------------------------------------------|---------------------------------------------------------------|
| it accepts the batch                       | its orders are recorded as sent                               |
| it is too large; it has several orders     | they are sent in batches of half the size (`batch_size`)      |
| it is too large; it has one order          | the order is recorded as refused                              |
| it refuses several orders and names some   | these are recorded as refused; the others are sent again      |
| it refuses several orders and names none   | each half of the batch is sent by itself                      |
| it refuses a batch of one order            | the order is held, and refused when that is certain:          |
|                                            | see `conviction`                                              |
| it refuses orders for the account's sake   | all are held, and one is tried now and then                   |
| it gives none, to several orders           | `isolation` finds those that are the cause; others are sent   |
| it gives none, to one order                | the order is held, or sent again: see `LoneRecords`           |
| it gives none, whatever is sent            | it is an outage: the batch is sent again                      |

An order that is refused is not sent again until it changes. One that is held is left to the caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import attrgetter

import anyio

from kiva_stream.errors import BatchTooLarge, KindRefused, OrdersRejected, PermissionRefused
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import OrderId
from kiva_stream.model.orders import NEVER, SentOrder
from kiva_stream.observability.logs import log
from kiva_stream.ports.destination import OrderUploads
from kiva_stream.ports.state import Links, SentOrders
from kiva_stream.sync.batch_size import BatchSize
from kiva_stream.sync.carried_orders import CarriedOrders
from kiva_stream.sync.held_records import DueWrites, HeldRecords
from kiva_stream.sync.isolation import BatchSender, LoneRecords, halves
from kiva_stream.sync.order_changes import OrderChange
from kiva_stream.sync.order_kind import OrderKind
from kiva_stream.sync.request_kinds import NO_PERMISSION

TOO_LARGE = "it is too large for a request of its own"

Batch = Sequence[OrderChange]


class OrderWrites:
    """Writes the orders of one account. Every call raises AccountRefused, CheckpointError, HeldError."""

    def __init__(
        self,
        *,
        uploads: OrderUploads,
        sent: SentOrders,
        links: Links,
        batch_size: BatchSize,
        kind: OrderKind,
        held: HeldRecords,
        retry_held_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._uploads = uploads
        self._sent = sent
        self._links = links
        self._now = now
        self._batch_size = batch_size
        self._kind = kind
        self._carried = CarriedOrders(sent)
        lone: LoneRecords[OrderId] = LoneRecords(
            uploads.answers,
            retry_held_s,
            anyio.current_time,
            on_recovery=partial(held.make_due, HeldKind.ORDER),
        )
        lone.resume(map(OrderId, held.suspects(HeldKind.ORDER)))
        self._due_writes: DueWrites[OrderChange, OrderId] = DueWrites(
            held,
            HeldKind.ORDER,
            key=attrgetter("id"),
            refuse=self._refuse_discarded,
            is_suspect=lone.__contains__,
        )
        self._sender: BatchSender[OrderChange, OrderId] = BatchSender(attrgetter("id"), lone)

    async def write(self, changes: Sequence[OrderChange]) -> dict[OrderId, str]:
        """Send orders, one batch after another; those that cannot be sent are recorded as refused.

        Return the orders that are held: ActiveCampaign answers for others, but not for these; and why.
        """
        return await self._due_writes.write(changes, self._write)

    async def _refuse_discarded(self, discarded: Sequence[tuple[OrderChange, str]]) -> None:
        await self._refuse(
            [change for change, _ in discarded], {change.id: reply for change, reply in discarded}
        )

    async def _write(self, changes: Batch) -> dict[OrderId, str]:
        """Send orders; return those that get no answer, as `write` does."""
        await self._refuse(changes, {change.id: change.fault for change in changes if change.fault})
        parts: list[Batch] = [[change for change in changes if not change.fault]]
        held: dict[OrderId, str] = {}
        while parts:
            part = parts.pop(0)
            size = self._batch_size.size
            if rest := part[size:]:
                parts.insert(0, rest)
            paused = await self._kind.held([change.id for change in part[:size]])
            held |= paused
            if batch := [change for change in part[:size] if change.id not in paused]:
                send = partial(self._send, held)
                held |= await self._sender.send(batch, parts, send=send, too_large=self._batch_size.too_large)
        return held

    async def _send(
        self, held: dict[OrderId, str], batch: Batch, /, *, tries: int, is_suspect: bool
    ) -> list[Batch]:
        """Send a batch; return the parts to be sent anew if it was refused. Raises Unanswered.

        Orders that are refused, and held for that, are added to `held`.
        """
        desired, sent_at = [change.desired for change in batch], self._kind.now()
        again: list[Batch] = []
        try:
            await self._uploads.upsert(
                desired, around=self._carried.around(batch), tries=tries, is_suspect=is_suspect
            )
        except BatchTooLarge:
            again = await self._smaller(batch)
        except OrdersRejected as error:
            again = await self._without_refused(batch, error, held)
        except PermissionRefused as error:
            if len(batch) > 1:
                again = halves(batch)
            else:
                held |= self._provisional(batch[0], str(error), NO_PERMISSION)
        except KindRefused as error:
            held |= self._kind.convict([change.id for change in batch], str(error))
        else:
            await self._accept(batch, sent_at)
        return again

    async def _smaller(self, batch: Batch) -> list[Batch]:
        """Return a batch that was too large, to be sent in smaller ones; a single order is refused."""
        if len(batch) == 1:
            await self._refuse(batch, {batch[0].id: TOO_LARGE})
            return []
        await self._batch_size.too_large(len(batch))
        return [batch]

    async def _without_refused(
        self, batch: Batch, error: OrdersRejected, held: dict[OrderId, str]
    ) -> list[Batch]:
        """Refuse the orders at fault, and return the others; if none is named, the halves of the batch.

        A single one that is not named is held.
        """
        named = {change.id: error.reasons[change.id] for change in batch if change.id in error.reasons}
        if not named and len(batch) == 1:
            held |= self._provisional(batch[0], error.reply or str(error))
            return []
        for change in batch:
            if change.id in named:
                self._kind.at_fault(change.id)
        await self._refuse(batch, named)
        others = [change for change in batch if change.id not in named]
        if not others:
            return []
        return [others] if named else halves(batch)

    def _provisional(self, change: OrderChange, reply: str, text: str | None = None) -> dict[OrderId, str]:
        """Note an order that is refused alone, without being named; return it with the reason to hold it."""
        return self._kind.provisional(change.id, _refused(change, reply), reply, text=text)

    async def _accept(self, batch: Sequence[OrderChange], sent_at: float) -> None:
        await self._batch_size.accepted(len(batch))
        now = self._now()
        await self._sent.record(
            [
                SentOrder(change.id, change.desired.source, change.fingerprint, accepted_at=now)
                for change in batch
            ]
        )
        if at_fault := self._kind.accepted([change.id for change in batch], sent_at=sent_at):
            await self._sent.record(list(at_fault.values()))
        if notes := Counter(note for change in batch for note in change.desired.notes):
            await self._links.count_notes(notes)

    async def _refuse(self, batch: Sequence[OrderChange], reasons: Mapping[OrderId, str]) -> None:
        """Record as refused those orders of a batch for which there is a reason."""
        refused = [_refused(change, reasons[change.id]) for change in batch if change.id in reasons]
        if refused:
            log.warning("orders are refused", reasons=dict(reasons))
            self._kind.forget([order.id for order in refused])
            await self._sent.record(refused)


def _refused(change: OrderChange, reason: str) -> SentOrder:
    accepted_at = change.sent.accepted_at if change.sent else NEVER
    return SentOrder(
        change.id, change.desired.source, change.fingerprint, accepted_at=accepted_at, refused=reason
    )
