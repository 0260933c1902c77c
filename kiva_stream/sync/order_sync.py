"""Order sync: ActiveCampaign shows the site's paid orders as the shop has them now.

Level-triggered, as contact sync is: current rows, read for many orders at once, become desired orders, and
those that differ from what ActiveCampaign last accepted, or refused, are sent in batches. ActiveCampaign
writes an order some seconds after it accepted it, so an order is in one batch at a time, and in the next one
no sooner than `order_settle_s` later, whichever run sent it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from kiva_stream.errors import BatchTooLarge, OrdersRejected
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.orders import DesiredOrder, Order, SentOrder
from kiva_stream.observability.logs import log
from kiva_stream.ports.destination import OrderUploads
from kiva_stream.ports.source import Orders
from kiva_stream.ports.state import Links, SentOrders
from kiva_stream.primitives.clock import Sleep
from kiva_stream.primitives.signal import Signal
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.desired_order import desired_order, fingerprint, invalid, order_source

PAGE_ROWS = 1_000
BATCHES_AT_ONCE = 4  # while ActiveCampaign answers one, the next are read and on their way
NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # when a refused order was accepted that never was
HIGHEST = OrderId(2**63 - 1)
TOO_LARGE = "it is too large for a request of its own"


class _Change(NamedTuple):
    """An order that ActiveCampaign does not show as the shop has it."""

    desired: DesiredOrder
    fingerprint: bytes
    fault: str  # why it cannot be sent, "" when it can
    sent: SentOrder | None

    @property
    def id(self) -> OrderId:
        return self.desired.id

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show yet: an order without items, never sent."""
        return self.sent is None and not self.desired.lines


class _Call:
    """Somebody who waits for orders: for which ones still, or what went wrong."""

    def __init__(self, ids: Collection[OrderId]) -> None:
        self.ids = set(ids)
        self.error: Exception | None = None


