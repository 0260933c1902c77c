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
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from kiva_stream.catalog import CATALOG
from kiva_stream.errors import AccountRefused, CheckpointError, Rejected, RowsRejected, SourceError
from kiva_stream.model import (
    DAY1,
    DELIVERED,
    AcceptedImport,
    Account,
    Batch,
    Commit,
    Contact,
    ContactId,
    ContactStatus,
    Customer,
    CustomerId,
    Delivery,
    DesiredContact,
    Email,
    Entry,
    Event,
    HighWaterMark,
    ImportReport,
    ImportState,
    Linked,
    OpenImport,
    Outcome,
    Position,
    Reason,
    Site,
    Span,
)
from kiva_stream.settings import (
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


def account(who: Customer, **changes: object) -> Account:
    """Return a customer's account, active and opted in, but for the changes."""
    return replace(Account(who, "Ann", str(who.id), "", "active", None, True, False), **changes)


def entry(place: int, who: Customer, **changes: object) -> Entry:
    """Return the entry at a place of the log, but for the changes: an event, a second after the one before.

    No two have the same message, so that none is a duplicate.
    """
    when = moment(place)
    row = Entry(position(place), when, when, EVENT, "customer", None, f"entry {place}", None, who.id, who)
    return replace(row, **changes)


def event(place: int, **changes: object) -> Event:
    """Return the verdict that the entry at a place is an event."""
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
        kinds = {type(each) for each in _leaves(error)}
        if kinds != {kind}:
            raise
    else:
        raise AssertionError(f"no {kind.__name__} was raised")


def _leaves(error: BaseException) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


class FakeLog:
    """Implements Log: entries, read in pages of a size. `read` are those that were given out, in order.

    After `breaks_after` pages the source is gone, as soon as `gate` is open.
    """

    def __init__(self, entries: Iterable[Entry], page_rows: int = 10) -> None:
        self.entries = sorted(entries, key=lambda each: each.position)
        self.page_rows = page_rows
        self.read: list[Position] = []
        self.breaks_after: int | None = None
        self.gate: anyio.Event | None = None
        self.on_page: Callable[[], None] = lambda: None

    async def pages(self, after: Position, mark: HighWaterMark) -> AsyncIterator[list[Entry]]:
        rows = [each for each in self.entries if after < each.position <= mark.position]
        for number, start in enumerate(range(0, len(rows), self.page_rows)):
            await anyio.lowlevel.checkpoint()
            if number == self.breaks_after:
                if self.gate is not None:
                    await self.gate.wait()
                raise SourceError("the source is gone")
            page = rows[start : start + self.page_rows]
            self.read += [each.position for each in page]
            self.on_page()
            yield page


class FakeCustomers:
    """Implements Customers: accounts by customer, as they are now."""

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self.rows = {each.customer.id: each for each in accounts}

    async def page(self, after: CustomerId, count: int) -> list[Customer]:
        await anyio.lowlevel.checkpoint()
        return [self.rows[key].customer for key in sorted(self.rows) if key > after][:count]

    async def accounts(self, ids: Collection[CustomerId]) -> list[Account]:
        await anyio.lowlevel.checkpoint()
        return [self.rows[key] for key in ids if key in self.rows]


class FakeLinks:
    """Implements Links; outlives a run, as the state schema does. New contacts begin with `first_status`."""

    def __init__(self, first_status: ContactStatus = ContactStatus.NEW) -> None:
        self.first_status = first_status
        self.by_email: dict[Email, Contact] = {}
        self.by_customer: dict[CustomerId, Contact] = {}
        self.fingerprints: dict[ContactId, bytes] = {}
        self.imports: dict[str, OpenImport] = {}
        self.fails = False

    async def link(self, customers: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        await self._turn()
        for number, email in customers.items():
            if number not in self.by_customer:
                new = Contact(ContactId(len(self.by_email) + 1), email, self.first_status)
                self.by_customer[number] = self.by_email.setdefault(email, new)
        return {number: self.by_customer[number] for number in customers}

    async def page(self, after: ContactId, count: int) -> list[Linked]:
        await self._turn()
        return [self._linked(each) for each in self._contacts() if each.id > after][:count]

    async def contacts(self, ids: Collection[ContactId]) -> list[Linked]:
        await self._turn()
        return [self._linked(each) for each in self._contacts() if each.id in ids]

    async def open_imports(self) -> list[OpenImport]:
        await self._turn()
        return list(self.imports.values())

    async def keep_import(self, started: OpenImport) -> None:
        await self._turn()
        self.imports[started.id] = started
        await anyio.lowlevel.checkpoint()

    async def close_import(self, ended: OpenImport, confirmed: Collection[ContactId]) -> None:
        await self._turn()
        del self.imports[ended.id]
        for number in confirmed:
            self._confirm(number, ended.fingerprints[number])
        await anyio.lowlevel.checkpoint()

    async def confirm(self, number: ContactId, fingerprint: bytes) -> None:
        await self._turn()
        self._confirm(number, fingerprint)

    async def reject(self, number: ContactId, why: Reason) -> None:
        await self._turn()
        found = self._contact(number)
        found.status, found.why = ContactStatus.REJECTED, why

    def status_of(self, who: Customer) -> tuple[ContactStatus, str]:
        """Return how far a customer's contact has come, and why not further."""
        return self.by_customer[who.id].status, self.by_customer[who.id].why

    def _confirm(self, number: ContactId, fingerprint: bytes) -> None:
        found = self._contact(number)
        found.status, found.why = ContactStatus.LINKED, ""
        self.fingerprints[number] = fingerprint

    def _contact(self, number: ContactId) -> Contact:
        return next(each for each in self._contacts() if each.id == number)

    def _contacts(self) -> list[Contact]:
        return list(self.by_email.values())  # in the order of their ids

    def _linked(self, found: Contact) -> Linked:
        mine = tuple(number for number, each in self.by_customer.items() if each is found)
        return Linked(found, mine, self.fingerprints.get(found.id))

    async def _turn(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.fails:
            raise CheckpointError("the state is gone")


class FakeLedger:
    """Implements Ledger; outlives a run. The commit numbered `fails_at` (the first is 1) and later ones fail.

    With `keeps_failed` the first that fails is kept all the same, as when only its answer was lost.
    While `gate` is a closed one, commits wait for it.
    """

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.fails_at: int | None = None
        self.keeps_failed = False
        self.gate: anyio.Event | None = None
        self.asked = 0  # commits that were tried

    async def commit(self, commit: Commit) -> None:
        await anyio.lowlevel.checkpoint()
        self.asked += 1
        if self.gate is not None:
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
        return {letter.position: letter.why for commit in self.commits for letter in commit.dead}

    def settled(self) -> dict[Position, Outcome]:
        """Return what is kept of entries above the watermark: what a start asks for."""
        kept = dict.fromkeys(self.delivered, DELIVERED)
        kept |= {where: Outcome("dead", why) for where, why in self.dead.items()}
        return {where: outcome for where, outcome in kept.items() if where > self.watermark}

    def tally(self, kind: str = "outcome") -> dict[str, int]:
        """Return the counts of a kind: of what the watermark passed, and of what is ahead of it now."""
        total: Counter[tuple[str, str]] = Counter()
        for commit in self.commits:
            total.update(commit.passed)
        if self.commits:
            total.update(self.commits[-1].ahead)
        return {name: count for (each, name), count in total.items() if each == kind}

    def _keep(self, commit: Commit) -> None:
        assert commit.watermark >= self.watermark, "the watermark went back"
        new = [row.position for row in commit.delivered] + [letter.position for letter in commit.dead]
        twice = [where for where, count in Counter([*self.delivered, *self.dead, *new]).items() if count > 1]
        assert not twice, f"two outcomes: {twice}"
        self.commits.append(commit)


class Arrival(NamedTuple):
    """An event as ActiveCampaign saw it come."""

    email: Email
    name: str
    place: int


class FakeEvents:
    """Implements Events: keeps every arrival in order, then takes its time, then answers.

    `answers` are the errors to give for an event, one a try; without one left it is taken. `latency` is
    awaited between arrival and answer, with the place of the event.
    """

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.answers: dict[int, list[Exception]] = {}
        self.latency: Callable[[int], Awaitable[object]] = no_time
        self.in_flight: Counter[Email] = Counter()
        self.most_in_flight = 0
        self.on_arrival: Callable[[], None] = lambda: None

    async def send(self, email: Email, name: str, data: str) -> None:
        place = place_in(data)
        self.arrivals.append(Arrival(email, name, place))
        self.on_arrival()
        with self._flying(email):
            await self.latency(place)
        if answers := self.answers.get(place):
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


class FakeArrivals:
    """Implements Arrivals: links every contact once `gate` is open, or rejects it when its address is bad."""

    def __init__(self, *bad: Email) -> None:
        self.asked: list[Email] = []
        self.newest: list[datetime] = []  # what each was asked with
        self.bad = bad
        self.gate: anyio.Event | None = None
        self.refuses = False

    async def ensure(self, wanted: Contact, newest: datetime) -> None:
        self.asked.append(wanted.email)
        self.newest.append(newest)
        await anyio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.refuses:
            raise AccountRefused("no")
        if wanted.email in self.bad:
            wanted.status, wanted.why = ContactStatus.REJECTED, Reason.AC_REJECTED
        else:
            wanted.status = ContactStatus.LINKED


class FakeContacts:
    """Implements Contacts: imports end as they are told to.

    `reports` are the answers still to come when an import is asked for, whichever it is, one a time;
    without one left it is completed. Of an import, addresses in `failing` fail, those in `excluded` are left
    out without a word, and one with an address in `refused` is refused with those rows. contact/sync refuses
    the addresses in `refused_alone`.
    """

    def __init__(self) -> None:
        self.imports: dict[str, list[DesiredContact]] = {}
        self.automations: dict[str, bool] = {}  # whether an import may start automations
        self.asked: list[str] = []  # the imports that were asked for, by id
        self.looked_up: list[Email] = []
        self.synced: list[Email] = []
        self.reports: list[ImportReport] = []
        self.failing: set[Email] = set()
        self.excluded: set[Email] = set()
        self.refused: set[Email] = set()
        self.refused_alone: set[Email] = set()
        self.gate: anyio.Event | None = None  # imports are accepted once it is open
        self.refuses_account = False

    async def start_import(
        self, contacts: Sequence[DesiredContact], *, exclude_automations: bool
    ) -> AcceptedImport:
        await anyio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.refuses_account:
            raise AccountRefused("no")
        refused = {row: "no" for row, each in enumerate(contacts) if each.email in self.refused}
        if refused:
            raise RowsRejected("refused", refused)
        import_id = f"import {len(self.imports) + 1}"
        self.imports[import_id] = list(contacts)
        self.automations[import_id] = not exclude_automations
        return AcceptedImport(import_id, is_short=any(each.email in self.excluded for each in contacts))

    async def import_report(self, import_id: str) -> ImportReport:
        await anyio.lowlevel.checkpoint()
        self.asked.append(import_id)
        if self.reports:
            return self.reports.pop(0)
        mine = {each.email for each in self.imports.get(import_id, ())}
        return ImportReport(ImportState.COMPLETED, frozenset(mine & self.failing - self.excluded))

    async def find(self, email: Email) -> bool:
        await anyio.lowlevel.checkpoint()
        self.looked_up.append(email)
        return email not in self.excluded

    async def sync(self, wanted: DesiredContact) -> None:
        await anyio.lowlevel.checkpoint()
        self.synced.append(wanted.email)
        if wanted.email in self.refused_alone:
            raise Rejected("refused", "no")

    def addresses(self) -> list[list[Email]]:
        """Return the addresses of each import, in the order in which they were accepted."""
        return [[each.email for each in contacts] for contacts in self.imports.values()]
