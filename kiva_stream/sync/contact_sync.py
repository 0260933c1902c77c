"""Contact sync: ActiveCampaign shows the site's contacts, and their orders, as the shop has them now.

Level-triggered: an entry only says that something may have changed. What a contact should look like is made
of the current rows, read for many contacts at once, and only what differs from what ActiveCampaign last
confirmed is sent. Repeats, replays and restarts are harmless by that. Imports of history start no
automations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream
from msgspec.structs import replace

from kiva_stream.model.contacts import Contact, ContactRecord, ContactStatus
from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.deliveries import Batch, Delivery, Need
from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.model.site import Site
from kiva_stream.ports.destination import Contacts
from kiva_stream.ports.source import Customers, Orders, Weeks
from kiva_stream.ports.stages import OrderDelivery
from kiva_stream.ports.state import Links, TagsDue
from kiva_stream.primitives.signal import Signal
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.contact_moves import ContactMoves
from kiva_stream.sync.contact_writes import ContactChange, ContactWrites
from kiva_stream.sync.desired_contact import (
    countable,
    customers_to_move,
    desired_contact,
    fingerprint,
    must_unsubscribe,
    wants_emails,
    week_tag,
)

PAGE_ROWS = 250  # the most that an import takes
IMPORTS_AT_ONCE = 4  # while ActiveCampaign works on one, the next are on their way
WRITES_AT_ONCE = 4  # what differs meanwhile gathers, and goes together
_HISTORY = datetime.min.replace(tzinfo=UTC)  # the age of what no entry brings
RESUBSCRIBED = "email_resubscribed"  # the one event after which an unsubscribed contact is subscribed again


class ContactPorts(NamedTuple):
    """What contact sync needs of the outside."""

    customers: Customers
    links: Links
    contacts: Contacts
    orders: Orders
    order_delivery: OrderDelivery
    weeks: Weeks
    due: TagsDue


class Waiting:
    """A batch that waits for its contact, and what was found when its contact was looked at."""

    def __init__(self, need: Need) -> None:
        self.need = need
        self.linked: ContactRecord | None = None
        self.wanted: ContactChange | None = None  # None: it is as it should be
        self.must_unsubscribe = False
        self.is_erased = False  # all of its customers are, at the shop
        self.is_over = anyio.Event()
        self.error: Exception | None = None

    @property
    def needs_import(self) -> bool:
        """Whether its contact is new to ActiveCampaign."""
        return self.need.contact.status is not ContactStatus.LINKED

    def end(self, error: Exception | None = None) -> None:
        """Let the batch go on, or fail."""
        self.error = error
        self.is_over.set()


class ContactSync:
    """Implements the port ContactDelivery, and the snapshot of all customers that comes before the events.

    `is_live`: what happens now is carried, not history: an entry may bring somebody back to the list, and who
    has just joined starts automations.
    Every call raises AccountRefused, SourceError, CheckpointError.
    """

    def __init__(
        self,
        site: Site,
        ports: ContactPorts,
        writes: ContactWrites,
        moves: ContactMoves,
        settings: ActiveCampaignSettings,
        *,
        is_live: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._site = site
        self._ports = ports
        self._writes = writes
        self._moves = moves
        self._settings = settings
        self._is_live = is_live
        self._now = now
        self._floor = DAY1  # what entries up to here changed was there when the snapshot was taken
        self._doubted: defaultdict[ContactId, set[OrderId]] = defaultdict(set)
        self._waiting: dict[ContactId, Waiting] = {}  # to be looked at
        self._unwritten: dict[ContactId, Waiting] = {}  # looked at, to be written
        self._work_added = Signal()

    # --- all contacts ---

    async def snapshot(self, covers: Position, on_done: Callable[[int], None]) -> None:
        """Bring every customer with a usable address; `on_done` hears how many contacts came at a time.

        The entries up to `covers` were there to be read before: nothing is brought for them any more, and
        every week tag is due instead.
        """
        if came := await self._writes.resume():
            on_done(came)
        await self._link_customers()
        await self._writes.learn_ids()
        has_sent = False
        send, receive = anyio.create_memory_object_stream[tuple[list[ContactChange], bool]]()
        async with anyio.create_task_group() as imports, receive:
            for _ in range(IMPORTS_AT_ONCE):
                imports.start_soon(self._write_each, receive.clone(), on_done)
            async with send:
                async for part in self._changed():
                    has_sent = True
                    await send.send(part)
        if has_sent:
            await self._writes.learn_ids()
        await self._ports.due.all_due()
        self._floor = covers

    async def finish_imports(self) -> None:
        """Return when the imports that an earlier run began have come to their end."""
        await self._writes.resume()

    async def _link_customers(self) -> None:
        """Give every customer with a usable address its contact."""
        after = CustomerId(0)
        while page := await self._ports.customers.page(after, PAGE_ROWS):
            after = page[-1].id
            emails = _addresses(page)
            contacts = await self._ports.links.link(emails)
            await self._move(customers_to_move(contacts, emails), _HISTORY)

    async def _changed(self) -> AsyncIterator[tuple[list[ContactChange], bool]]:
        """Yield what differs from what ActiveCampaign confirmed, an import's worth at a time.

        And with each whether it is history, which starts no automations.
        """
        differing: dict[bool, list[ContactChange]] = {True: [], False: []}
        async for page, accounts in self._contacts():
            for each in await self._wanted(page, accounts):
                differing[not self._has_just_joined(each, accounts)].append(each)
            for is_history, wanted in differing.items():
                while (size := self._writes.fitting(wanted)) < len(wanted):
                    yield wanted[:size], is_history
                    del wanted[:size]
        for is_history, wanted in differing.items():
            if wanted:
                yield wanted, is_history

    async def _contacts(self) -> AsyncIterator[tuple[list[ContactRecord], dict[CustomerId, CustomerAccount]]]:
        """Yield all contacts with their accounts, after those that are nobody's have been cleared."""
        after = ContactId(0)
        while page := await self._ports.links.page(after, PAGE_ROWS):
            after = page[-1].contact.id
            await self.dissolve(page)
            accounts = await self._accounts(page)
            await self._let_some_go(page, accounts)
            yield page, accounts

    def _has_just_joined(self, wanted: ContactChange, accounts: Mapping[CustomerId, CustomerAccount]) -> bool:
        """Return whether a contact is new to ActiveCampaign because its customer is new to the shop."""
        mine = self._countable(wanted.record, accounts)
        is_new = wanted.record.contact.status is not ContactStatus.LINKED
        return self._is_live and is_new and any(not self._is_history(each.joined_at) for each in mine)

    async def dissolve(self, rows: Iterable[ContactRecord]) -> None:
        """Clear the contacts that were left when an earlier run was stopped before it did."""
        for linked in rows:
            if linked.contact.status is ContactStatus.LINKED and not linked.customers:
                await self._moves.dissolve(linked)

    async def _write_each(
        self,
        parts: MemoryObjectReceiveStream[tuple[list[ContactChange], bool]],
        on_done: Callable[[int], None],
    ) -> None:
        async with parts:
            async for wanted, is_history in parts:
                await self._writes.write(wanted, exclude_automations=is_history)
                on_done(len(wanted))

    # --- the contacts of entries ---

    def need(self, batch: Batch) -> Need | None:
        """Return what a batch must wait for before its events; None: nothing, all is there."""
        contact, deliveries = batch.contact, batch.deliveries
        if contact.is_refused:
            return None
        newest = max(each.position for each in deliveries)
        named = {each.order for each in deliveries if each.order and each.position > self._floor}
        orders = frozenset(named | self._doubted.get(contact.id, set()))
        comes_back = self._is_live and any(map(self._comes_back, deliveries))
        if not (orders or comes_back) and self._is_settled(contact, newest):
            return None
        inserted_at = max(each.inserted_at for each in deliveries)
        return Need(contact, newest, inserted_at, orders, comes_back)

    def mark_dirty(self, contact: Contact, orders: Collection[OrderId]) -> None:
        """Have the contact and these orders looked at when its next batch comes, in any case."""
        self._doubted[contact.id].update(orders)

    async def ensure(self, need: Need) -> None:
        """Return when the contact is linked or rejected, and shows what its entries changed.

        Contacts that differ at the same time go together; nobody waits for the orders of others. A contact
        has one batch at a time. Needs `working`.
        """
        mine = Waiting(self._with_doubts(need))
        await self._be_served(mine)
        assert mine.linked is not None  # noqa: S101  it was looked at
        if mine.must_unsubscribe:
            await self._let_go(mine.linked, is_erased=mine.is_erased)
        await self._complete([mine.linked], {need.contact.id: mine.need})

    async def _be_served(self, mine: Waiting) -> None:
        need = mine.need
        self._waiting[need.contact.id] = mine
        self._work_added.notify()
        try:
            await mine.is_over.wait()
        finally:
            for places in (self._waiting, self._unwritten):
                if places.get(need.contact.id) is mine:
                    del places[need.contact.id]
        if mine.error is not None:
            raise mine.error

    async def move(self, customers: Mapping[CustomerId, Email]) -> None:
        """Bring customers whose address changed to the contact they belong to now, and these contacts.

        No work of the contacts concerned may be at the sender meanwhile.
        """
        await self._move(customers, self._now())

    async def _move(self, customers: Mapping[CustomerId, Email], moment: datetime) -> None:
        """Move customers; contacts that others belong to now are brought, with all orders of the movers."""
        if customers and (contacts := await self._moves.move(customers)):
            orders = frozenset(await self._ports.orders.paid_by(customers))
            await self.upsert([Need(contact, DAY1, moment, orders) for contact in contacts])

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Serve those who wait in `ensure` while this lasts."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._look_at_each)
            for _ in range(WRITES_AT_ONCE):
                group.start_soon(self._write_what_differs)
            yield
            group.cancel_scope.cancel()

    async def _look_at_each(self) -> None:
        """Look at the contacts that are waited for; those that are as they should be go on at once."""
        while True:
            await self._work_added.wait_until(lambda: self._waiting)
            taken, self._waiting = self._waiting, {}
            try:
                await self._look(taken)
            except Exception as error:  # noqa: BLE001  it is raised where it is waited for
                for each in taken.values():
                    each.end(error)

    async def _look(self, taken: Mapping[ContactId, Waiting]) -> None:
        rows = await self._ports.links.contacts(taken)
        accounts = await self._accounts(rows)
        wanted = {each.id: each for each in await self._wanted(rows, accounts)}
        for linked in rows:
            each = taken[linked.contact.id]
            each.linked, each.wanted = linked, wanted.get(linked.contact.id)
            each.must_unsubscribe = self._is_let_go(linked, accounts)
            each.is_erased = _is_erased(linked, accounts)
            if each.wanted is None:
                await self._reject_if_nobodys(linked)
                each.end()
            else:
                self._unwritten[linked.contact.id] = each
        self._work_added.notify()

    async def _write_what_differs(self) -> None:
        """Write contacts that differ, as many as an import takes at a time."""
        while True:
            await self._work_added.wait_until(lambda: self._unwritten)
            part = self._take_unwritten()
            error = await self._failure(part)
            for each in part:
                each.end(error)

    def _take_unwritten(self) -> list[Waiting]:
        """Take what goes together: of a few, those that need no import do not wait for one."""
        found = list(self._unwritten.values())
        if len(found) < self._settings.import_min_contacts:
            found = [each for each in found if each.needs_import is found[0].needs_import]
        part = found[: self._writes.fitting([each.wanted for each in found if each.wanted])]
        for each in part:
            del self._unwritten[each.need.contact.id]
        return part

    async def _failure(self, part: Collection[Waiting]) -> Exception | None:
        newest = max(each.need.inserted_at for each in part)
        try:
            wanted = [each.wanted for each in part if each.wanted]
            has_new = any(each.needs_import for each in part)
            await self._writes.write(wanted, exclude_automations=self._is_history(newest))
            if has_new:
                await self._writes.learn_ids()
        except Exception as error:  # noqa: BLE001  it is raised where it is waited for
            return error
        return None

    async def upsert(self, needs: Collection[Need]) -> None:
        """Bring these contacts, then their orders, then back to the list who wants to come back."""
        by_id = {need.contact.id: self._with_doubts(need) for need in needs}
        if not by_id:
            return
        rows = await self._ports.links.contacts(by_id)
        accounts = await self._accounts(rows)
        await self._let_some_go(rows, accounts)
        for wanted, newest in self._parts(await self._wanted(rows, accounts), by_id):
            await self._writes.write(wanted, exclude_automations=self._is_history(newest))
        for linked in rows:
            await self._reject_if_nobodys(linked)
        await self._complete(rows, by_id)

    def _with_doubts(self, need: Need) -> Need:
        """Return a need with what is to be looked at besides."""
        return need._replace(orders=need.orders | self._doubted.pop(need.contact.id, set()))

    async def _reject_if_nobodys(self, linked: ContactRecord) -> None:
        """Reject a contact that was not written: nobody of its address is left at the shop."""
        if linked.contact.status is ContactStatus.NEW:
            await self._ports.links.reject(linked.contact.id, Reason.NO_CONTACT)

    async def _complete(self, rows: Collection[ContactRecord], needs: Mapping[ContactId, Need]) -> None:
        """Bring orders, then back to the list who wants to come back; `rows` are as they were before."""
        await self._bring_orders(rows, needs)
        await self._resubscribe([row.contact.id for row in rows if needs[row.contact.id].resubscribes])
        for linked in rows:
            contact = linked.contact
            contact.synced_to = max(contact.synced_to, needs[contact.id].position)

    def _parts(
        self, wanted: list[ContactChange], needs: Mapping[ContactId, Need]
    ) -> Iterable[tuple[list[ContactChange], datetime]]:
        """Yield an import's worth at a time, with when the newest of its entries was inserted."""
        while wanted:
            size = self._writes.fitting(wanted)
            part, wanted = wanted[:size], wanted[size:]
            yield part, max(needs[each.id].inserted_at for each in part)

    async def _bring_orders(self, rows: Iterable[ContactRecord], needs: Mapping[ContactId, Need]) -> None:
        """Bring the orders that entries name, and all of those who were not linked before."""
        linked = [row for row in rows if row.contact.status is ContactStatus.LINKED]
        orders: set[OrderId] = set()
        orders.update(*(needs[row.contact.id].orders for row in linked))
        newcomers = [customer for row in linked if row.fingerprint is None for customer in row.customers]
        if newcomers:
            orders.update(await self._ports.orders.paid_by(newcomers))
        if orders:
            await self._ports.order_delivery.upsert(orders)

    async def _resubscribe(self, ids: Collection[ContactId]) -> None:
        """Put contacts on the list again, if all of their accounts want e-mails by now.

        They are compared once more before: who has opted in only since is to be known as one who did, or the
        next opt-out would be no difference.
        """
        rows = await self._ports.links.contacts(ids) if ids else []
        linked = [row for row in rows if row.contact.status is ContactStatus.LINKED]
        accounts = await self._accounts(linked) if linked else {}
        for wanted in await self._wanted(linked, accounts):
            await self._writes.write_one(wanted)
        for each in linked:
            counted = self._countable(each, accounts)
            if counted and wants_emails(counted):
                await self._writes.set_list(each, subscribed=True)

    # --- what is wanted ---

    def _is_settled(self, contact: Contact, position: Position) -> bool:
        is_known = contact.status is ContactStatus.LINKED and contact.id not in self._doubted
        return is_known and (position <= self._floor or position <= contact.synced_to)

    def _comes_back(self, delivery: Delivery) -> bool:
        age = self._now() - delivery.inserted_at
        is_asked = delivery.line is not None and delivery.line.slug == RESUBSCRIBED
        return is_asked and age < timedelta(seconds=self._settings.resubscribe_max_age_s)

    def _is_history(self, inserted_at: datetime) -> bool:
        return self._now() - inserted_at > timedelta(seconds=self._settings.realtime_max_age_s)

    async def _accounts(self, rows: Iterable[ContactRecord]) -> dict[CustomerId, CustomerAccount]:
        ids = {customer for linked in rows for customer in linked.customers}
        return {account.customer.id: account for account in await self._ports.customers.accounts(ids)}

    async def _wanted(
        self, rows: Iterable[ContactRecord], accounts: Mapping[CustomerId, CustomerAccount]
    ) -> list[ContactChange]:
        """Return the contacts that ActiveCampaign does not show as these accounts have them."""
        today = self._now().astimezone(ZoneInfo(self._site.timezone)).date()
        wanted, newcomers = [], {}
        for linked in rows:
            contact = linked.contact
            counted = self._countable(linked, accounts)
            if counted and not contact.is_refused:
                is_new = contact.status is not ContactStatus.LINKED
                each = ContactChange(linked, desired_contact(contact.email, counted, is_new, today))
                if is_new and linked.ac_id is None:
                    newcomers[contact.id] = [account.customer.id for account in counted]
                if fingerprint(each.desired) != linked.fingerprint and not self._writes.is_refused(each):
                    wanted.append(each)
        return await self._with_tags(wanted, newcomers) if newcomers else wanted

    async def _with_tags(
        self, wanted: list[ContactChange], newcomers: Mapping[ContactId, list[CustomerId]]
    ) -> list[ContactChange]:
        """Give those whom ActiveCampaign does not have yet the week tag they come with.

        One whose first import was lost keeps the tag it was sent with, lest it gets two.
        """
        customers = {customer for mine in newcomers.values() for customer in mine}
        statuses = await self._ports.weeks.statuses(customers, await self._ports.weeks.current())
        tags = {
            contact: week_tag(statuses.get(customer, set()) for customer in mine)
            for contact, mine in newcomers.items()
        }
        return [
            ContactChange(each.record, replace(each.desired, tag=each.record.tag or tags[each.id]))
            if each.id in tags
            else each
            for each in wanted
        ]

    def _countable(
        self, linked: ContactRecord, accounts: Mapping[CustomerId, CustomerAccount]
    ) -> list[CustomerAccount]:
        mine = (accounts[customer] for customer in linked.customers if customer in accounts)
        return countable(mine, self._site.id, linked.contact.email)

    async def _let_some_go(
        self, rows: Iterable[ContactRecord], accounts: Mapping[CustomerId, CustomerAccount]
    ) -> None:
        for linked in rows:
            if self._is_let_go(linked, accounts):
                await self._let_go(linked, is_erased=_is_erased(linked, accounts))

    def _is_let_go(self, linked: ContactRecord, accounts: Mapping[CustomerId, CustomerAccount]) -> bool:
        """Return whether all customers of a contact are erased, or left it without an address, opted out."""
        if not linked.customers or self._countable(linked, accounts):
            return False
        return must_unsubscribe([accounts[customer] for customer in linked.customers if customer in accounts])

    async def _let_go(self, linked: ContactRecord, *, is_erased: bool) -> None:
        """Take a contact off the list that nobody has any more; it loses its week tag too."""
        if linked.contact.status is ContactStatus.LINKED:
            if is_erased:
                await self._ports.links.note_erased(linked.contact.id)
            if linked.tag is not None:
                await self._ports.due.add([linked.contact.id])
            if not linked.unsubscribed:
                await self._writes.set_list(linked, subscribed=False)


def _is_erased(linked: ContactRecord, accounts: Mapping[CustomerId, CustomerAccount]) -> bool:
    """Return whether the shop erased all customers of a contact; of some, the rows are gone too."""
    return all(accounts[each].customer.erased for each in linked.customers if each in accounts)


def _addresses(customers: Iterable[Customer]) -> dict[CustomerId, Email]:
    return {
        customer.id: customer.email
        for customer in customers
        if customer.email and not customer.erased and not customer.is_test
    }
