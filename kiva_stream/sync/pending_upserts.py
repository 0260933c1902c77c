"""Pending upserts: the orders that calls wait for. Calls that wait at the same time share their batches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import anyio

from kiva_stream.model.ids import OrderId
from kiva_stream.primitives.clock import Sleep
from kiva_stream.primitives.signal import Signal

BATCHES_AT_ONCE = 4  # the next are read and sent while ActiveCampaign answers one


class Unfinished(NamedTuple):
    """The orders of a batch that were not upserted."""

    ready_at: Mapping[OrderId, float]  # sent too short a time ago: when they may be sent, by the loop's clock
    held: Mapping[OrderId, str]  # those that ActiveCampaign gives no answer for, and why


class UpsertCall:
    """A call that upserts orders: the ids it still awaits, those that are held, the error that ended it."""

    def __init__(self, ids: Collection[OrderId]) -> None:
        self.ids = set(ids)
        self.held: dict[OrderId, str] = {}
        self.error: Exception | None = None

    @property
    def is_pending(self) -> bool:
        """Whether the call still awaits orders."""
        return bool(self.ids) and self.error is None

    def finish(self, order: OrderId, held_why: str | None) -> None:
        """Await an order no more: it is upserted, or held."""
        self.ids.discard(order)
        if held_why is not None:
            self.held[order] = held_why

    def fail(self, error: Exception) -> None:
        """End the call by an error."""
        self.error = error


Batch = Mapping[OrderId, list[UpsertCall]]  # a batch of orders, each with the calls that await it


class PendingUpserts:
    """The orders that calls wait for, each in one batch at a time.

    An order that a call awaits is queued, or under way in a batch. It is both if a call asks for it while it
    is under way. Then it is compared again in a later batch, since it may have changed after it was read.
    """

    def __init__(self, sleep: Sleep) -> None:
        self._sleep = sleep
        self._queued: dict[OrderId, list[UpsertCall]] = {}  # in the order in which they were asked for
        self._ready_at: dict[OrderId, float] = {}  # of orders sent too recently, by the clock of the loop
        self._under_way: list[Batch] = []
        self._progressed = Signal()

    @contextmanager
    def call(self, ids: Collection[OrderId]) -> Iterator[UpsertCall]:
        """Queue orders for a call; those it still awaits when it ends are withdrawn."""
        call = UpsertCall(ids)
        for order in dict.fromkeys(ids):
            self._queued.setdefault(order, []).append(call)
        try:
            yield call
        finally:
            for order in call.ids & self._queued.keys():
                self._queued[order] = [each for each in self._queued[order] if each is not call]
                if not self._queued[order]:
                    del self._queued[order]
            call.ids.clear()

    def take(self, size: int, now: float) -> Batch:
        """Take up to `size` queued orders that may be sent now; none while enough batches are under way."""
        if len(self._under_way) >= BATCHES_AT_ONCE:
            return {}
        under_way = set().union(*self._under_way)
        ready = (
            order
            for order in self._queued
            if order not in under_way and self._ready_at.get(order, now) <= now
        )
        ids = list(islice(ready, size))
        for order in ids:
            self._ready_at.pop(order, None)
        return {order: self._queued.pop(order) for order in ids}

    async def work(
        self, batch: Batch, upsert: Callable[[Collection[OrderId]], Awaitable[Unfinished]]
    ) -> None:
        """Upsert a batch; then take its orders off the calls that await them, or end these calls by an error.

        `upsert` returns the orders that it left. Those that may be sent later are queued again. If the batch
        is cancelled or fails, all its orders are: another call may work them after a cancellation. After a
        failure, each call of the batch ends, and withdraws its orders from the queue.
        """
        self._under_way.append(batch)
        unfinished: Collection[OrderId] = batch  # all of it, if `upsert` is cancelled or raises
        try:
            left = await upsert(batch)
            unfinished = left.ready_at
        except Exception as error:  # noqa: BLE001  it is raised where it is waited for
            for call in (each for calls in batch.values() for each in calls):
                call.fail(error)
        else:
            self._ready_at |= left.ready_at
            for order in batch.keys() - unfinished:
                for call in batch[order]:
                    call.finish(order, left.held.get(order))
        finally:
            self._under_way.remove(batch)
            for order in unfinished:
                self._queue_again(order, batch[order])
            self._progressed.notify()

    def _queue_again(self, order: OrderId, calls: Collection[UpsertCall]) -> None:
        """Queue an order for those of its calls that were not withdrawn meanwhile."""
        if awaiting := [call for call in calls if order in call.ids]:
            self._queued.setdefault(order, []).extend(awaiting)

    async def progress(self, now: float) -> None:
        """Return when a batch ended, or when the next order that was sent too recently may be sent again."""
        wait_s = min((at - now for at in self._ready_at.values() if at > now), default=None)
        async with anyio.create_task_group() as group:
            if wait_s is not None:
                group.start_soon(self._notify_after, wait_s)
            await self._progressed.wait()
            group.cancel_scope.cancel()

    async def _notify_after(self, seconds: float) -> None:
        await self._sleep(seconds)
        self._progressed.notify()
