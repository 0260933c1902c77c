"""Batcher: groups deliveries per contact, and keeps log order per contact.

The ordering key is the contact at ActiveCampaign, not the customer: two customers of one address share a
lane. A lane has at most one batch at the sender; what gathers meanwhile is its next batch. When a
customer's address changes, the lanes of the old and the new contact run empty before the customer is moved.
So entries read before that are delivered to the old address, and later ones to the new address. Where two
contacts become one, their entries stay in log order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec.structs import replace

from kiva_stream.model.classifications import FOR_A_CONTACT, Classification, Event, Noise, Reject, SyncOnly
from kiva_stream.model.contacts import Contact
from kiva_stream.model.customers import contact_emails
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Batch, Delivery
from kiva_stream.model.entries import Entry, ReopenedEntries
from kiva_stream.model.ids import ContactId, CustomerId, Email
from kiva_stream.model.outcomes import CONTACT_REASONS, PARKED, SYNCED, Outcome, Reason, Span
from kiva_stream.model.pages import ClassifiedPage
from kiva_stream.model.positions import Position
from kiva_stream.pipeline.contact_checks import ContactCheck, checks_of
from kiva_stream.pipeline.duplicates import Duplicates
from kiva_stream.pipeline.earlier_runs import EarlierRuns
from kiva_stream.pipeline.held_contacts import DueEntries, HeldEntries
from kiva_stream.pipeline.lanes import Lanes
from kiva_stream.pipeline.reopened_spans import ReopenedSpans
from kiva_stream.pipeline.revivals import Revivals, can_be_revived
from kiva_stream.ports.stages import ContactDelivery, EntryOutcomes
from kiva_stream.ports.state import Links
from kiva_stream.primitives.streams import put
from kiva_stream.sync.desired_contact import customers_to_move

LONG_AGO = datetime.min.replace(tzinfo=UTC)  # of a check that starts no automations by itself
SKIPPED = {reason: Outcome("skipped", reason) for reason in Reason}

Contacts = Mapping[CustomerId, Contact]


class Batcher:
    """Gives each classified entry its outcome, or adds its delivery to its contact's lane."""

    def __init__(
        self,
        links: Links,
        *,
        contact_delivery: ContactDelivery,
        outcomes: EntryOutcomes,
        earlier: EarlierRuns,
        reopened: ReopenedSpans,
        revivals: Revivals,
        held: HeldEntries,
        duplicates: Duplicates,
        lanes: Lanes,
    ) -> None:
        self._links = links
        self._contact_delivery = contact_delivery
        self._outcomes = outcomes
        self._earlier = earlier
        self._reopened = reopened
        self._revivals = revivals
        self._held = held
        self._duplicates = duplicates
        self._lanes = lanes

    async def run(
        self, pages: MemoryObjectReceiveStream[ClassifiedPage], batches: MemoryObjectSendStream[Batch]
    ) -> None:
        """Send on the batches of each page, then close the stream.

        Raises AccountRefused, SourceError, CheckpointError.
        """
        async with pages, batches:
            async for page in pages:
                asked = set(self._contact_delivery.take_due())
                contacts = await self._contacts(_addresses(page))
                # What is parked comes before the page's own entries: also of those who have moved by now.
                if due := await self._held.due():
                    await self._try_again(due)
                    asked.difference_update(check.contact.id for check in due.checks)
                    contacts = await self._contacts(_addresses(page))
                await self._held.move_events(page, contacts)
                await self._check_due(asked, page.span.last)
                await self._retry_refused(page, contacts)
                # Older entries come first: dead letters that can be delivered, before the page's own entries.
                for entry, classification, was_dead in await self._revivals.of(contacts):
                    self._reopen(entry, classification, contacts, was_dead=was_dead)
                await self._check_contacts(page, contacts)
                if page.reopened is not None:
                    await self._reopen_all(page.reopened, page.classifications, contacts)
                else:
                    for entry, classification in page.classifications:
                        self._take(page.span, entry, classification, contacts=contacts)
                self._outcomes.request_commit()
                for batch in self._lanes.ready():
                    await put(batches, batch)

    async def _try_again(self, due: DueEntries) -> None:
        """Have held contacts tried again, with their entries, before newer ones of theirs."""
        contacts = await self._contacts(_addresses(due.page))
        await self._held.move_events(due.page, contacts)
        for check in due.checks:
            self._contact_delivery.mark_dirty(check.contact, check.orders)
            self._lanes.add(check.contact, check.delivery)
        await self._reopen_all(due.reopened, due.page.classifications, contacts)

    async def _contacts(self, addresses: Mapping[CustomerId, Email]) -> Contacts:
        """Return the customers' contacts, after the customers whose address changed have moved.

        | the customer has                                     | and moves                               |
        |------------------------------------------------------|-----------------------------------------|
        | no contact                                           | not: `link` creates the contact         |
        | a contact that ActiveCampaign never confirmed        | by `link`, which only changes the state |
        | a contact that ActiveCampaign has by the old address | by `move`, which changes it there too   |
        """
        # 1. The lanes that a customer leaves or joins run empty: a batch may be under way by the old address.
        #    `idle` looks only at batches that `run` sent on. All batches of earlier pages are among them, and
        #    this page has put nothing into a lane yet.
        known = await self._links.of_customers(addresses)
        movers = {customer for customer, contact in known.items() if contact.email != addresses[customer]}
        if movers:
            found = [await self._links.find_by_email(addresses[customer]) for customer in movers]
            joined = {linked.contact.id for linked in found if linked}
            await self._lanes.idle({known[customer].id for customer in movers} | joined)
            self._held.customers_moved({known[customer].id for customer in movers}, joined)
        # 2. Contacts that are missing or were never confirmed.
        contacts = await self._links.link(addresses)
        # 3. Contacts that ActiveCampaign has; `link` returns where their customers are now.
        if leaving := customers_to_move(contacts, addresses):
            await self._contact_delivery.move(leaving)
            contacts = await self._links.link(addresses)
        return contacts

    async def _retry_refused(self, page: ClassifiedPage, contacts: Contacts) -> None:
        """Have refused contacts tried again: those whose rows changed, and those that a replay is about."""
        asked = {contacts[each].id: contacts[each] for each in _with_replay_asked(page) & contacts.keys()}
        refused = {each.id: each for each in contacts.values() if each.is_refused and each.id not in asked}
        if asked:
            await self._contact_delivery.retry_refused(list(asked.values()), is_asked=True)
        if refused:
            await self._contact_delivery.retry_refused(list(refused.values()), is_asked=False)

    def _take(self, span: Span, entry: Entry, classification: Classification, *, contacts: Contacts) -> None:
        """Give an entry in log order its outcome, or add its delivery.

        | the state has of an earlier run       | the entry                                               |
        |---------------------------------------|---------------------------------------------------------|
        | nothing (skipped or synced entries    | is decided                                              |
        | have no row there)                    |                                                         |
        | a parked entry                        | leaves its span, and is decided outside the log's order |
        | a dead letter with one of             | keeps the outcome in its span; it is reopened too, if   |
        | CONTACT_REASONS, not discarded        | it can be revived (`can_be_revived`)                    |
        | another outcome                       | keeps the outcome                                       |
        """
        # This is called for every entry, since later ones are compared with it.
        is_repeat = self._duplicates.compare_and_add(entry, classification)
        outcome = self._earlier.take_outcome(entry.position)
        notes = (*entry.notes, *classification.notes) if entry.notes else classification.notes
        if outcome is None:
            self._decide(span, entry, classification, notes=notes, contacts=contacts, is_repeat=is_repeat)
        elif outcome == PARKED:
            span.detach()
            self._reopen(entry, classification, contacts)
        else:
            line = classification.event_line.number if isinstance(classification, Event) else None
            span.resolve(outcome, event_line=line if outcome.kind == "delivered" else None, notes=notes)
            if (
                outcome.why in CONTACT_REASONS
                and self._earlier.may_reopen(entry.position)
                and can_be_revived(entry, classification, contacts)
            ):
                self._reopen(entry, classification, contacts, was_dead=Reason(outcome.why))

    def _decide(
        self,
        span: Span,
        entry: Entry,
        classification: Classification,
        *,
        notes: tuple[str, ...],
        contacts: Contacts,
        is_repeat: bool = False,
        is_reopened: bool = False,
    ) -> None:
        """Give an entry its outcome in a span, or add its delivery to its contact's lane."""
        if isinstance(classification, Noise):
            span.resolve(SKIPPED[classification.why], notes=notes)
        elif isinstance(classification, Reject):
            dead_letter = DeadLetter(entry.position, classification.why, entry.customer_id)
            self._outcomes.record_dead(span, dead_letter, notes)
        elif is_repeat:
            span.resolve(SKIPPED[Reason.DUPLICATE], notes=notes)
        else:
            delivery = _delivery(span, entry, classification, notes=notes)
            if is_reopened:
                delivery = replace(delivery, is_reopened=True)
            contact = contacts[
                delivery.customer
            ]  # the classifier rejects entries whose customer has no address
            if (  # it is sync-only, and its contact shows by now what it may have changed
                delivery.event_line is None
                and contact.is_linked
                and self._contact_delivery.need(Batch(contact, [delivery])) is None
            ):
                span.resolve(SYNCED, notes=notes)
            else:
                self._lanes.add(contact, delivery)

    async def _reopen_all(
        self,
        reopened: ReopenedEntries,
        classifications: Iterable[tuple[Entry, Classification]],
        contacts: Contacts,
    ) -> None:
        """Reopen the entries of a page; one that the log has lost is skipped as erased."""
        reasons, is_late = reopened.to_reopen, reopened.are_late
        dead_letters = [position for position, why in reasons.items() if why]
        reopenable = set(await self._outcomes.reopenable(reasons.keys(), dead_letters))
        for entry, classification in classifications:
            if (at := entry.position) in reopenable:
                self._reopen(entry, classification, contacts, was_dead=reasons[at], is_late=is_late)
        for lost in reopenable.difference(entry.position for entry, _ in classifications):
            if span := self._reopened.reopen(lost, reasons[lost]):
                span.resolve(SKIPPED[Reason.ERASED])

    def _reopen(
        self,
        entry: Entry,
        classification: Classification,
        contacts: Contacts,
        *,
        was_dead: Reason | None = None,
        is_late: bool = False,
    ) -> None:
        """Decide about an entry outside the log's order, in a span of its own, unless it has one already.

        It is not compared with other entries: duplicates are recognized in log order only.
        """
        span = self._reopened.reopen(entry.position, was_dead, is_late=is_late)
        if span is None:
            return
        # Its position may lie below `Contact.synced_to`: then `need` would not see that it changed something.
        contact = contacts.get(entry.customer_id) if entry.customer_id else None
        if contact and isinstance(classification, FOR_A_CONTACT):
            self._contact_delivery.mark_dirty(contact, [classification.order] if classification.order else [])
        # The notes of a dead letter were counted when it became one.
        notes = (*entry.notes, *classification.notes) if was_dead is None else ()
        self._decide(span, entry, classification, notes=notes, contacts=contacts, is_reopened=True)

    async def _check_due(self, contacts: Collection[ContactId], position: Position) -> None:
        """Add a check to the lane of each of these contacts, which are to be tried now."""
        for record in await self._links.records(contacts) if contacts else ():
            if record.customers:
                self._contact_delivery.mark_dirty(record.contact, ())
                check = ContactCheck(record.customers[0], LONG_AGO)
                self._lanes.add(record.contact, check.delivery(position))

    async def _check_contacts(self, page: ClassifiedPage, contacts: Contacts) -> None:
        """Add the contact checks that a page asks for to the lanes of those who have a contact.

        `contacts` lacks customers who are erased, tests or without an address; they may have a contact still.
        """
        checks = checks_of(page)
        without = {check.customer for check in checks} - contacts.keys()
        found = {**contacts, **(await self._links.of_customers(without) if without else {})}
        for check in checks:
            if contact := found.get(check.customer):
                self._contact_delivery.mark_dirty(contact, check.orders)
                self._lanes.add(contact, check.delivery(page.span.last))


