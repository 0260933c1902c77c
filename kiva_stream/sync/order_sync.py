"""Order sync: ActiveCampaign shows the site's paid orders as the shop has them now.

It is level-triggered, as contact sync is: the current rows, read for many orders at once, become desired
orders, and those that differ from what ActiveCampaign last accepted, or refused, are sent in batches.
ActiveCampaign writes an order some seconds after it accepted it. So an order is in one batch at a time, and
in the next one no sooner than `order_settle_s` later, whichever run sent it. After a crash it is not known
which orders were accepted last, so all wait as long.

| part              | what it does                                                 |
|-------------------|--------------------------------------------------------------|
| `pending_upserts` | gathers the orders of waiting calls into batches             |
| `order_changes`   | finds which orders differ, and how                           |
| `order_writes`    | sends batches, in smaller ones where one is refused          |
| `batch_size`      | how many orders a batch has                                  |
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from datetime import UTC, datetime

import anyio

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import LOWEST_ID, OrderId
from kiva_stream.model.orders import NEVER, Order, SentOrder
from kiva_stream.ports.destination import OrderUploads
from kiva_stream.ports.source import Orders
from kiva_stream.ports.state import Links, SentOrders
from kiva_stream.primitives.clock import Sleep
from kiva_stream.primitives.workers import for_each
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.batch_size import BatchSize
from kiva_stream.sync.held_records import HeldRecords
from kiva_stream.sync.order_changes import OrderChanges
from kiva_stream.sync.order_kind import OrderKind
from kiva_stream.sync.order_writes import OrderWrites
from kiva_stream.sync.pending_upserts import BATCHES_AT_ONCE, PendingUpserts, Unfinished

PAGE_ROWS = 1_000
HIGHEST = OrderId(2**63 - 1)


class OrderSync:
    """Implements OrderDelivery, and the snapshot of all orders.

    `currency` has three capital letters. Until `crashed_at` an earlier process may have sent orders without
    recording that they were accepted. Every call raises AccountRefused, SourceError, CheckpointError,
    HeldError.
    """

    def __init__(
        self,
        currency: str,
        *,
        orders: Orders,
        sent: SentOrders,
        links: Links,
        uploads: OrderUploads,
        kind: OrderKind,
        held: HeldRecords,
        settings: ActiveCampaignSettings,
        crashed_at: datetime = NEVER,
        sleep: Sleep = anyio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._orders = orders
        self._sent = sent
        self._links = links
        self._held = held
        self._kind = kind
        self._settle_s = settings.order_settle_s
        self._crashed_at = crashed_at
        self._now = now
        self._pending = PendingUpserts(sleep)
        self._changes = OrderChanges(
            currency, sent=sent, links=links, realtime_max_age_s=settings.realtime_max_age_s, now=now
        )
        self._batch_size = BatchSize(sent, first=settings.orders_per_batch, now=now)
        self._writes = OrderWrites(
            uploads=uploads,
            sent=sent,
            links=links,
            batch_size=self._batch_size,
            kind=kind,
            held=held,
            retry_held_s=settings.retry_held_s,
            now=now,
        )

    # --- all orders ---

    async def snapshot(self, on_done: Callable[[int], None]) -> frozenset[OrderId]:
        """Upsert all paid orders, and those sent before, of linked contacts; return those that are held.

        `on_done` is called with the number of orders that differed, a batch at a time. Raises ExceptionGroups
        too.
        """
        held: set[OrderId] = set()

        async def upsert(ids: list[OrderId]) -> None:
            try:
                await self.upsert(ids)
            except RecordsHeld as error:
                held.update(map(OrderId, error.why))
            on_done(len(ids))

        await for_each(self._differing(), upsert, at_once=BATCHES_AT_ONCE)
        return frozenset(held)

    async def _differing(self) -> AsyncIterator[list[OrderId]]:
        """Yield the orders that differ from what was last sent, a batch at a time."""
        await self._batch_size.load()
        changed: list[OrderId] = []
        async for orders in self._pages():
            changed += [change.id for change in await self._changes.of(orders) if not change.is_empty]
            while len(changed) >= (size := self._batch_size.size):
                yield changed[:size]
                del changed[:size]
        if changed:
            yield changed

    async def _pages(self) -> AsyncIterator[list[Order]]:
        """Yield all orders that are paid or were sent before.

        A page has paid orders, and the orders sent before that are not paid now and lie in its range of ids.
        The last page has no paid orders: it has those sent before with ids above the last paid one.
        """
        after, is_last = OrderId(LOWEST_ID), False
        while not is_last:
            page = await self._orders.page(after, PAGE_ROWS)
            is_last = not page
            until = HIGHEST if is_last else page[-1].id
            not_paid = set(await self._sent.ids_between(after, until)) - {order.id for order in page}
            # An order that the shop does not have any more is left out.
            yield page + (await self._orders.orders(not_paid) if not_paid else [])
            after = until

    # --- given orders ---

    async def upsert(self, ids: Collection[OrderId]) -> None:
        """Return when these orders are upserted, refused, or found not to belong to ActiveCampaign.

        Raises RecordsHeld with those that ActiveCampaign gives no answer for, when the others are done.
        Calls made at the same time share their batches: a waiting call works the next batch, in which orders
        of other calls may be. An order that is under way is compared once more, since it may have changed
        after it was read.
        """
        await self._batch_size.load()
        with self._pending.call(ids) as call:
            while call.is_pending:
                # `take` and `progress` get one moment. An order that became ready between two moments would
                # be missed: not taken at the first, and not waited for at the second.
                now = anyio.current_time()
                if batch := self._pending.take(self._batch_size.size, now):
                    await self._pending.work(batch, self._upsert_ready)
                else:
                    await self._pending.progress(now)
        if call.error is not None:
            raise call.error
        if call.held:
            raise RecordsHeld("orders", {int(order): why for order, why in call.held.items()})

    async def _upsert_ready(self, ids: Collection[OrderId]) -> Unfinished:
        """Upsert those of these orders that may be sent now; return the others, and those that are held.

        | the order                                                | then                                 |
        |----------------------------------------------------------|--------------------------------------|
        | is not at the shop                                       | it is counted as `order_missing`     |
        | does not differ, or does not belong to ActiveCampaign    | nothing is sent                      |
        | differs, has no items, and was never accepted            | it is counted as `order_missing`     |
        | differs, and was accepted less than `order_settle_s` ago | it is left until that time is over   |
        | differs, less than `order_settle_s` after a crash        | it is left until that time is over   |
        | differs                                                  | it is sent                           |
        """
        # 1. Read the rows, and find the orders that differ.
        orders = await self._orders.orders(ids)
        found = await self._changes.of(orders)
        changes = [change for change in found if not change.is_empty]
        # 2. Leave the orders that ActiveCampaign may not have written yet.
        delays = {change.id: delay for change in changes if (delay := self._settle_delay_s(change.sent))}
        now = anyio.current_time()
        # 3. Write the others.
        held = await self._writes.write([change for change in changes if change.id not in delays])
        unchanged = set(ids).difference(change.id for change in changes)
        self._kind.forget(unchanged)
        await self._held.end(HeldKind.ORDER, unchanged)
        # 4. Count the orders that are not at the shop, and those that are empty.
        if missing := (len(ids) - len(orders)) + (len(found) - len(changes)):
            await self._links.count_notes({"order_missing": missing})
        return Unfinished({order: now + delay for order, delay in delays.items()}, held)

    def _settle_delay_s(self, sent: SentOrder | None) -> float:
        """Return for how long an order must not be sent again.

        0 if it was accepted in the future: then the clock was set back meanwhile.
        """
        accepted_at = max(sent.accepted_at if sent else NEVER, self._crashed_at)
        age_s = (self._now() - accepted_at).total_seconds()
        return max(0.0, self._settle_s - age_s) if age_s >= 0 else 0.0
