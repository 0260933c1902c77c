"""Dead-letter replay: dead letters whose replay was requested while the log is followed, each once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime

from kiva_stream.model.dead_letters import ReplayRequest
from kiva_stream.model.entries import Change, Changes, ReopenedEntries
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.pipeline.leftovers import reopened_pages
from kiva_stream.ports.source import Customers, Entries, Orders
from kiva_stream.ports.state import ReplayRequests


class DeadLetterReplay:
    """Finds the replays that were requested since it last looked.

    A request stays in the state until the outcome is committed; only a later request replays the entry again.
    """

    def __init__(
        self, dead_letters: ReplayRequests, *, entries: Entries, customers: Customers, orders: Orders
    ) -> None:
        self._dead_letters = dead_letters
        self._entries = entries
        self._customers = customers
        self._orders = orders
        self._seen: dict[Position, ReplayRequest] = {}  # requests at the last look, up to `until`
        self._seen_orders: set[OrderId] = set()

    async def pages(self, until: Position) -> AsyncIterator[ReopenedEntries | Changes]:
        """Yield the dead letters whose replay was requested since the last call.

        Then yield the refused orders whose replay was requested since, as changes of their customers. A dead
        letter above `until`, where the log has not been read yet, is left to a later call. Raises
        SourceError, CheckpointError.
        """
        async for reopened in reopened_pages(self._entries, await self._new(until)):
            yield reopened
        if orders := await self._new_orders():
            yield await self._changes(orders)

    async def _new(self, until: Position) -> dict[Position, Reason]:
        last_seen, requests = self._seen, await self._dead_letters.replay_requests()
        self._seen = {at: request for at, request in requests.items() if at <= until}
        return {at: request.why for at, request in self._seen.items() if last_seen.get(at) != request}

    async def _new_orders(self) -> set[OrderId]:
        last_seen = self._seen_orders
        self._seen_orders = set(await self._dead_letters.order_replay_requests())
        return self._seen_orders - last_seen

    async def _changes(self, ids: Collection[OrderId]) -> Changes:
        """Return orders as changes of their customers, with whom they are upserted."""
        by_customer: dict[CustomerId, set[OrderId]] = {}
        for order in await self._orders.orders(ids):
            by_customer.setdefault(order.customer_id, set()).add(order.id)
        accounts = await self._customers.accounts([*by_customer])
        now = datetime.now(UTC)
        return Changes(
            [Change(each.customer, now, frozenset(by_customer[each.customer.id])) for each in accounts]
        )