def _addresses(page: ClassifiedPage) -> dict[CustomerId, Email]:
    """Return the customers of a page whose contact is needed, with their addresses."""
    changed = contact_emails(change.customer for change in page.changes)
    named = {
        entry.customer.id: entry.customer.email
        for entry, classification in page.classifications
        if isinstance(classification, FOR_A_CONTACT) and entry.customer
    }
    return {customer: email for customer, email in {**changed, **named}.items() if email}


def _with_replay_asked(page: ClassifiedPage) -> set[CustomerId]:
    """Return the customers of the dead letters of a page, all of which are to be replayed."""
    if page.reopened is None:
        return set()
    reasons = page.reopened.to_reopen
    named = (entry for entry, _ in page.classifications if reasons[entry.position] is not None)
    return {entry.customer_id for entry in named if entry.customer_id is not None}


def _delivery(
    span: Span, entry: Entry, classification: Event | SyncOnly, *, notes: tuple[str, ...]
) -> Delivery:
    assert entry.customer_id is not None  # noqa: S101  an event or sync-only entry has a customer
    event = classification if isinstance(classification, Event) else None
    line, eventdata = (event.event_line, event.eventdata) if event else (None, "")
    where = entry.position, entry.inserted_at, span, entry.customer_id
    return Delivery(*where, line, eventdata, notes, classification.order)
