"""What the state schema keeps for order sync, in memory: see `ports/state.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import anyio
import anyio.lowlevel

from kiva_stream.errors import CheckpointError
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.orders import BatchLimit, SentOrder
from tests.support.orders import LINKED


class FakeSentOrders:
    """Implements SentOrders; `fails` when the state is gone."""

    def __init__(self) -> None:
        self.rows: dict[OrderId, SentOrder] = {}
        self.carried: set[OrderId] = set()
        self.limit: BatchLimit | None = None
        self.fails = False

    async def sent(self, ids: Collection[OrderId]) -> dict[OrderId, SentOrder]:
        await self._turn()
        return {key: self.rows[key] for key in ids if key in self.rows}

    async def ids_between(self, after: OrderId, until: OrderId) -> list[OrderId]:
        await self._turn()
        return [key for key in self.rows if after < key <= until]

    async def record(self, orders: Collection[SentOrder]) -> None:
        await self._turn()
        self.rows |= {each.id: each for each in orders}
        self.carried -= {each.id for each in orders if not each.refused}
        await anyio.lowlevel.checkpoint()

    async def record_carried(self, ids: Collection[OrderId]) -> list[OrderId]:
        await self._turn()
        new = [key for key in ids if key not in self.carried]
        self.carried.update(new)
        return new

    async def withdraw_carried(self, ids: Collection[OrderId]) -> None:
        await self._turn()
        self.carried.difference_update(ids)

    async def batch_limit(self) -> BatchLimit | None:
        await self._turn()
        return self.limit

    async def record_batch_limit(self, limit: BatchLimit) -> None:
        await self._turn()
        self.limit = limit

    async def _turn(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.fails:
            raise CheckpointError("the state is gone")


class FakeOrderLinks:
    """Implements what order sync needs of Links: a linked contact for each customer but those given."""

    def __init__(self, status: Mapping[int, ContactStatus | None] | None = None) -> None:
        self.status = dict(status or {})
        self.notes: Counter[str] = Counter()

    async def of_customers(self, customers: Collection[CustomerId]) -> dict[CustomerId, Contact]:
        await anyio.lowlevel.checkpoint()
        status = {each: self.status.get(each, LINKED) for each in customers}
        return {
            each: Contact(ContactId(each), Email(f"customer{each}@example.org"), how)
            for each, how in status.items()
            if how is not None
        }

    async def count_notes(self, notes: Mapping[str, int]) -> None:
        await anyio.lowlevel.checkpoint()
        self.notes.update(notes)
