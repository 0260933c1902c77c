"""The shop's database in memory: see `ports/source.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from datetime import date

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from kiva_stream.errors import SourceError
from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.entries import Change, Changes, Entry
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.orders import Order
from kiva_stream.model.positions import HighWaterMark, Position
from tests.support.entries import place_of


class FakeLog:
    """Implements Log and Entries: entries, read in pages of a size. `read` are those given out, in order.

    After `breaks_after` pages it raises SourceError, as soon as `gate` is open. `changes` are yielded before
    the page of that number, from 0. Customers are those of `people` when an entry is read. A function of
    `before` is called once, before the page with its place is read.
    """

    is_used = True

    def __init__(self, entries: Iterable[Entry], page_rows: int = 10) -> None:
        self.entries = sorted(entries, key=lambda each: each.position)
        self.page_rows = page_rows
        self.read: list[Position] = []
        self.breaks_after: int | None = None
        self.gate: anyio.Event | None = None
        self.on_page: Callable[[], None] = lambda: None
        self.changes: dict[int, list[Change]] = {}
        self.people: Mapping[CustomerId, CustomerAccount] = {}
        self.before: dict[int, Callable[[], object]] = {}

    async def pages(self, after: Position, mark: HighWaterMark) -> AsyncIterator[list[Entry] | Changes]:
        rows = [each for each in self.entries if after < each.position <= mark.position]
        for number, start in enumerate(range(0, len(rows), self.page_rows)):
            await anyio.lowlevel.checkpoint()
            if number == self.breaks_after:
                if self.gate is not None:
                    await self.gate.wait()
                raise SourceError("the source is gone")
            if changes := self.changes.get(number):
                yield Changes(changes)
            page = rows[start : start + self.page_rows]
            for each in page:
                self.before.pop(place_of(each.position), _nothing)()
            self.read += [each.position for each in page]
            self.on_page()
            yield [self.as_now(each) for each in page]

    async def read_again(self, positions: Collection[Position]) -> list[Entry]:
        """Implement Entries: see `FakeEntries`."""
        await anyio.lowlevel.checkpoint()
        return [self.as_now(each) for each in self.entries if each.position in positions]

    def as_now(self, row: Entry) -> Entry:
        """Return an entry with its customer as it is now."""
        known = self.people.get(row.customer_id) if row.customer_id else None
        return replace(row, customer=known.customer) if known else row


def _nothing() -> None:
    pass


class FakeEntries:
    """Implements Entries on a log."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self.asked: list[Position] = []

    async def entries(self, positions: Collection[Position]) -> list[Entry]:
        self.asked += sorted(positions)
        return await self._log.read_again(positions)


class FakeCustomers:
    """Implements Customers: accounts by customer, as they are now. `asked` counts the reads of accounts."""

    def __init__(self, accounts: Iterable[CustomerAccount] = ()) -> None:
        self.rows = {each.customer.id: each for each in accounts}
        self.asked = 0

    async def page(self, after: CustomerId, count: int) -> list[Customer]:
        await anyio.lowlevel.checkpoint()
        return [self.rows[key].customer for key in sorted(self.rows) if key > after][:count]

    async def accounts(self, ids: Collection[CustomerId]) -> list[CustomerAccount]:
        await anyio.lowlevel.checkpoint()
        self.asked += 1
        return [self.rows[key] for key in ids if key in self.rows]

    def change(self, who: Customer | CustomerId, **changes: object) -> CustomerAccount:
        """Change a customer's row: fields of the customer or of the account."""
        row = self.rows[who if isinstance(who, int) else who.id]
        own = {key: changes.pop(key) for key in list(changes) if key in Customer.__struct_fields__}
        self.rows[row.customer.id] = replace(row, customer=replace(row.customer, **own), **changes)
        return self.rows[row.customer.id]


class FakeWeeks:
    """Implements Weeks: the current week, and the statuses of orders by customer and week."""

    def __init__(self, week: date = date(2026, 11, 23)) -> None:
        self.week = week
        self.rows: dict[tuple[int, date], set[str]] = {}

    async def current(self) -> date:
        await anyio.lowlevel.checkpoint()
        return self.week

    async def statuses(self, customers: Collection[CustomerId], week: date) -> dict[CustomerId, set[str]]:
        await anyio.lowlevel.checkpoint()
        return {each: self.rows[each, week] for each in customers if (each, week) in self.rows}

    def put(self, who: Customer, *statuses: str) -> None:
        """Have a customer's orders of the current week have these statuses."""
        self.rows[who.id, self.week] = set(statuses)


class FakeOrders:
    """Implements Orders: the shop's rows, which tests change. `reads` are the ids of each call by ids.

    `paid` are the ids that `paid_by` returns, by customer.
    """

    def __init__(self, orders: Iterable[Order] = ()) -> None:
        self.rows = {each.id: each for each in orders}
        self.paid: dict[CustomerId, list[OrderId]] = {}
        self.reads: list[set[OrderId]] = []
        self.after_read: Callable[[], None] = lambda: None

    def put(self, *orders: Order) -> None:
        self.rows |= {each.id: each for each in orders}

    async def page(self, after: OrderId, count: int) -> list[Order]:
        await anyio.lowlevel.checkpoint()
        return [self.rows[key] for key in sorted(self.rows) if key > after and self.rows[key].is_paid][:count]

    async def orders(self, ids: Collection[OrderId]) -> list[Order]:
        await anyio.lowlevel.checkpoint()
        self.reads.append(set(ids))
        found = [self.rows[key] for key in sorted(ids) if key in self.rows]
        self.after_read()
        await anyio.lowlevel.checkpoint()
        return found

    async def paid_by(self, customers: Collection[CustomerId]) -> list[OrderId]:
        await anyio.lowlevel.checkpoint()
        return sorted(order for customer in customers for order in self.paid.get(customer, []))
