"""The world around order sync and week tags, in memory: shop, state and ActiveCampaign outlive a crash.

Every call is an await at which a test may strike; what a call does is done between two of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from kiva_stream.errors import (
    AccountRefused,
    BatchTooLarge,
    CheckpointError,
    ContactGone,
    OrdersRejected,
    Rejected,
)
from kiva_stream.model.contacts import Contact, ContactRecord, ContactStatus, DueContact
from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email, OrderId
from kiva_stream.model.orders import DesiredOrder, Order, OrderItem, SentOrder
from kiva_stream.model.week_tags import WeekTag
from tests.fakes import customer
from tests.virtual_time import now as virtual_now

NOON = datetime(2018, 11, 27, 12, tzinfo=UTC)  # of the first day that these tests speak of
ITEM = OrderItem(id=1, product_id=7, name="Kale", category="menu", qty=Decimal(1), unit_price_cents=350)
WEEK = date(2018, 11, 26)
NEXT_WEEK = WEEK + timedelta(days=7)
LINKED, NEW, REJECTED = ContactStatus.LINKED, ContactStatus.NEW, ContactStatus.REJECTED


def wall_clock() -> datetime:
    """Return the time of day, which goes as the virtual loop does."""
    return NOON + timedelta(seconds=virtual_now())


def order(number: int, **changes: object) -> Order:
    """Return a customer's only order, paid long ago, but for the changes."""
    paid = Order(
        id=OrderId(number),
        customer_id=CustomerId(number),
        status="complete",
        payment_status="completed",
        created_at=NOON - timedelta(days=40),
        paid_at=NOON - timedelta(days=30),
        total_cents=100 * number,
        discount_cents=0,
        credit_cents=0,
        items=(ITEM,),
    )
    return replace(paid, **changes)


class FakeOrders:
    """Implements Orders: the shop's rows, which tests change. `reads` are the ids of each call by ids."""

    def __init__(self, orders: Iterable[Order] = ()) -> None:
        self.rows = {each.id: each for each in orders}
        self.reads: list[set[OrderId]] = []
        self.after_read: Callable[[], None] = lambda: None

    def put(self, *orders: Order) -> None:
        self.rows |= {each.id: each for each in orders}

    async def page(self, after: OrderId, size: int) -> list[Order]:
        await anyio.lowlevel.checkpoint()
        return [self.rows[key] for key in sorted(self.rows) if key > after and self.rows[key].is_paid][:size]

    async def orders(self, ids: Collection[OrderId]) -> list[Order]:
        await anyio.lowlevel.checkpoint()
        self.reads.append(set(ids))
        found = [self.rows[key] for key in sorted(ids) if key in self.rows]
        self.after_read()
        await anyio.lowlevel.checkpoint()
        return found

    async def paid_by(self, customers: Collection[CustomerId]) -> list[OrderId]:
        raise NotImplementedError


class FakeSentOrders:
    """Implements SentOrders; `fails` when the state is gone."""

    def __init__(self) -> None:
        self.rows: dict[OrderId, SentOrder] = {}
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
        await anyio.lowlevel.checkpoint()

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


