"""A world whose ActiveCampaign has bad records and outages, and what may be held in it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Literal, NamedTuple

import anyio

from kiva_stream.errors import Unanswered
from kiva_stream.model.bulk_imports import ImportReport
from kiva_stream.model.contacts import Contact
from kiva_stream.model.customers import Customer
from kiva_stream.model.entries import Entry
from kiva_stream.model.held_records import HeldKind, HeldRecord
from kiva_stream.model.ids import AcId, Email
from kiva_stream.model.orders import DesiredOrder
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.ports.destination import Around
from kiva_stream.ports.stages import OrderDelivery
from kiva_stream.sync.order_sync import OrderSync
from tests.fakes.destination_contacts import FakeContacts
from tests.fakes.destination_orders import FakeOrderUploads
from tests.fakes.source import FakeLog
from tests.fakes.state_held import FakeHeldRows
from tests.fakes.state_orders import FakeSentOrders
from tests.support.entries import HIGHEST_ID, account, customer, up_to
from tests.support.orders import order, wall_clock
from tests.support.pipeline_world import World
from tests.support.virtual_time import now as virtual_now
from tests.unit.pipeline.witness import LOST, REFUSED_EVENT, Receiver, ReceiverLookup

SETTLE_S = 3.0
RETRY_HELD_S = 5.0
MOST_BY_READS = 3  # records of a kind that an outage may have set aside
MOMENT_S = 0.001  # until a request fails; an answer that was under way takes less
AFTER_S = 30.0  # until another outage: attempts of the last one are over by then

LETTERS = "abcdefghi"  # digits do not tell texts apart
PEOPLE = tuple(customer(number) for number in range(1, 9))
Request = Literal["import", "upsert", "other", "orders", "events"]
REQUESTS: tuple[Request, ...] = ("import", "upsert", "other", "orders", "events")
CARRIED_BY: dict[HeldKind, tuple[Request, ...]] = {
    HeldKind.CONTACT: ("import", "upsert", "other"),
    HeldKind.LIST: ("other",),
    HeldKind.ORDER: ("orders",),
    HeldKind.EVENT: ("events",),
}
Harm = Literal["silent", "refused", "unnamed"]  # no answer; a refusal that names it; one that names nothing
Record = tuple[Literal["contact", "order", "event"], int]  # a customer, an order, a place


class Outage(NamedTuple):
    """Requests that get no answer, whatever they carry; also reads, if all of ActiveCampaign is down."""

    requests: frozenset[Request]
    is_whole: bool


class Troubles:
    """What ActiveCampaign does wrong just now."""

    def __init__(self) -> None:
        self.bad: dict[Record, Harm] = {}
        self.outage: Outage | None = None
        self.ended_at = -math.inf  # the last outage
        self.step = LOST  # what becomes of an event in an outage
        self.by_outage: dict[HeldKind, set[int]] = {}  # held in this outage though they are not bad
        self._in_outage: set[Record] = set()  # the same records
        self._before: set[Record] = set()  # bad, or held in an outage that is over

    def begin_outage(self, outage: Outage, step: str) -> None:
        self.outage, self.step = outage, step
        self._before |= self._in_outage
        self.by_outage, self._in_outage = {}, set()

    def end_outage(self) -> None:
        if self.outage is not None:
            self.outage, self.ended_at = None, virtual_now()

    def heal(self, record: Record) -> None:
        """End what is wrong with a record."""
        if self.bad.pop(record, None):
            self._before.add(record)

    def is_bad(self, record: Record) -> bool:
        """Return whether a record is bad, or was held or bad before: it may not have been answered since."""
        return record in self.bad or record in self._before

    def is_out(self, request: Request | None = None) -> bool:
        """Return whether a request gets no answer; None: a read."""
        if self.outage is None:
            return False
        return self.outage.is_whole if request is None else request in self.outage.requests

    def is_silent(self, request: Request, records: Collection[Record]) -> bool:
        """Return whether a request with these records gets no answer."""
        return self.is_out(request) or any(self.bad.get(each) == "silent" for each in records)

    async def reads_again(self) -> None:
        """Return when reads are answered."""
        while self.is_out():  # noqa: ASYNC110  as an outage is waited for
            await anyio.sleep(0.5)

    def check_held(self, held: HeldRecord, record: Record) -> None:
        """Check that a record may be held from now on: it is bad, or one of few in an outage with reads."""
        if self.is_bad(record):
            return
        assert self.outage is not None, f"an innocent is held: {held}"
        out = self.outage.requests.intersection(CARRIED_BY[held.key.kind])
        assert out, f"held for another kind's outage: {held}"
        parked = self.by_outage.setdefault(held.key.kind, set())
        parked.add(held.key.id)
        self._in_outage.add(record)
        most = 0 if self.outage.is_whole else MOST_BY_READS * len(out)
        assert len(parked) <= most, f"an outage has {len(parked)} records held: {held}"


class TroubledContacts(FakeContacts):
    """An account of contacts with troubles."""

    def __init__(self, troubles: Troubles) -> None:
        super().__init__()
        self._troubles = troubles

    async def answers(self) -> bool:
        await anyio.sleep(MOMENT_S)
        return not self._troubles.is_out()

    async def _answer(self, emails: Collection[Email], tries: float, call: str = "") -> None:
        request: Request = "import" if call == "import" else "upsert" if call == "upsert" else "other"
        records = [contact_at(email) for email in emails]
        while self._troubles.is_silent(request, records):
            await anyio.sleep(MOMENT_S)
            tries -= 1
            if tries <= 0:
                raise Unanswered("500")
            await anyio.sleep(1)

    async def import_report(self, import_id: str) -> ImportReport:
        await self._troubles.reads_again()
        return await super().import_report(import_id)

    async def find(self, email: Email, *, tries: float = math.inf, is_suspect: bool = False) -> AcId | None:
        await self._troubles.reads_again()
        return await super().find(email, tries=tries, is_suspect=is_suspect)

    async def page(self, after: AcId) -> dict[Email, AcId]:
        await self._troubles.reads_again()
        return await super().page(after)

    def harm(self, record: Record, harm: Harm) -> None:
        """Have a contact be refused, unless it is to get no answer."""
        if harm != "silent":
            email = email_of(record[1])
            self.refused.add(email)
            said = (
                "the e-mail is not valid"
                if harm == "refused"
                else f"something is wrong with {LETTERS[record[1]]}"
            )
            self.refused_alone_with[email] = said

    def heal(self, record: Record) -> None:
        """Refuse a contact no more."""
        self.refused.discard(email_of(record[1]))
        self.refused_alone_with.pop(email_of(record[1]), None)


class TroubledUploads(FakeOrderUploads):
    """An account of orders with troubles."""

    def __init__(self, troubles: Troubles) -> None:
        super().__init__()
        self._troubles = troubles

    async def answers(self) -> bool:
        await anyio.sleep(MOMENT_S)
        return not self._troubles.is_out()

    async def _attempt(self, orders: Sequence[DesiredOrder], around: Around) -> bool:
        self.is_silent = self._troubles.is_out("orders")
        was_answered = await super()._attempt(orders, around)
        if not was_answered:
            await anyio.sleep(MOMENT_S)
        return was_answered

    def _require_answer(self, ids: set[int]) -> None:
        self.is_silent = self._troubles.is_out("orders")
        super()._require_answer(ids)

    def harm(self, record: Record, harm: Harm) -> None:
        """Have an order be refused, or get no answer."""
        if harm == "silent":
            self.silent.add(record[1])
        else:
            self.bad[record[1]] = (
                f"something is wrong with {LETTERS[record[1] % 10]} of {LETTERS[record[1] // 10]}"
            )
            self.named |= {record[1]} if harm == "refused" else set()

    def heal(self, record: Record) -> None:
        """Refuse an order no more, and answer for it."""
        self.silent.discard(record[1])
        self.bad.pop(record[1], None)
        self.named.discard(record[1])


class TroubledReceiver(Receiver):
    """An account of events with troubles."""

    def __init__(self, troubles: Troubles) -> None:
        super().__init__()
        self._troubles = troubles

    def _next_step(self, place: int) -> str:
        if self._troubles.is_out("events"):
            return self._troubles.step
        harm = self._troubles.bad.get(("event", place))
        if harm is None:
            return super()._next_step(place)
        return LOST if harm == "silent" else REFUSED_EVENT


class TroubledLookup(ReceiverLookup):
    """Look-ups that outlast an outage of all of ActiveCampaign."""

    def __init__(self, receiver: Receiver, troubles: Troubles) -> None:
        super().__init__(receiver)
        self._troubles = troubles

    async def has_arrived(self, contact: Contact, name: str, eventdata: str) -> bool:
        await self._troubles.reads_again()
        return await super().has_arrived(contact, name, eventdata)


class CheckedRows(FakeHeldRows):
    """Held rows of which each new one is checked."""

    def __init__(self, on_held: Callable[[HeldRecord], None]) -> None:
        super().__init__()
        self._on_held = on_held

    async def record(self, held: Collection[HeldRecord]) -> None:
        for each in held:
            if each.key not in self.rows:
                self._on_held(each)
        await super().record(held)


class FollowedLog(FakeLog):
    """A log that is followed until `is_ended`."""

    is_ended = False

    async def pages(self, after: Position, mark: HighWaterMark) -> AsyncIterator[list[Entry]]:
        read_to = after
        while True:
            is_ended = self.is_ended
            rows = [each for each in self.entries if read_to < each.position <= mark.position]
            for start in range(0, len(rows), self.page_rows):
                page = rows[start : start + self.page_rows]
                read_to = page[-1].position
                self.read += [each.position for each in page]
                self.on_page()
                yield [self.as_now(each) for each in page]
            if is_ended:
                return
            await anyio.sleep(0.5)


class TroubledWorld(World):
    """A world of customers with two orders each, at an ActiveCampaign with troubles."""

    order_sync: OrderSync  # of the newest process

    def __init__(self, *, page_rows: int, window: int, max_in_flight: int) -> None:
        super().__init__(
            [],
            page_rows=page_rows,
            window=window,
            max_in_flight=max_in_flight,
            lookup_settle_s=SETTLE_S,
            order_settle_s=2.0,
            retry_held_s=RETRY_HELD_S,
            retry_refused_s=RETRY_HELD_S,
            import_min_contacts=4,
        )
        self.troubles = Troubles()
        self.log = self.followed = FollowedLog([], page_rows)
        self.entries = type(self.entries)(self.log)
        self.log.people = self.shop.rows
        self.contacts = self.troubled_contacts = TroubledContacts(self.troubles)
        self.uploads = TroubledUploads(self.troubles)
        self.sent_orders = FakeSentOrders()
        self.held_rows = CheckedRows(self._check_held)
        self.is_down = self.troubles.is_out

    def join(self, who: Customer) -> None:
        """Have a customer at the shop, with their orders."""
        if who.id not in self.shop.rows:
            self.shop.rows[who.id] = account(who)
            for number in (10 * who.id, 10 * who.id + 1):
                self.orders.put(row := order(number, customer_id=who.id))
                self.orders.paid.setdefault(who.id, []).append(row.id)

    async def work(self) -> None:
        """Do what a round of `follow` does, in a new process."""
        self.begin()
        async with self.sync.working():
            await self.sync.snapshot(self.log.entries[-1].position, lambda _count: None)
            for order_id in await self.order_sync.snapshot(lambda _count: None):
                whose = self.links.by_customer[self.orders.rows[order_id].customer_id]
                self.sync.mark_dirty(whose, [order_id])
            await self.pipeline.run(up_to(HIGHEST_ID))

    def _begin_orders(self) -> OrderDelivery:
        self.order_sync = OrderSync(
            "USD",
            orders=self.orders,
            sent=self.sent_orders,
            links=self.links,
            uploads=self.uploads,
            kind=self.order_kind,
            held=self.held,
            settings=self.settings.activecampaign,
            now=wall_clock,
        )
        return self.order_sync

    def harm(self, record: Record, harm: Harm) -> None:
        """Have a record be bad from now on."""
        self.heal(record)
        self.troubles.bad[record] = harm
        if record[0] == "contact":
            self.troubled_contacts.harm(record, harm)
        elif record[0] == "order":
            self.uploads.harm(record, harm)

    def heal(self, *records: Record) -> None:
        """Have records be bad no more."""
        for record in records:
            self.troubles.heal(record)
            if record[0] == "contact":
                self.troubled_contacts.heal(record)
            elif record[0] == "order":
                self.uploads.heal(record)

    def record_of(self, held: HeldRecord) -> Record:
        """Return which record is held."""
        if held.key.kind is HeldKind.EVENT:
            where = next(each for each in self.log.entries if str(each.position).encode() == held.fingerprint)
            return "event", where.position.txid
        if held.key.kind is HeldKind.ORDER:
            return "order", held.key.id
        return "contact", contact_at(self.links.by_id[held.contact].email)[1]

    def owner_of(self, record: Record) -> int:
        """Return whose a record is."""
        kind, number = record
        if kind == "event":
            return int(self.log.entries[number - 1].customer_id or 0)
        return number // 10 if kind == "order" else number

    def _check_held(self, held: HeldRecord) -> None:
        self.troubles.check_held(held, self.record_of(held))


def contact_at(email: Email) -> Record:
    """Return the contact of an address."""
    return "contact", int(email.removeprefix("customer").partition("@")[0])


def email_of(number: int) -> Email:
    """Return the address of a customer."""
    return Email(f"customer{number}@example.org")
