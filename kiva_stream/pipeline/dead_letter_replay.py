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
        self._given: dict[Position, ReplayRequest] = {}
        self._given_orders: set[OrderId] = set()

    async def pages(self, until: Position) -> AsyncIterator[ReopenedEntries | Changes]:
        """Yield the dead letters up to `until` that were requested since, then the orders, as changes.

        Above `until` the log has not been read yet. Raises SourceError, CheckpointError.
        """
        async for reopened in reopened_pages(
            self._entries, dead_letters := await self._new(until), dead_letters
        ):
            yield reopened
        if orders := await self._new_orders():
            yield await self._changes(orders)

    async def _new(self, until: Position) -> dict[Position, Reason]:
        asked = {
            at: dead_letter
            for at, dead_letter in (await self._dead_letters.replay_requests()).items()
            if at <= until
        }
        new = {at: dead_letter.why for at, dead_letter in asked.items() if self._given.get(at) != dead_letter}
        self._given = asked
        return new

    async def _new_orders(self) -> set[OrderId]:
        asked = set(await self._dead_letters.order_replay_requests())
        new = asked - self._given_orders
        self._given_orders = asked
        return new

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