class FakeUploads:
    """Implements OrderUploads, as ActiveCampaign does: a batch is taken whole or not at all.

    `bad` orders are refused, by name when they are in `named`; more than `largest` are too large, as is a
    batch with one of `huge`. An answer takes `takes_s`. `batches` are those accepted, with when.
    """

    def __init__(self) -> None:
        self.bad: dict[int, str] = {}
        self.named: set[int] = set()
        self.largest = 1_000
        self.huge: set[int] = set()
        self.takes_s = 0.1
        self.error: Exception | None = None
        self.batches: list[tuple[float, list[int]]] = []
        self.asked: list[list[int]] = []  # refused ones too
        self.has: dict[int, DesiredOrder] = {}
        self.in_flight: list[set[int]] = []
        self.most_in_flight = 0

    @property
    def sent(self) -> list[list[int]]:
        return [batch for _at, batch in self.batches]

    async def upsert(self, orders: Sequence[DesiredOrder]) -> None:
        ids = {int(each.id) for each in orders}
        assert not any(ids & other for other in self.in_flight), "an order is in two batches"
        self.in_flight.append(ids)
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        try:
            await anyio.sleep(self.takes_s)
            self._answer(orders)
            await anyio.lowlevel.checkpoint()
        finally:
            self.in_flight.remove(ids)

    def _answer(self, orders: Sequence[DesiredOrder]) -> None:
        ids = [each.id for each in orders]
        self.asked.append(list(ids))
        if self.error is not None:
            raise self.error
        if len(ids) > self.largest or self.huge & set(ids):
            raise BatchTooLarge("too large")
        if bad := {each: self.bad[each] for each in ids if each in self.bad}:
            named = {int(each): said for each, said in bad.items() if each in self.named}
            raise OrdersRejected("refused", named, "" if named else next(iter(bad.values())))
        for each in orders:
            self.has[each.id] = each
        self.batches.append((virtual_now(), list(ids)))


class FakeWeeks:
    """Implements Weeks: the orders' statuses by customer and week."""

    def __init__(self) -> None:
        self.week = WEEK
        self.rows: dict[tuple[int, date], set[str]] = {}

    async def current(self) -> date:
        await anyio.lowlevel.checkpoint()
        return self.week

    async def statuses(self, customers: Collection[CustomerId], week: date) -> dict[CustomerId, set[str]]:
        await anyio.lowlevel.checkpoint()
        return {each: self.rows[each, week] for each in customers if (each, week) in self.rows}


class FakeDue:
    """Implements TagsDue, and is the table of contacts that the state schema has."""

    def __init__(self) -> None:
        self.contacts: dict[ContactId, ContactRecord] = {}
        self.marks: dict[ContactId, int] = {}
        self.opened: date | None = None
        self.times_opened = 0
        self.forgotten: list[list[ContactId]] = []
        self.settled_at_once: list[int] = []
        self._marks = count(1)

    def put(self, linked: ContactRecord) -> None:
        """Have a contact, which is due."""
        self.contacts[linked.contact.id] = linked
        self.touch(linked.contact.id)

    def touch(self, contact: int) -> None:
        """Have a contact due, or due again."""
        self.marks[ContactId(contact)] = next(self._marks)

    async def week(self) -> date | None:
        await anyio.lowlevel.checkpoint()
        return self.opened

    async def begin_week(self, week: date) -> None:
        await anyio.lowlevel.checkpoint()
        self.opened = week
        self.times_opened += 1
        for each, linked in self.contacts.items():
            if linked.contact.status is LINKED:
                self.touch(each)
        await anyio.lowlevel.checkpoint()

    async def page(self, after: ContactId, size: int) -> list[DueContact]:
        await anyio.lowlevel.checkpoint()
        ids = [each for each in sorted(self.marks) if each > after][:size]
        return [DueContact(self.contacts[each], self.marks[each]) for each in ids]

    async def clear_due(self, due: Collection[DueContact]) -> None:
        await anyio.lowlevel.checkpoint()
        self.settled_at_once.append(len(due))
        for each in due:
            if self.marks.get(each.record.contact.id) == each.mark:
                del self.marks[each.record.contact.id]
        await anyio.lowlevel.checkpoint()

    async def record_tags_unknown(self, contacts: Collection[ContactId]) -> None:
        await anyio.lowlevel.checkpoint()
        self.forgotten.append(list(contacts))
        for each in contacts:
            self.contacts[each] = replace(self.contacts[each], tag=None, tag_link=None)
        await anyio.lowlevel.checkpoint()

    async def record_tag(self, contact: ContactId, ac_id: AcId, tag: WeekTag, link: int) -> None:
        await anyio.lowlevel.checkpoint()
        self.contacts[contact] = replace(self.contacts[contact], ac_id=ac_id, tag=tag, tag_link=link)
        await anyio.lowlevel.checkpoint()

    async def mark_all_due(self) -> None:
        raise NotImplementedError

    async def mark_due(self, contacts: Collection[ContactId]) -> None:
        await anyio.lowlevel.checkpoint()
        for each in contacts:
            self.touch(each)


