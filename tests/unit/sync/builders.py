"""Contact sync with what stands around it, in memory: shop, state and ActiveCampaign outlive a restart."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from kiva_stream.model.bulk_imports import ImportReport, ImportState
from kiva_stream.model.contacts import Contact, ContactRecord, ContactStatus, DesiredContact, ListStatus
from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.deliveries import Batch, Delivery, Need
from kiva_stream.model.event_catalog import CATALOG
from kiva_stream.model.ids import Email, OrderId
from kiva_stream.model.outcomes import Reason, Span
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.contact_moves import ContactMoves
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_refusals import ContactRefusals
from kiva_stream.sync.contact_sync import ContactSync
from kiva_stream.sync.contact_writes import ContactWrites
from kiva_stream.sync.desired_contact import customers_to_move, desired_contact
from kiva_stream.sync.lone_requests import ContactRequests, TagRequests
from kiva_stream.sync.order_kind import OrderKind, order_kind
from tests.fakes.destination_contacts import AcContact, FakeContacts, FakeWeekTags
from tests.fakes.source import FakeCustomers, FakeOrders, FakeWeeks
from tests.fakes.stages import FakeOrderDelivery
from tests.fakes.state_contacts import FakeLinks, FakeTagsDue
from tests.fakes.state_held import FakeHeldRows, held_records
from tests.support.entries import SITE, account, customer, delivery, position
from tests.support.settings import activecampaign_settings

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
YESTERDAY = NOW - timedelta(days=1)
RUNNING, LOST = ImportReport(ImportState.RUNNING), ImportReport(ImportState.LOST)
LINKED = (ContactStatus.LINKED, "")
REFUSED = (ContactStatus.REJECTED, Reason.AC_REJECTED)
NOBODY_LEFT = (ContactStatus.REJECTED, Reason.NO_CONTACT)
NEW = (ContactStatus.NEW, "")
RESUBSCRIBED = next(line for line in CATALOG.events if line.slug == "email_resubscribed")


class Bench:
    """Contact sync among fakes. A test that holds a contact takes it from `locks`."""

    locks: ContactLocks  # of the newest process, as are these
    incidents: Incidents
    refusals: ContactRefusals
    order_kind: OrderKind
    writes: ContactWrites
    moves: ContactMoves
    sync: ContactSync

    def __init__(
        self,
        accounts: Iterable[CustomerAccount] = (),
        *,
        contacts_per_import: int = 3,
        is_live: bool = False,
        **changes: object,
    ) -> None:
        self.customers = FakeCustomers(accounts)
        self.links = FakeLinks()
        self.due = FakeTagsDue(self.links)
        self.contacts = FakeContacts(contacts_per_import)
        self.tags = FakeWeekTags(self.contacts)
        self.orders = FakeOrders()
        self.order_delivery = FakeOrderDelivery()
        self.weeks = FakeWeeks()
        self.is_live = is_live
        self.settings = activecampaign_settings(**{"import_poll_s": 2, **changes})
        self.held = FakeHeldRows()
        self.slept: list[float] = []
        self.done: list[int] = []
        self.restart()

    def restart(self) -> None:
        """Begin a new process: all it knows is what the state keeps."""
        self.links.restarted()
        self.contacts.restarted()
        self.locks = ContactLocks()
        self.held_records = held_records(self.held, self.settings.retry_held_s)
        ports = ContactPorts(
            customers=self.customers,
            links=self.links,
            orders=self.orders,
            order_delivery=self.order_delivery,
            weeks=self.weeks,
            due=self.due,
            contacts=self.contacts,
            alone=ContactRequests(self.contacts, self.settings.retry_held_s),
            tags=TagRequests(self.tags, self.contacts, self.settings.retry_held_s),
            locks=self.locks,
            held=self.held_records,
        )
        self.incidents = Incidents()
        self.order_kind = order_kind(self.incidents, self.settings.retry_refused_s)
        self.refusals = ContactRefusals(self.links, self.incidents, self.settings.retry_refused_s)
        self.writes = ContactWrites(
            ports, self.settings, refusals=self.refusals, sleep=self.sleep, now=lambda: NOW
        )
        self.moves = ContactMoves(SITE.id, ports)
        self.sync = ContactSync(
            SITE,
            ports,
            writes=self.writes,
            refusals=self.refusals,
            order_kind=self.order_kind,
            moves=self.moves,
            settings=self.settings,
            is_live=self.is_live,
            now=lambda: NOW,
        )

    async def sleep(self, seconds: float, /) -> None:
        """Implement Sleep: note how long, and let the others have their turn."""
        self.slept.append(seconds)
        await anyio.lowlevel.checkpoint()

    # --- what is done ---

    async def snapshot(self, covers: Position = DAY1) -> None:
        with anyio.fail_after(10):
            await self.sync.snapshot(covers, self.done.append)

    async def ensure(self, *needs: Need) -> None:
        """Wait for contacts, all at the same time."""
        with anyio.fail_after(10):
            async with self.sync.working(), anyio.create_task_group() as group:
                for need in needs:
                    group.start_soon(self.sync.ensure, need)

    async def carry(self, whose: Contact, *deliveries: Delivery) -> Need | None:
        """Bring what a batch must wait for; return it."""
        need = self.sync.need(Batch(whose, list(deliveries)))
        if need is not None:
            await self.ensure(need)
        return need

    async def move(self, who: Customer, email: Email) -> None:
        """Have a customer change their address, and move them."""
        self.customers.change(who, email=email)
        await self.move_all()

    async def move_all(self) -> None:
        """Move everybody whose address changed."""
        emails = {key: row.customer.email for key, row in self.customers.rows.items() if row.customer.email}
        with anyio.fail_after(10):
            await self.sync.move(customers_to_move(await self.links.of_customers(emails), emails))

    async def struck(self, turns: int) -> bool:
        """Move everybody, and be cancelled after so many turns of the loop; return whether it was in time."""
        fallen: list[int] = []

        async def strike() -> None:
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            fallen.append(turns)
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(strike)
            await self.move_all()
            group.cancel_scope.cancel()
        return bool(fallen)

    # --- what is looked at ---

    async def link(self, *customers: Customer) -> list[Contact]:
        """Return the contacts of customers, of which ActiveCampaign may have none yet."""
        links = await self.links.link({each.id: each.email for each in customers if each.email})
        return list(links.values())

    def contact(self, who: Customer) -> Contact:
        return self.links.by_customer[who.id]

    def linked(self, who: Customer) -> ContactRecord:
        """Return what is known of a customer's contact."""
        return self.links.linked(self.contact(who))

    def wanted(self, *customers: Customer) -> list[ContactChange]:
        """Return the contacts of customers as their rows have them now, a customer each."""
        rows = [(self.linked(each), self.customers.rows[each.id]) for each in customers]
        return [
            ContactChange(
                linked,
                desired_contact(
                    linked.contact.email,
                    [row],
                    is_new=linked.contact.status is not ContactStatus.LINKED,
                    today=NOW.date(),
                ),
            )
            for linked, row in rows
        ]

    def at_ac(self, who: Customer) -> AcContact:
        """Return the contact that ActiveCampaign has of a customer."""
        return self.contacts.at(self.contact(who).email)

    def shown(self, who: Customer) -> DesiredContact:
        """Return what ActiveCampaign shows of a customer."""
        shown = self.at_ac(who).shown
        assert shown is not None
        return shown

    def statuses(self, customers: Iterable[Customer]) -> list[tuple[ContactStatus, str]]:
        return [self.links.status_of(each) for each in customers]

    def imported(self) -> list[Email]:
        """Return all addresses that were imported, in the order of the alphabet."""
        return sorted(email for addresses in self.contacts.addresses() for email in addresses)

    def list_statuses(self) -> list[ListStatus]:
        """Return what each row of each import says of the list."""
        return [each.list_status for contacts in self.contacts.imports.values() for each in contacts]


def shop(count: int) -> tuple[list[Customer], list[CustomerAccount]]:
    """Return so many customers, and their accounts."""
    customers = [customer(number) for number in range(1, count + 1)]
    return customers, [account(each) for each in customers]


def emails(customers: Iterable[Customer]) -> list[Email]:
    return [each.email for each in customers if each.email]


def address(who: Customer) -> Email:
    assert who.email is not None
    return who.email


def need_of(
    contact: Contact,
    place: int = 1,
    *orders: int,
    inserted_at: datetime = YESTERDAY,
    resubscribes: bool = False,
) -> Need:
    """Return the need of a contact's entries up to a place of the log."""
    return Need(contact, position(place), inserted_at, frozenset(map(OrderId, orders)), resubscribes)


def entry_of(
    place: int, order: int | None = None, *, age_s: float = 0, resubscribes: bool = False
) -> Delivery:
    """Return the delivery of the entry at a place: of an order, so old, perhaps of a re-subscription."""
    told = delivery(place, Span(position(place), 1), is_event=resubscribes)
    return replace(
        told,
        inserted_at=NOW - timedelta(seconds=age_s),
        order=None if order is None else OrderId(order),
        event_line=RESUBSCRIBED if resubscribes else None,
    )
