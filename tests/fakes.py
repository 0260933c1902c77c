"""The world around the stages, in memory: the ports as real classes that tests can script and look into.

An entry is built by its place in the log (1, 2, 3 …). Its transaction grows with the place and its id falls,
so that whoever takes ids for an order is found out. Nothing here waits for the clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from kiva_stream.errors import (
    AccountRefused,
    AddressTaken,
    CheckpointError,
    ContactGone,
    Rejected,
    RowsRejected,
    SourceError,
)
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport, ImportState, OpenImport
from kiva_stream.model.checkpoint import Commit, Leftovers
from kiva_stream.model.classifications import Event
from kiva_stream.model.contacts import (
    Contact,
    ContactRecord,
    ContactStatus,
    DesiredContact,
    DueContact,
    ListStatus,
)
from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Batch, Delivery, Need
from kiva_stream.model.entries import Change, Changes, Entry
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email, OrderId
from kiva_stream.model.orders import Order
from kiva_stream.model.outcomes import CONTACT_REASONS, DELIVERED, PARKED, Outcome, Reason, Span
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.model.site import Site
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.settings.sections import (
    ActiveCampaignSettings,
    PipelineSettings,
    Settings,
    SourceSettings,
    StateSettings,
)

SITE = Site(
    id=1,
    name="Green Box",
    timezone="America/Chicago",
    currency="USD",
    admin_base_url="https://shop.example.com/admin",
    launched_at=datetime(2017, 12, 1, tzinfo=UTC),
)
FIRST_MOMENT = datetime(2018, 3, 4, 17, tzinfo=UTC)
HIGHEST_ID = 10_000
LOGGED_OUT = next(line for line in CATALOG.events if line.actions == ("logout",))

EVENT, SYNC_ONLY, NOISE = "logout", "order.closed", "email.menu"  # an action of each class


def position(place: int) -> Position:
    """Return the position of the entry at a place of the log: its id falls while its transaction grows."""
    return Position(place, HIGHEST_ID - place)


def place_of(where: Position) -> int:
    """Return the place in the log of a position."""
    return where.txid


def moment(second: float) -> datetime:
    """Return a moment, so many seconds after the first."""
    return FIRST_MOMENT + timedelta(seconds=second)


def customer(number: int, **changes: object) -> Customer:
    """Return a customer with an address of their own, but for the changes."""
    email = Email(f"customer{number}@example.org")
    return replace(Customer(CustomerId(number), SITE.id, email, f"Ann {number}", False, False), **changes)


def account(who: Customer, **changes: object) -> CustomerAccount:
    """Return a customer's account, active and opted in, but for the changes."""
    return replace(CustomerAccount(who, "Ann", str(who.id), "", "active", None, True, False), **changes)


def entry(place: int, who: Customer, **changes: object) -> Entry:
    """Return the entry at a place of the log, but for the changes: an event, a second after the one before.

    No two have the same message, so that none is a duplicate.
    """
    when = moment(place)
    row = Entry(position(place), when, when, EVENT, "customer", None, f"entry {place}", None, who.id, who)
    return replace(row, **changes)


def event(place: int, **changes: object) -> Event:
    """Return the classification that the entry at a place is an event."""
    return replace(Event(LOGGED_OUT, eventdata(place)), **changes)


def eventdata(place: int) -> str:
    """Return what an event of that place says."""
    return f"at=2018-03-04T17:00:00Z; log={HIGHEST_ID - place}"


def place_in(data: str) -> int:
    """Return the place that eventdata speaks of."""
    return HIGHEST_ID - int(data.rpartition("log=")[2])


def contact(number: int = 1, status: ContactStatus = ContactStatus.LINKED, why: str = "") -> Contact:
    """Return a contact, linked unless said otherwise."""
    return Contact(ContactId(number), Email(f"customer{number}@example.org"), status, why)


def delivery(place: int, span: Span, *, is_event: bool = True, notes: tuple[str, ...] = ()) -> Delivery:
    """Return the delivery of the entry at a place: an event, or sync-only."""
    line = LOGGED_OUT if is_event else None
    data = eventdata(place) if is_event else ""
    return Delivery(position(place), moment(place), span, CustomerId(1), line, data, notes)


def batch(whose: Contact, *deliveries: Delivery) -> Batch:
    """Return a batch."""
    return Batch(whose, list(deliveries))


def up_to(place: int) -> HighWaterMark:
    """Return the mark that ends with the entry at a place."""
    return HighWaterMark(position(place), moment(1e6))


