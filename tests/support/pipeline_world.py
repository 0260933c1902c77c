"""The whole pipeline on fakes of its ports: shop, state and account are kept from run to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import anyio
from msgspec.structs import replace

from kiva_stream.errors import Rejected
from kiva_stream.model.contacts import ContactStatus
from kiva_stream.model.customers import Customer
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import ContactId, Email, OrderId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.classification import classifier_of
from kiva_stream.pipeline.leftovers import LeftoversFirst
from kiva_stream.pipeline.parked_bound import ParkedBound
from kiva_stream.pipeline.pipeline import Pipeline
from kiva_stream.ports.stages import OrderDelivery
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import PipelineSettings
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.contact_moves import ContactMoves
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_refusals import ContactRefusals
from kiva_stream.sync.contact_sync import ContactSync
from kiva_stream.sync.contact_writes import ContactWrites
from kiva_stream.sync.held_records import HeldRecords
from kiva_stream.sync.lone_requests import ContactRequests, TagRequests
from kiva_stream.sync.order_kind import OrderKind, order_kind
from tests.fakes.destination_contacts import FakeContacts, FakeWeekTags
from tests.fakes.destination_events import FakeEvents
from tests.fakes.source import FakeCustomers, FakeEntries, FakeLog, FakeOrders, FakeWeeks
from tests.fakes.stages import FakeDeliveryLookup, FakeOrderDelivery
from tests.fakes.state_contacts import FakeLinks, FakeTagsDue
from tests.fakes.state_held import FakeHeldRows, held_records
from tests.fakes.state_ledger import FakeDeadLetters, FakeLedger
from tests.support.entries import (
    EVENT,
    NOISE,
    SITE,
    SYNC_ONLY,
    account,
    customer,
    entry,
    place_of,
    position,
    up_to,
)
from tests.support.settings import settings
from tests.support.waiting import no_time

ANN, BOB = customer(1), customer(2)
TWIN = customer(3, email=ANN.email)  # has Ann's address
NOBODY = customer(4, email=None)
FAILING = customer(5)  # ActiveCampaign takes this contact alone only
REFUSED = customer(6)  # ActiveCampaign refuses this contact
PEOPLE = (ANN, BOB, TWIN, NOBODY, FAILING, REFUSED)

AGAIN = "again"  # the shop wrote the entry before this one twice
BAD_EVENT = "bad event"  # ActiveCampaign refuses this event


class World:
    """A log, and the pipeline with its ports. Each `run` is a new process on the same state."""

    checkpoint: Checkpoint  # of the newest process, as are these
    held: HeldRecords
    order_kind: OrderKind
    sync: ContactSync
    pipeline: Pipeline

    def __init__(
        self,
        entries: Iterable[Entry],
        *,
        page_rows: int = 3,
        window: int = 100,
        max_in_flight: int = 4,
        is_live: bool = False,
        now: datetime | None = None,
        parked_max: int = 1_000,
        **activecampaign: object,
    ) -> None:
        self.parked_max = parked_max
        self.commit_sleep: Sleep = no_time
        self.log = FakeLog(entries, page_rows)
        self.entries = FakeEntries(self.log)
        self.links = FakeLinks()
        self.due = FakeTagsDue(self.links)
        self.ledger = FakeLedger()
        self.events = FakeEvents()
        self.events.on_arrival = self.check_arrival
        self.lookup: FakeDeliveryLookup | None = None
        self.replays: dict[Position, Reason] = {}
        self.contacts = FakeContacts()
        self.contacts.failing = {_address(FAILING)}
        self.contacts.refused = self.contacts.refused_alone = {_address(REFUSED)}
        people = {each.customer.id: each.customer for each in self.log.entries if each.customer}
        self.shop = FakeCustomers(map(account, people.values()))
        self.log.people = self.shop.rows
        self.dead_letters = FakeDeadLetters(self.ledger)
        self.orders = FakeOrders()
        self.order_delivery = FakeOrderDelivery()
        self.held_rows = FakeHeldRows()
        self.incidents = Incidents()
        self.weeks = FakeWeeks()
        self.is_live = is_live
        self.is_down: Callable[[], bool] = lambda: False
        self.now = now or datetime.now(UTC)
        self.takes_snapshot = False
        self.settings = settings(
            PipelineSettings(window=window, queue_chunks=2, drain_timeout_s=5),
            max_in_flight=max_in_flight,
            **activecampaign,
        )
        self.settings = replace(
            self.settings, state=replace(self.settings.state, parked_max_entries=parked_max)
        )

    @property
    def size(self) -> int:
        return len(self.log.entries)

    def begin(self) -> None:
        """Begin a new process, which has only what the state keeps."""
        self.links.restarted()
        self.contacts.restarted()
        window, in_flight = self.settings.pipeline.window, self.settings.activecampaign.max_in_flight
        self.checkpoint = Checkpoint(
            self.ledger,
            self.ledger.watermark,
            self.ledger.left(),
            window=window,
            max_in_flight=in_flight,
            parked_max=self.parked_max,
            commit_interval_s=0.02,
            sleep=self.commit_sleep,
        )
        self.held = held_records(self.held_rows, self.settings.activecampaign.retry_held_s)
        self.order_kind = order_kind(Incidents(), self.settings.activecampaign.retry_refused_s)
        self.sync = self._sync(self._begin_orders())
        self.pipeline = Pipeline(
            self.settings,
            log=LeftoversFirst(self.log, self.entries, parked=self.ledger, replays=self.replays),
            entries=self.entries,
            classify=classifier_of(SITE),
            links=self.links,
            dead_letters=self.dead_letters,
            contact_delivery=self.sync,
            events=self.events,
            lookup=self.lookup,
            checkpoint=self.checkpoint,
            held=self.held,
            bound=ParkedBound(
                self.ledger,
                most=self.parked_max,
                is_full=lambda: self.checkpoint.is_full,
                incidents=self.incidents,
            ),
            is_down=self.is_down,
        )
        behind = [each for each in self.log.entries if each.position <= self.ledger.watermark]
        self.pipeline.remember(behind[-window:])

    def _begin_orders(self) -> OrderDelivery:
        """Return the order delivery of a new process."""
        self.order_delivery.begin(self.held, self._contact_of)
        return self.order_delivery

    def _sync(self, order_delivery: OrderDelivery) -> ContactSync:
        settings = self.settings.activecampaign
        ports = ContactPorts(
            customers=self.shop,
            links=self.links,
            orders=self.orders,
            order_delivery=order_delivery,
            weeks=self.weeks,
            due=self.due,
            contacts=self.contacts,
            alone=ContactRequests(self.contacts, settings.retry_held_s),
            tags=TagRequests(FakeWeekTags(self.contacts), self.contacts, settings.retry_held_s),
            locks=ContactLocks(),
            held=self.held,
        )
        refusals = ContactRefusals(self.links, Incidents(), settings.retry_refused_s)
        return ContactSync(
            SITE,
            ports,
            writes=ContactWrites(ports, settings, refusals=refusals, sleep=no_time, now=lambda: self.now),
            refusals=refusals,
            order_kind=self.order_kind,
            moves=ContactMoves(SITE.id, ports),
            settings=settings,
            is_live=self.is_live,
            now=lambda: self.now,
        )

    def _contact_of(self, order: OrderId) -> ContactId:
        """Return the contact of the customer who has an order, else that of the first customer."""
        paid = self.orders.paid.items()
        whose = (customer for customer, orders in paid if order in orders)
        return self.links.by_customer[next(whose, ANN.id)].id

    async def run(self, until_place: int | None = None, within_s: float = 10) -> None:
        """Carry the log up to a place, by default to its end, in a new process."""
        self.begin()
        with anyio.fail_after(within_s):
            if self.takes_snapshot:
                await self.sync.snapshot(position(self.size), lambda _count: None)
            await self.carry(until_place)

    async def carry(self, until_place: int | None = None) -> None:
        """Carry the log up to a place, by default to its end."""
        async with self.sync.working():
            await self.pipeline.run(up_to(until_place or self.size))

    async def run_with_snapshot(self) -> None:
        """Upsert all contacts first, as a backfill does."""
        self.takes_snapshot = True
        await self.run()

    def link_everybody(self) -> None:
        """Have all contacts upserted before the first entry is read, and none refused."""
        self.takes_snapshot = True
        self.contacts.failing, self.contacts.refused, self.contacts.refused_alone = set(), set(), set()

    def first_arrivals(self) -> dict[Email, list[int]]:
        """Return the places of the events that arrived, by contact, without repeats."""
        return {
            email: list(dict.fromkeys(places)) for email, places in self.events.places_by_contact().items()
        }

    def assert_complete(self, outcomes: dict[int, str]) -> None:
        """Check that each place has this outcome and no other, is counted once, and arrived in order."""
        expected = {place for place, outcome in outcomes.items() if outcome == "delivered"}
        assert self.ledger.watermark == Position(*self.log.entries[-1].position)
        assert sorted(map(place_of, self.ledger.delivered)) == sorted(expected)
        assert {place_of(where): f"dead {why}" for where, why in self.ledger.dead.items()} == {
            place: outcome for place, outcome in outcomes.items() if outcome.startswith("dead")
        }
        kinds = list(outcomes.values())
        assert self.ledger.tally() == {kind: kinds.count(kind) for kind in kinds}
        assert self.ledger.commits[-1].pending == 0
        for places in self.first_arrivals().values():
            assert places == sorted(places)

    def check_arrival(self) -> None:
        """Check that an event arrives only when its contact is there, and that its slot was free."""
        newest = self.events.arrivals[-1]
        assert self.links.by_email[newest.email].status is ContactStatus.LINKED


def _address(who: Customer) -> Email:
    assert who.email is not None
    return who.email


def story(
    rows: Iterable[tuple[Customer, str]], *, page_rows: int = 3, max_in_flight: int = 4, **others: object
) -> tuple[World, dict[int, str]]:
    """Return a world whose log says this, and the outcome that each place should have.

    A row is who did what: an action, AGAIN or BAD_EVENT. `others` are arguments of World.
    """
    entries: list[Entry] = []
    outcomes: dict[int, str] = {}
    bad: list[int] = []
    for place, (who, what) in enumerate(rows, start=1):
        if what == AGAIN and entries:
            entries.append(_again(entries[-1], place))
        else:
            entries.append(entry(place, who, action=what if what in {SYNC_ONLY, NOISE} else EVENT))
        outcomes[place] = _outcome(entries[-1], entries[:-1], what)
        if what == BAD_EVENT:
            bad.append(place)
    world = World(entries, page_rows=page_rows, max_in_flight=max_in_flight, **others)  # type: ignore[arg-type]
    world.events.answers = {place: [Rejected("refused", "no") for _ in range(9)] for place in bad}
    return world, outcomes


def _again(before: Entry, place: int) -> Entry:
    return replace(before, position=position(place))


def _outcome(one: Entry, before: list[Entry], what: str) -> str:
    if one.action == NOISE:
        return "skipped noise"
    if one.customer is NOBODY:
        return "dead no_email"
    if one.action == EVENT and any(each.message == one.message for each in before):
        return "skipped duplicate"
    if one.customer is REFUSED:
        return "dead ac_rejected"
    if one.action == SYNC_ONLY:
        return "synced"
    return "dead event_rejected" if what == BAD_EVENT else "delivered"