class FakeAccount:
    """Implements WeekTags, and `find` of Contacts: ActiveCampaign's contacts with their week tags.

    It fails when a contact has two of them, or is in two requests. Each answer takes `takes_s`. Nothing is
    put on contacts in `rejected`.
    """

    def __init__(self) -> None:
        self.by_email: dict[Email, AcId] = {}
        self.tags: dict[AcId, dict[WeekTag, int]] = {}
        self.calls: list[str] = []
        self.takes_s = 0.1
        self.refuses = False
        self.rejected: set[AcId] = set()
        self.busy: set[AcId] = set()
        self.most_busy = 0
        self.on_call: Callable[[str], None] = lambda _call: None
        self._links = count(1_000)

    def put(self, number: int, *tags: WeekTag) -> AcId:
        """Have the contact of a customer, with a tag."""
        ac_id = AcId(number + 500)
        self.by_email[customer(number).email or Email("")] = ac_id
        self.tags[ac_id] = {tag: next(self._links) for tag in tags}
        return ac_id

    def drop(self, number: int) -> None:
        """Have the contact of a customer no more."""
        del self.tags[self.by_email.pop(customer(number).email or Email(""))]

    def tag_of(self, number: int) -> WeekTag | None:
        """Return a customer's only tag."""
        there = self.tags[AcId(number + 500)]
        assert len(there) <= 1
        return next(iter(there), None)

    async def find(self, email: Email) -> AcId | None:
        await self._answer("find")
        return self.by_email.get(email)

    async def links(self, contact: AcId) -> dict[WeekTag, int]:
        await self._answer("links", contact)
        return dict(self._tags(contact))

    async def add(self, contact: AcId, tag: WeekTag) -> int:
        await self._answer("add", contact)
        there = self._tags(contact)
        if contact in self.rejected:
            raise Rejected("refused", "no such tag")
        there.setdefault(tag, next(self._links))
        assert len(there) == 1, f"a contact has two tags: {sorted(there)}"
        link = there[tag]
        await anyio.lowlevel.checkpoint()
        return link

    async def remove(self, link: int) -> None:
        owner = next((who for who, there in self.tags.items() if link in there.values()), None)
        await self._answer("remove", owner)
        for there in self.tags.values():
            for tag in [tag for tag, each in there.items() if each == link]:
                del there[tag]
        await anyio.lowlevel.checkpoint()

    def _tags(self, contact: AcId) -> dict[WeekTag, int]:
        if contact not in self.tags:
            raise ContactGone("no such contact")
        return self.tags[contact]

    async def _answer(self, call: str, contact: AcId | None = None) -> None:
        self.calls.append(call)
        self.on_call(call)
        assert contact is None or contact not in self.busy, "a contact is in two requests"
        taken = {contact} if contact is not None else set()
        self.busy |= taken
        self.most_busy = max(self.most_busy, len(self.busy))
        try:
            await anyio.sleep(self.takes_s)
        finally:
            self.busy -= taken
        if self.refuses:
            raise AccountRefused("the key is refused")


def linked(
    number: int, *customers: Customer, status: ContactStatus = LINKED, email: str = "", **known: object
) -> ContactRecord:
    """Return the contact of these customers, else of the customer of that number."""
    who = customers or (customer(number),)
    contact = Contact(ContactId(number), Email(email or str(who[0].email)), status)
    return replace(ContactRecord(contact, tuple(each.id for each in who), b"sent"), **known)