def settings(pipeline: PipelineSettings, **activecampaign: object) -> Settings:
    """Return settings with those of the pipeline, and all defaults of the account but those given."""
    return Settings(
        source=SourceSettings(dsn="postgresql://shop", site_id=SITE.id),
        state=StateSettings(dsn="postgresql://state"),
        activecampaign=activecampaign_settings(**activecampaign),
        pipeline=pipeline,
    )


def activecampaign_settings(**changes: object) -> ActiveCampaignSettings:
    """Return the settings of an account with all their defaults but those given."""
    required = ActiveCampaignSettings(
        api_url="https://a.example", api_token="t", event_actid="1", event_key="k"
    )
    return replace(required, **changes)


async def no_time(_seconds: float, /) -> None:
    """Implement Sleep: let the others have their turn, and return."""
    await anyio.lowlevel.checkpoint()


async def until(condition: Callable[[], object]) -> None:
    """Return when a condition holds. Raises TimeoutError when it takes more than ten seconds."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.lowlevel.checkpoint()


@contextmanager
def raises_one(kind: type[BaseException]) -> Iterator[None]:
    """Expect an error of this kind, as deep in groups as it may be, and none of another kind."""
    try:
        yield
    except BaseException as error:
        kinds = {type(each) for each in leaves(error)}
        if kinds != {kind}:
            raise
    else:
        raise AssertionError(f"no {kind.__name__} was raised")


def leaves(error: BaseException) -> Iterable[BaseException]:
    """Yield the errors that an error is made of, as deep in groups as they may be."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


class FakeLog:
    """Implements Log and Entries: entries, read in pages of a size. `read` are those given out, in order.

    After `breaks_after` pages the source is gone, as soon as `gate` is open. `changes` come before the page
    of that number, from 0. Customers are as `people` says when an entry is read; what happened `before` a
    place happens, once, before its page is read.
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
    """Implements Weeks: the week there is, and the statuses of customers' orders in it."""

    def __init__(self) -> None:
        self.week = date(2026, 11, 23)
        self.rows: dict[CustomerId, set[str]] = {}

    async def current(self) -> date:
        await anyio.lowlevel.checkpoint()
        return self.week

    async def statuses(self, customers: Collection[CustomerId], _week: date) -> dict[CustomerId, set[str]]:
        await anyio.lowlevel.checkpoint()
        return {key: self.rows[key] for key in customers if key in self.rows}


class FakeOrders:
    """Implements Orders, as far as the ids of paid orders go."""

    def __init__(self) -> None:
        self.paid: dict[CustomerId, list[OrderId]] = {}

    async def page(self, after: OrderId, count: int) -> list[Order]:
        raise NotImplementedError

    async def orders(self, ids: Collection[OrderId]) -> list[Order]:
        raise NotImplementedError

    async def paid_by(self, customers: Collection[CustomerId]) -> list[OrderId]:
        await anyio.lowlevel.checkpoint()
        return sorted(order for customer in customers for order in self.paid.get(customer, []))


class FakeOrderDelivery:
    """Implements OrderDelivery: keeps what it was asked to upsert, a list a call."""

    def __init__(self) -> None:
        self.upserted: list[list[OrderId]] = []
        self.gate: anyio.Event | None = None
        self.on_upsert: Callable[[], None] = lambda: None

    async def upsert(self, ids: Collection[OrderId]) -> None:
        await anyio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        self.upserted.append(sorted(ids))
        self.on_upsert()

    @property
    def all(self) -> set[OrderId]:
        """Every order that was upserted."""
        return {order for ids in self.upserted for order in ids}