class OrderSync:
    """Implements the port OrderDelivery, and the snapshot of all orders that comes before the events.

    `currency` has three capitals. Every call raises AccountRefused, SourceError, CheckpointError,
    the snapshot ExceptionGroups of them.
    """

    def __init__(
        self,
        currency: str,
        orders: Orders,
        sent: SentOrders,
        links: Links,
        uploads: OrderUploads,
        settings: ActiveCampaignSettings,
        sleep: Sleep = anyio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._currency = currency
        self._orders = orders
        self._sent = sent
        self._links = links
        self._uploads = uploads
        self._settings = settings
        self._sleep = sleep
        self._now = now
        self._size = settings.orders_per_batch  # falls when ActiveCampaign finds a batch too large
        self._asked: dict[OrderId, list[_Call]] = {}  # in no batch yet, in the order they were asked for
        self._ready_at: dict[OrderId, float] = {}  # of those asked for too soon: on the clock of the loop
        self._under_way: set[OrderId] = set()
        self._batches = 0  # under way
        self._progressed = Signal()

    # --- all orders ---

    async def snapshot(self, on_done: Callable[[int], None]) -> None:
        """Bring all paid orders, and those sent before, of linked contacts.

        `on_done` hears how many orders that differed came at a time.
        """
        send, receive = anyio.create_memory_object_stream[list[OrderId]]()
        async with anyio.create_task_group() as batches, receive:
            for _ in range(BATCHES_AT_ONCE):
                batches.start_soon(self._bring_each, receive.clone(), on_done)
            async with send:
                async for ids in self._changed():
                    await send.send(ids)

    async def _bring_each(
        self, lists: MemoryObjectReceiveStream[list[OrderId]], on_done: Callable[[int], None]
    ) -> None:
        async with lists:
            async for ids in lists:
                await self.upsert(ids)
                on_done(len(ids))

    async def _changed(self) -> AsyncIterator[list[OrderId]]:
        """Yield the orders that differ from what was last sent, a batch's worth at a time."""
        changed: list[OrderId] = []
        async for orders in self._pages():
            changed += [change.id for change in await self._changes(orders) if not change.is_empty]
            while len(changed) >= self._size:
                part, changed = changed[: self._size], changed[self._size :]
                yield part
        if changed:
            yield changed

    async def _pages(self) -> AsyncIterator[list[Order]]:
        """Yield all paid orders, and with those next to them the ones sent that are paid no more."""
        after, is_last = OrderId(0), False
        while not is_last:
            page = await self._orders.page(after, PAGE_ROWS)
            is_last = not page
            until = HIGHEST if is_last else page[-1].id
            gone = set(await self._sent.ids_between(after, until)) - {order.id for order in page}
            yield page + (await self._orders.orders(gone) if gone else [])
            after = until

    # --- the orders of entries ---

    async def upsert(self, ids: Collection[OrderId]) -> None:
        """Return when these orders are at ActiveCampaign, or refused, or none that belong there.

        Calls made at the same time go together: who waits takes the next batch, with the orders of others.
        An order that is under way is looked at once more, as it may have changed after it was read.
        """
        call = _Call(ids)
        for order in dict.fromkeys(ids):
            self._asked.setdefault(order, []).append(call)
        try:
            while call.ids and call.error is None:
                now = anyio.current_time()  # one for both, or an order could become ready between them
                if taken := self._take(now):
                    await self._bring(taken)
                else:
                    await self._wait(now)
        finally:
            self._withdraw(call)
        if call.error is not None:
            raise call.error

    def _take(self, now: float) -> dict[OrderId, list[_Call]]:
        """Return a batch of orders that may be sent now, with those who wait for each."""
        if self._batches >= BATCHES_AT_ONCE:
            return {}
        ready = (
            order
            for order in self._asked
            if order not in self._under_way and self._ready_at.get(order, now) <= now
        )
        ids = list(islice(ready, self._size))
        for order in ids:
            self._ready_at.pop(order, None)
        return {order: self._asked.pop(order) for order in ids}

    async def _bring(self, taken: dict[OrderId, list[_Call]]) -> None:
        """Send a batch; who waits for it hears of it. What did not get its turn is asked for again."""
        self._under_way |= taken.keys()
        self._batches += 1
        left: Collection[OrderId] = taken
        try:
            left = await self._bring_ready(taken)
        except Exception as error:  # noqa: BLE001  it is raised where it is waited for
            for call in _calls(taken):
                call.error = error
        else:
            for order in taken.keys() - left:
                for call in taken[order]:
                    call.ids.discard(order)
        finally:
            self._batches -= 1
            self._under_way -= taken.keys()
            self._ask_again({order: taken[order] for order in left})
            self._progressed.notify()

    def _ask_again(self, left: Mapping[OrderId, list[_Call]]) -> None:
        """Have the next batch take these orders, as far as somebody still waits for them."""
        for order, calls in left.items():
            if waiting := [call for call in calls if order in call.ids]:
                self._asked.setdefault(order, []).extend(waiting)

    async def _bring_ready(self, ids: Collection[OrderId]) -> set[OrderId]:
        """Send what differs of these orders; return those that were accepted too short a time ago."""
        orders = await self._orders.orders(ids)
        found = await self._changes(orders)
        changes = [change for change in found if not change.is_empty]
        young = {change.id: wait_s for change in changes if (wait_s := self._settles_in_s(change.sent))}
        now = anyio.current_time()
        self._ready_at |= {order: now + wait_s for order, wait_s in young.items()}
        await self._send([change for change in changes if change.id not in young])
        if missing := len(ids) - len(orders) + len(found) - len(changes):
            await self._links.count_notes({"order_missing": missing})
        return set(young)

    def _settles_in_s(self, sent: SentOrder | None) -> float:
        """Return how long an order must not be sent yet; one accepted in the future is no reason to wait."""
        age_s = (self._now() - sent.accepted_at).total_seconds() if sent else -1
        return max(0.0, self._settings.order_settle_s - age_s) if age_s >= 0 else 0.0

    async def _wait(self, now: float) -> None:
        """Return when something happened that may let this caller go on."""
        wait_s = min((at - now for at in self._ready_at.values() if at > now), default=None)
        async with anyio.create_task_group() as group:
            if wait_s is not None:
                group.start_soon(self._notify_after, wait_s)
            await self._progressed.wait()
            group.cancel_scope.cancel()

    async def _notify_after(self, seconds: float) -> None:
        await self._sleep(seconds)
        self._progressed.notify()

    def _withdraw(self, call: _Call) -> None:
        """Ask no more for the orders that a call still waits for."""
        for order in call.ids & self._asked.keys():
            self._asked[order] = [each for each in self._asked[order] if each is not call]
            if not self._asked[order]:
                del self._asked[order]
        call.ids.clear()

    # --- what is wanted ---

    async def _changes(self, orders: Collection[Order]) -> list[_Change]:
        """Return what differs of these orders, as far as they belong to ActiveCampaign."""
        sent = await self._sent.sent([order.id for order in orders])
        contacts = await self._links.of_customers({order.customer_id for order in orders})
        changes = (self._change(order, contacts, sent.get(order.id)) for order in orders)
        return [change for change in changes if change is not None]

    def _change(
        self, order: Order, contacts: Mapping[CustomerId, Contact], sent: SentOrder | None
    ) -> _Change | None:
        contact = contacts.get(order.customer_id)
        was_accepted = sent is not None and sent.accepted_at != NEVER
        if contact is None or contact.status is not ContactStatus.LINKED:
            return None
        if not (order.is_paid or was_accepted):
            return None
        max_age_s = self._settings.realtime_max_age_s
        source = sent.source if sent else order_source(order, self._now(), max_age_s)
        desired = desired_order(
            order, contact.email, currency=self._currency, source=source, was_sent=was_accepted
        )
        change = _Change(desired, fingerprint(desired, contact.id), invalid(order), sent)
        return None if sent and sent.fingerprint == change.fingerprint else change

    # --- sending ---

    async def _send(self, changes: Sequence[_Change]) -> None:
        """Send orders, a batch after the other, but for those that cannot be."""
        faults = {change.id: change.fault for change in changes if change.fault}
        await self._refuse(changes, faults)
        left = [change for change in changes if not change.fault]
        while left:
            part, left = left[: self._size], left[self._size :]
            await self._send_batch(part)

    async def _send_batch(self, batch: Sequence[_Change]) -> None:
        try:
            await self._uploads.upsert([change.desired for change in batch])
        except BatchTooLarge:
            await self._send_smaller(batch)
        except OrdersRejected as error:
            await self._send_others(batch, error)
        else:
            await self._accept(batch)

    async def _send_smaller(self, batch: Sequence[_Change]) -> None:
        """Send in smaller batches what was too large for one, and stay with these."""
        if len(batch) == 1:
            await self._refuse(batch, {batch[0].id: TOO_LARGE})
            return
        self._size = min(self._size, len(batch) // 2)
        log.info("orders go in smaller batches from now on", orders_per_batch=self._size)
        await self._send(batch)

    async def _send_others(self, batch: Sequence[_Change], error: OrdersRejected) -> None:
        """Send a refused batch again without those at fault; where none is named, halves of it."""
        named = {change.id: error.reasons[change.id] for change in batch if change.id in error.reasons}
        if not named and len(batch) == 1:
            named = {batch[0].id: error.reply or str(error)}
        await self._refuse(batch, named)
        others = [change for change in batch if change.id not in named]
        half = len(others) if named else len(others) // 2
        for part in (others[:half], others[half:]):
            if part:
                await self._send_batch(part)

    async def _accept(self, batch: Sequence[_Change]) -> None:
        now = self._now()
        await self._sent.record(
            [SentOrder(change.id, change.desired.source, change.fingerprint, now) for change in batch]
        )
        if notes := Counter(note for change in batch for note in change.desired.notes):
            await self._links.count_notes(notes)

    async def _refuse(self, batch: Sequence[_Change], reasons: Mapping[OrderId, str]) -> None:
        """Keep those of a batch that are refused, with why, so that they wait until they change."""
        refused = [_refused(change, reasons[change.id]) for change in batch if change.id in reasons]
        if refused:
            log.warning("orders are refused", reasons=dict(reasons))
            await self._sent.record(refused)


def _refused(change: _Change, reason: str) -> SentOrder:
    accepted_at = change.sent.accepted_at if change.sent else NEVER
    return SentOrder(change.id, change.desired.source, change.fingerprint, accepted_at, reason)


def _calls(taken: Mapping[OrderId, Collection[_Call]]) -> set[_Call]:
    return {call for calls in taken.values() for call in calls}