class FakeLinks:
    """Implements Links; outlives a run, as the state schema does. New contacts begin with `first_status`.

    `due` are the contacts whose week tag may differ, each with a mark: see `FakeTagsDue`.
    """

    def __init__(self, first_status: ContactStatus = ContactStatus.NEW) -> None:
        self.first_status = first_status
        self.by_id: dict[ContactId, Contact] = {}
        self.by_customer: dict[CustomerId, Contact] = {}
        self.fingerprints: dict[ContactId, bytes] = {}
        self.ac_ids: dict[ContactId, AcId] = {}
        self.tags: dict[ContactId, tuple[WeekTag, int | None]] = {}
        self.unsubscribed: set[ContactId] = set()
        self.imports: dict[str, OpenImport] = {}
        self.notes: Counter[str] = Counter()
        self.erased: set[ContactId] = set()
        self.due: dict[ContactId, int] = {}
        self.highest = AcId(0)
        self.read: list[ContactId] = []  # contacts that were asked for by id
        self.fails = False

    @property
    def by_email(self) -> dict[Email, Contact]:
        return {each.email: each for each in self.by_id.values()}

    async def link(self, customers: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        await self._turn()
        for number, email in customers.items():
            found = self.by_customer.get(number)
            if found is None or (found.status is not ContactStatus.LINKED and found.email != email):
                self.by_customer[number] = self._at(email)
        return {number: self.by_customer[number] for number in customers}

    async def of_customers(self, customers: Collection[CustomerId]) -> dict[CustomerId, Contact]:
        await self._turn()
        return {number: self.by_customer[number] for number in customers if number in self.by_customer}

    async def page(self, after: ContactId, count: int) -> list[ContactRecord]:
        await self._turn()
        return [self.linked(each) for each in self.by_id.values() if each.id > after][:count]

    async def records(self, ids: Collection[ContactId]) -> list[ContactRecord]:
        await self._turn()
        self.read += ids
        return [self.linked(self.by_id[number]) for number in sorted(ids)]

    async def find_by_email(self, email: Email) -> ContactRecord | None:
        await self._turn()
        found = self.by_email.get(email)
        return self.linked(found) if found else None

    async def open_imports(self) -> list[OpenImport]:
        await self._turn()
        return list(self.imports.values())

    async def record_import(self, started: OpenImport) -> None:
        await self._turn()
        self.imports[started.id] = started
        await anyio.lowlevel.checkpoint()

    async def close_import(self, ended: OpenImport, confirmed: Collection[ContactId]) -> None:
        await self._turn()
        del self.imports[ended.id]
        for number in confirmed:
            self._confirm(number, ended.fingerprints[number])
            self._set_list(number, unsubscribed=number in ended.unsubscribed)
        await anyio.lowlevel.checkpoint()

    async def record_confirmed(
        self, number: ContactId, fingerprint: bytes, ac_id: AcId, *, unsubscribed: bool
    ) -> None:
        await self._turn()
        self._confirm(number, fingerprint)
        self.ac_ids[number] = ac_id
        self._set_list(number, unsubscribed=unsubscribed)
        await anyio.lowlevel.checkpoint()

    async def record_list_status(self, number: ContactId, *, unsubscribed: bool) -> None:
        await self._turn()
        self._set_list(number, unsubscribed=unsubscribed)

    async def record_import_tags(self, tags: Mapping[ContactId, WeekTag]) -> None:
        await self._turn()
        self.tags |= {number: (tag, None) for number, tag in tags.items()}

    async def ids_known_up_to(self) -> AcId:
        await self._turn()
        return self.highest

    async def record_ids(self, ids: Mapping[Email, AcId], known_to: AcId) -> None:
        await self._turn()
        mine = self.by_email
        self.ac_ids |= {mine[email].id: ac_id for email, ac_id in ids.items() if email in mine}
        self.highest = known_to

    async def record_email(self, number: ContactId, email: Email) -> None:
        await self._turn()
        assert email not in self.by_email, "two contacts of one address"
        self.by_id[number].email = email

    async def relink(self, customers: Collection[CustomerId], email: Email, ac_id: AcId | None) -> Contact:
        await self._turn()
        joined = self._at(email)
        for number in customers:
            self.due_again(self.by_customer[number].id)
            self.by_customer[number] = joined
        if ac_id is not None:
            self.ac_ids[joined.id] = ac_id
        self.due_again(joined.id)
        await anyio.lowlevel.checkpoint()
        return joined

    async def record_orphaned(self, number: ContactId) -> None:
        await self._turn()
        found = self.by_id[number]
        assert found not in self.by_customer.values(), "somebody's contact was dissolved"
        found.status, found.why = ContactStatus.NEW, ""
        self.fingerprints.pop(number, None)
        self.tags.pop(number, None)
        self.due.pop(number, None)
        self.unsubscribed.discard(number)

    async def record_erased(self, contact: ContactId) -> None:
        await self._turn()
        self.erased.add(contact)

    async def count_notes(self, notes: Mapping[str, int]) -> None:
        await self._turn()
        self.notes.update(notes)

    async def record_rejected(self, number: ContactId, why: Reason) -> None:
        await self._turn()
        found = self.by_id[number]
        found.status, found.why = ContactStatus.REJECTED, why

    def status_of(self, who: Customer) -> tuple[ContactStatus, str]:
        """Return how far a customer's contact has come, and why not further."""
        return self.by_customer[who.id].status, self.by_customer[who.id].why

    def linked(self, found: Contact) -> ContactRecord:
        """Return what is known of a contact."""
        mine = tuple(number for number, each in self.by_customer.items() if each is found)
        tag, link = self.tags.get(found.id, (None, None))
        known = self.fingerprints.get(found.id), self.ac_ids.get(found.id)
        return ContactRecord(found, mine, *known, tag, link, found.id in self.unsubscribed)

    def due_again(self, number: ContactId) -> None:
        """Have a contact's week tag looked at, if it is linked."""
        if self.by_id[number].status is ContactStatus.LINKED:
            self.due[number] = max(self.due.values(), default=0) + 1

    def restarted(self) -> None:
        """Forget what only a process knows: contacts are other objects in the next one."""
        fresh = {
            number: Contact(number, each.email, each.status, each.why) for number, each in self.by_id.items()
        }
        self.by_customer = {number: fresh[each.id] for number, each in self.by_customer.items()}
        self.by_id = fresh

    def _at(self, email: Email) -> Contact:
        found = self.by_email.get(email)
        if found is None:
            found = Contact(ContactId(len(self.by_id) + 1), email, self.first_status)
            self.by_id[found.id] = found
        return found

    def _confirm(self, number: ContactId, fingerprint: bytes) -> None:
        found = self.by_id[number]
        is_new = found.status is not ContactStatus.LINKED
        found.status, found.why = ContactStatus.LINKED, ""
        self.fingerprints[number] = fingerprint
        if is_new:
            self.due_again(number)

    def _set_list(self, number: ContactId, *, unsubscribed: bool) -> None:
        if unsubscribed:
            self.unsubscribed.add(number)
        else:
            self.unsubscribed.discard(number)

    async def _turn(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.fails:
            raise CheckpointError("the state is gone")


class FakeTagsDue:
    """Implements TagsDue on the state that links are in."""

    def __init__(self, links: FakeLinks) -> None:
        self._links = links
        self.speaks_of: date | None = None

    async def week(self) -> date | None:
        await anyio.lowlevel.checkpoint()
        return self.speaks_of

    async def begin_week(self, week: date) -> None:
        self.speaks_of = week
        await self.mark_all_due()

    async def mark_all_due(self) -> None:
        await self.mark_due(list(self._links.by_id))

    async def mark_due(self, contacts: Collection[ContactId]) -> None:
        await anyio.lowlevel.checkpoint()
        for number in contacts:
            self._links.due_again(number)

    async def page(self, after: ContactId, count: int) -> list[DueContact]:
        await anyio.lowlevel.checkpoint()
        due = sorted(each for each in self._links.due.items() if each[0] > after)
        return [
            DueContact(self._links.linked(self._links.by_id[number]), mark) for number, mark in due[:count]
        ]

    async def clear_due(self, due: Collection[DueContact]) -> None:
        await anyio.lowlevel.checkpoint()
        for linked, mark in due:
            if self._links.due.get(linked.contact.id) == mark:
                del self._links.due[linked.contact.id]

    async def record_tags_unknown(self, contacts: Collection[ContactId]) -> None:
        await anyio.lowlevel.checkpoint()
        for number in contacts:
            self._links.tags.pop(number, None)

    async def record_tag(self, contact: ContactId, ac_id: AcId, tag: WeekTag, link: int) -> None:
        await anyio.lowlevel.checkpoint()
        self._links.ac_ids[contact] = ac_id
        self._links.tags[contact] = tag, link


class FakeLedger:
    """Implements Ledger; outlives a run. The commit numbered `fails_at` (the first is 1) and later ones fail.

    With `keeps_failed` the first that fails is kept all the same, as when only its answer was lost.
    While `gate` is a closed one, commits with outcomes of events wait for it, all with `gates_all`.
    """

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.letters: dict[Position, DeadLetter] = {}  # that are dead now
        self.parked: dict[Position, ContactId] = {}
        self.earlier: dict[Position, Outcome] = {}  # kept before the first commit
        self.fails_at: int | None = None
        self.keeps_failed = False
        self.gate: anyio.Event | None = None
        self.gates_all = False
        self.asked = 0  # commits that were tried

    async def commit(self, commit: Commit) -> None:
        await anyio.lowlevel.checkpoint()
        self.asked += 1
        if self.gate is not None and (self.gates_all or commit.delivered):
            await self.gate.wait()
        is_failing = self.fails_at is not None and self.asked >= self.fails_at
        if not is_failing or (self.keeps_failed and self.asked == self.fails_at):
            self._keep(commit)
        if is_failing:
            raise CheckpointError("the state is gone")
        await anyio.lowlevel.checkpoint()

    def works_again(self) -> None:
        """Fail no more."""
        self.fails_at = None

    @property
    def watermark(self) -> Position:
        return self.commits[-1].watermark if self.commits else DAY1

    @property
    def delivered(self) -> list[Position]:
        """The positions of all delivered events, as they were committed."""
        return [row.position for commit in self.commits for row in commit.delivered]

    @property
    def dead(self) -> dict[Position, Reason]:
        return {where: letter.why for where, letter in self.letters.items()}

    @property
    def tags_due(self) -> set[ContactId]:
        return {contact for commit in self.commits for contact in commit.tags_due}

    @property
    def superseded(self) -> list[Position]:
        return [where for commit in self.commits for where, _ in commit.superseded]

    def kept_above(self) -> dict[Position, Outcome]:
        """Return what is kept of entries above the watermark."""
        kept = self.earlier | dict.fromkeys(self.delivered, DELIVERED) | dict.fromkeys(self.parked, PARKED)
        kept |= {where: Outcome("dead", why) for where, why in self.dead.items()}
        return {where: outcome for where, outcome in kept.items() if where > self.watermark}

    def left(self) -> Leftovers:
        """Return what a start asks for."""
        letters = {
            letter.customer
            for letter in self.letters.values()
            if letter.customer is not None and letter.why in CONTACT_REASONS
        }
        doubts = {
            where
            for where in (self.commits[-1].intents if self.commits else ())
            if where not in self.delivered
            and (where > self.watermark or where in self.parked or where in self.letters)
        }
        settled_to = max([*self.earlier, *self.delivered, *self.letters, *self.parked], default=DAY1)
        return Leftovers(settled_to, frozenset(letters), frozenset(self.parked), frozenset(doubts))

    async def earlier_outcomes(self, after: Position, until: Position) -> dict[Position, Outcome]:
        await anyio.lowlevel.checkpoint()
        return {where: what for where, what in self.kept_above().items() if after < where <= until}

    async def unresolved(
        self, positions: Collection[Position], letters: Collection[Position]
    ) -> set[Position]:
        await anyio.lowlevel.checkpoint()
        return {
            where
            for where in positions
            if where not in self.delivered and (where not in letters or where in self.letters)
        }

    def tally(self, kind: str = "outcome") -> dict[str, int]:
        """Return the counts of a kind: of what the watermark passed, and of what is ahead of it now."""
        total: Counter[tuple[str, str]] = Counter()
        for commit in self.commits:
            total.update(commit.passed)
            total.subtract(("outcome", f"dead {why}") for _, why in commit.superseded)
        if self.commits:
            total.update(self.commits[-1].ahead)
        assert not [count for count in total.values() if count < 0]
        return {name: count for (each, name), count in total.items() if each == kind and count}

    def _keep(self, commit: Commit) -> None:
        assert commit.watermark >= self.watermark, "the watermark went back"
        for where, why in commit.superseded:
            assert self.letters.pop(where).why is why, "not the letter that was revived"
        new = [row.position for row in commit.delivered] + [letter.position for letter in commit.dead]
        twice = [where for where, count in Counter([*self.delivered, *self.dead, *new]).items() if count > 1]
        assert not twice, f"two outcomes: {twice}"
        self.letters |= {letter.position: letter for letter in commit.dead}
        for where in commit.unparked:
            del self.parked[where]
        assert self.parked.keys().isdisjoint(where for where, _ in commit.parked)
        self.parked |= dict(commit.parked)
        self.commits.append(commit)


class FakeLetters:
    """Implements Letters on a ledger."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self.asked: list[list[CustomerId]] = []

    async def without_contact(self, customers: Collection[CustomerId]) -> dict[Position, Reason]:
        await anyio.lowlevel.checkpoint()
        self.asked.append(sorted(customers))
        return {
            where: letter.why
            for where, letter in sorted(self._ledger.letters.items())
            if letter.customer in customers and letter.why in CONTACT_REASONS
        }


class Arrival(NamedTuple):
    """An event as ActiveCampaign saw it come."""

    email: Email
    name: str
    place: int


class FakeEvents:
    """Implements Events: keeps every arrival in order, then takes its time, then answers.

    `answers` are the errors to give for an event, one a try; without one left it is taken. `latency` is
    awaited between arrival and answer, with the place of the event. An event of unknown outcome is processed
    all the same when its place is among the `taken`.
    """

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.processed: list[Arrival] = []  # that ActiveCampaign shows
        self.taken: set[int] = set()
        self.processes_first = False  # before it takes its time, so that whoever goes away does not know
        self.answers: dict[int, list[Exception]] = {}
        self.latency: Callable[[int], Awaitable[object]] = no_time
        self.in_flight: Counter[Email] = Counter()
        self.most_in_flight = 0
        self.on_arrival: Callable[[], None] = lambda: None

    async def send(self, email: Email, name: str, data: str) -> None:
        place = place_in(data)
        self.arrivals.append(Arrival(email, name, place))
        self.on_arrival()
        answers = self.answers.get(place)
        is_processed = not answers or place in self.taken
        if is_processed and self.processes_first:
            self.processed.append(Arrival(email, name, place))
        with self._flying(email):
            await self.latency(place)
        if is_processed and not self.processes_first:
            self.processed.append(Arrival(email, name, place))
        if answers:
            raise answers.pop(0)

    def places(self, email: Email | None = None) -> list[int]:
        """Return the places in the log of the events that arrived, of one contact or of all, in order."""
        return [each.place for each in self.arrivals if email in {None, each.email}]

    def places_by_contact(self) -> dict[Email, list[int]]:
        """Return the places of the events that arrived, in order, by contact."""
        return {email: self.places(email) for email in {each.email for each in self.arrivals}}

    @contextmanager
    def _flying(self, email: Email) -> Iterator[None]:
        self.in_flight[email] += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight.total())
        assert self.in_flight[email] == 1, f"two events of {email} at once"
        try:
            yield
        finally:
            self.in_flight[email] -= 1


class FakeLookUps:
    """Implements LookUp on what arrived; while `gate` is a closed one, look-ups wait for it.

    Look-ups of the places `unanswered` never end.
    """

    def __init__(self, events: FakeEvents) -> None:
        self._events = events
        self.asked: list[int] = []  # places
        self.unanswered: set[int] = set()
        self.gate: anyio.Event | None = None

    async def has_arrived(self, contact: Contact, name: str, eventdata: str) -> bool:
        await anyio.lowlevel.checkpoint()
        place = place_in(eventdata)
        self.asked.append(place)
        if place in self.unanswered:
            await anyio.sleep_forever()
        if self.gate is not None:
            await self.gate.wait()
        return Arrival(contact.email, name, place) in self._events.processed


class FakeContactDelivery:
    """Implements ContactDelivery: links every contact once `gate` is open, or rejects a bad address.

    A linked contact needs nothing, unless it is `changed` or dirty.
    """

    def __init__(self, *bad: Email) -> None:
        self.asked: list[Email] = []
        self.needs: list[Need] = []
        self.moves: list[dict[CustomerId, Email]] = []
        self.bad = bad
        self.changed: set[Email] = set()
        self.dirty: dict[ContactId, set[OrderId]] = {}
        self.gate: anyio.Event | None = None
        self.refuses = False
        self.on_move: Callable[[Mapping[CustomerId, Email]], object] = lambda _customers: None

    def need(self, batch: Batch) -> Need | None:
        wanted, deliveries = batch.contact, batch.deliveries
        is_settled = wanted.status is ContactStatus.LINKED and wanted.email not in self.changed
        if wanted.is_refused or (is_settled and wanted.id not in self.dirty):
            return None
        orders = frozenset(each.order for each in deliveries if each.order)
        newest = max(each.position for each in deliveries)
        return Need(wanted, newest, max(each.inserted_at for each in deliveries), orders)

    def mark_dirty(self, contact: Contact, orders: Collection[OrderId]) -> None:
        self.dirty.setdefault(contact.id, set()).update(orders)

    async def ensure(self, need: Need) -> None:
        wanted = need.contact
        self.asked.append(wanted.email)
        self.needs.append(need)
        self.dirty.pop(wanted.id, None)
        await anyio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.refuses:
            raise AccountRefused("no")
        self.changed.discard(wanted.email)
        if wanted.email in self.bad:
            wanted.status, wanted.why = ContactStatus.REJECTED, Reason.AC_REJECTED
        else:
            wanted.status, wanted.why = ContactStatus.LINKED, ""

    async def move(self, customers: Mapping[CustomerId, Email]) -> None:
        self.moves.append(dict(customers))
        await anyio.lowlevel.checkpoint()
        self.on_move(customers)


class AcContact:
    """A contact as ActiveCampaign has it."""

    def __init__(self, email: Email) -> None:
        self.email = email
        self.shown: DesiredContact | None = None
        self.customer_id = ""
        self.is_on_list: bool | None = None  # None: never was
        self.tags: dict[WeekTag, int] = {}

    def show(self, wanted: DesiredContact) -> None:
        self.shown, self.customer_id = wanted, wanted.customer_id

    def put_on_list(self, *, subscribed: bool) -> None:
        self.is_on_list = subscribed

    def tag(self, tag: WeekTag, link: int) -> None:
        self.tags.setdefault(tag, link)
        assert len(self.tags) == 1, f"two week tags: {self.tags}"


class FakeContacts:
    """Implements Contacts, and WeekTags: an account, and imports that end as they are told to.

    `there` are the contacts it has. `reports` are the answers still to come when an import is asked for,
    whichever it is, one a time; without one left it is completed. Of an import, addresses in `failing` fail,
    as do those who are to be subscribed and have unsubscribed; those in `excluded` are left out without a
    word, and one with an address in `refused` is refused with those rows. What is sent alone refuses the
    addresses in `refused_alone`. A lost import was not worked, unless `works_lost`.
    """

    def __init__(self, contacts_per_import: int = 250) -> None:
        self.contacts_per_import = contacts_per_import
        self.there: dict[AcId, AcContact] = {}
        self.imports: dict[str, list[DesiredContact]] = {}
        self.automations: dict[str, bool] = {}  # whether an import may start automations
        self.asked: list[str] = []  # the imports that were asked for, by id
        self.looked_up: list[Email] = []
        self.synced: list[Email] = []
        self.renamed: list[tuple[Email, Email]] = []
        self.disowned: list[Email] = []
        self.list_calls: list[tuple[Email, bool]] = []
        self.calls: list[str] = []  # what was asked for one contact alone, in order
        self.paged: list[AcId] = []
        self.page_rows = 100
        self.reports: list[ImportReport] = []
        self.failing: set[Email] = set()
        self.excluded: set[Email] = set()
        self.refused: set[Email] = set()
        self.refused_alone: set[Email] = set()
        self.works_lost = False
        self.gate: anyio.Event | None = None  # imports are accepted once it is open
        self.refuses_account = False
        self.on_subscribe: Callable[[AcContact], None] = lambda _contact: None
        self._ended: dict[str, ImportReport] = {}
        self._busy: Counter[Email] = Counter()  # addresses with a request under way
        self._links = 0

    def count_fitting(self, contacts: Sequence[DesiredContact]) -> int:
        return min(len(contacts), self.contacts_per_import)

    async def start_import(
        self, contacts: Sequence[DesiredContact], *, exclude_automations: bool
    ) -> AcceptedImport:
        with self._alone(*(each.email for each in contacts)):
            await anyio.lowlevel.checkpoint()
            if self.gate is not None:
                await self.gate.wait()
        if self.refuses_account:
            raise AccountRefused("no")
        assert len(contacts) <= self.contacts_per_import
        refused = {row: "no" for row, each in enumerate(contacts) if each.email in self.refused}
        if refused:
            raise RowsRejected("refused", refused)
        import_id = f"import {len(self.imports) + 1}"
        self.imports[import_id] = list(contacts)
        self.automations[import_id] = not exclude_automations
        self._busy.update(each.email for each in contacts)
        return AcceptedImport(import_id, is_short=any(each.email in self.excluded for each in contacts))

    async def import_report(self, import_id: str) -> ImportReport:
        await anyio.lowlevel.checkpoint()
        self.asked.append(import_id)
        if self.refuses_account:
            raise AccountRefused("no")
        if import_id in self._ended:
            return self._ended[import_id]
        contacts = self.imports.get(import_id, [])
        report = self.reports.pop(0) if self.reports else ImportReport(ImportState.COMPLETED)
        if report.state is ImportState.RUNNING:
            return report
        self._busy.subtract({each.email for each in contacts})
        if report.state is ImportState.COMPLETED or self.works_lost:
            failures = frozenset(each.email for each in contacts if not self._take(each))
            report = ImportReport(report.state, failures - self.excluded)
        self._ended[import_id] = report
        return report

    async def find(self, email: Email) -> AcId | None:
        await anyio.lowlevel.checkpoint()
        self.looked_up.append(email)
        return self.id_of(email)

    async def page(self, after: AcId) -> dict[Email, AcId]:
        await anyio.lowlevel.checkpoint()
        self.paged.append(after)
        later = [(number, self.there[number].email) for number in sorted(self.there) if number > after]
        return {email: number for number, email in later[: self.page_rows]}

    async def upsert(self, wanted: DesiredContact) -> AcId:
        with self._alone(wanted.email):
            await anyio.lowlevel.checkpoint()
            self.synced.append(wanted.email)
            self.calls.append(f"sync {wanted.email}")
            if self.refuses_account:
                raise AccountRefused("no")
            if wanted.email in self.refused_alone:
                raise Rejected("refused", "no")
            number = self.add(wanted.email)
            self.there[number].show(wanted)
            await anyio.lowlevel.checkpoint()
            return number

    async def rename(self, contact: AcId, email: Email) -> None:
        if contact not in self.there:
            raise ContactGone("gone")
        one = self.there[contact]
        with self._alone(one.email):
            await anyio.lowlevel.checkpoint()
            if email in self.refused_alone:
                raise Rejected("refused", "no")
            if self.id_of(email) not in {None, contact}:
                raise AddressTaken("taken")
            self.renamed.append((one.email, email))
            self.calls.append(f"rename {one.email} {email}")
            one.email = email
            await anyio.lowlevel.checkpoint()

    async def set_list(self, contact: AcId, *, subscribed: bool) -> None:
        one = self.there[contact]
        with self._alone(one.email):
            await anyio.lowlevel.checkpoint()
            if one.email in self.refused_alone:
                raise Rejected("refused", "no")
            self.list_calls.append((one.email, subscribed))
            self.calls.append(f"{'subscribe' if subscribed else 'unsubscribe'} {one.email}")
            self._set_list(one, subscribed=subscribed)
            await anyio.lowlevel.checkpoint()

    async def clear_customer_id(self, contact: AcId) -> None:
        if contact not in self.there:
            raise ContactGone("gone")
        one = self.there[contact]
        with self._alone(one.email):
            await anyio.lowlevel.checkpoint()
            if one.email in self.refused_alone:
                raise Rejected("refused", "no")
            self.disowned.append(one.email)
            self.calls.append(f"disown {one.email}")
            one.customer_id = ""

    async def links(self, contact: AcId) -> dict[WeekTag, int]:
        await anyio.lowlevel.checkpoint()
        if contact not in self.there:
            raise ContactGone("gone")
        return dict(self.there[contact].tags)

    async def add_tag(self, contact: AcId, tag: WeekTag) -> int:
        """Put a tag on a contact: see `FakeTags`."""
        await anyio.lowlevel.checkpoint()
        if contact not in self.there:
            raise ContactGone("gone")
        self._links += 1
        self.there[contact].tag(tag, self._links)
        return self._links

    async def remove(self, link: int) -> None:
        await anyio.lowlevel.checkpoint()
        for one in self.there.values():
            one.tags = {tag: number for tag, number in one.tags.items() if number != link}

    def add(self, email: Email) -> AcId:
        """Have a contact of this address; return its id."""
        number = self.id_of(email)
        if number is None:
            number = AcId(max(self.there, default=100) + 1)
            self.there[number] = AcContact(email)
        return number

    def id_of(self, email: Email) -> AcId | None:
        """Return the id of the contact of an address, if there is one."""
        return next((number for number, one in self.there.items() if one.email == email), None)

    def at(self, email: Email) -> AcContact:
        """Return the contact of an address."""
        (one,) = [one for one in self.there.values() if one.email == email]
        return one

    def addresses(self) -> list[list[Email]]:
        """Return the addresses of each import, in the order in which they were accepted."""
        return [[each.email for each in contacts] for contacts in self.imports.values()]

    def restarted(self) -> None:
        """Forget which requests are under way: their sender is gone."""
        self._busy.clear()

    def _take(self, row: DesiredContact) -> bool:
        """Do what a row of an import says; return whether it came."""
        if row.email in self.failing | self.excluded:
            return False
        there = self.id_of(row.email)
        if there and row.list_status is ListStatus.SUBSCRIBE and self.there[there].is_on_list is False:
            return False
        one = self.there[self.add(row.email)]
        one.show(row)
        if row.list_status is not ListStatus.LEAVE:
            self._set_list(one, subscribed=row.list_status is ListStatus.SUBSCRIBE)
        if row.tag is not None:
            self._links += 1
            one.tag(row.tag, self._links)
        return True

    def _set_list(self, one: AcContact, *, subscribed: bool) -> None:
        if subscribed:
            self.on_subscribe(one)
        one.put_on_list(subscribed=subscribed)

    @contextmanager
    def _alone(self, *emails: Email) -> Iterator[None]:
        """Check that these contacts are in no other request."""
        busy = [email for email in emails if self._busy[email] > 0]
        assert not busy, f"two requests at once: {busy}"
        self._busy.update(emails)
        try:
            yield
        finally:
            self._busy.subtract(emails)


class FakeTags:
    """Implements WeekTags on an account."""

    def __init__(self, account: FakeContacts) -> None:
        self._account = account
        self.links = account.links
        self.add = account.add_tag
        self.remove = account.remove
