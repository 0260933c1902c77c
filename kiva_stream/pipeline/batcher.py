"""Batcher: groups what must be delivered per contact, and keeps log order per contact.

The ordering key is the contact at ActiveCampaign, not the customer: two accounts of one address share a
lane. A lane has at most one batch at the sender; what gathers meanwhile is its next batch. When a customer's
address changes, the lanes are drained before the contact is moved: what was read before goes to the old
address, what comes after to the new one, and where two contacts become one, its order stays log order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from kiva_stream.model.classifications import Classification, Event, Noise, Reject, SyncOnly
from kiva_stream.model.contacts import Contact, ContactStatus
from kiva_stream.model.customers import Customer
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Batch, Delivery
from kiva_stream.model.entries import Entry, ReopenedEntries
from kiva_stream.model.ids import CustomerId, Email, OrderId
from kiva_stream.model.outcomes import CONTACT_REASONS, PARKED, SYNCED, Outcome, Reason, Span
from kiva_stream.model.pages import ClassifiedPage
from kiva_stream.model.positions import Position
from kiva_stream.pipeline.duplicates import Duplicates
from kiva_stream.pipeline.lanes import Lanes
from kiva_stream.pipeline.revivals import Revivals, Revived
from kiva_stream.ports.stages import ContactDelivery, Outcomes
from kiva_stream.ports.state import Links
from kiva_stream.primitives.streams import put
from kiva_stream.sync.desired_contact import customers_to_move

FOR_A_CONTACT = (Event, SyncOnly)  # the classifications
SKIPPED = {reason: Outcome("skipped", reason) for reason in Reason}


class _Look(NamedTuple):
    """A customer whose contact is to be looked at, though no entry asks for it."""

    customer: CustomerId
    at: datetime
    orders: frozenset[OrderId] = frozenset()


class Batcher:
    """Gives each classified entry its outcome, or a place in its contact's lane."""

    def __init__(
        self,
        links: Links,
        arrivals: ContactDelivery,
        outcomes: Outcomes,
        revivals: Revivals,
        duplicates: Duplicates,
        lanes: Lanes,
    ) -> None:
        self._links = links
        self._arrivals = arrivals
        self._outcomes = outcomes
        self._revivals = revivals
        self._duplicates = duplicates
        self._lanes = lanes

    def remember(self, classifications: Iterable[tuple[Entry, Classification]]) -> None:
        """Take in the entries before the checkpoint, for duplicates only."""
        for entry, classification in classifications:
            self._is_repeat(entry, classification)

    async def run(
        self, pages: MemoryObjectReceiveStream[ClassifiedPage], batches: MemoryObjectSendStream[Batch]
    ) -> None:
        """Send on the batches of each page, then close the stream.

        Raises AccountRefused, SourceError, CheckpointError.
        """
        async with pages, batches:
            async for page in pages:
                contacts = await self._contacts(_addresses(page))
                for revived in await self._revivals.of(contacts):
                    self._place_revived(revived, contacts)
                await self._place_looks(page, contacts)
                if page.reopened is not None:
                    await self._place_asides(page.reopened, page.classifications, contacts)
                else:
                    for entry, classification in page.classifications:
                        self._place(page.span, entry, classification, contacts)
                self._outcomes.request_commit()
                for batch in self._lanes.ready():
                    await put(batches, batch)

    async def _contacts(self, addresses: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        """Return the customers' contacts, after those whose address changed have moved.

        Before, their lanes run empty: a contact may be on its way to ActiveCampaign under the old address.
        """
        places = await self._links.of_customers(addresses)
        movers = {customer for customer, place in places.items() if place.email != addresses[customer]}
        if movers:
            found = [await self._links.find_by_email(addresses[customer]) for customer in movers]
            joined = {linked.contact.id for linked in found if linked}
            await self._lanes.idle({places[customer].id for customer in movers} | joined)
        contacts = await self._links.link(addresses)
        leaving = customers_to_move(contacts, addresses)
        if not leaving:
            return contacts
        await self._arrivals.move(leaving)
        return await self._links.link(addresses)

    def _place(
        self, span: Span, entry: Entry, classification: Classification, contacts: dict[CustomerId, Contact]
    ) -> None:
        repeat = self._is_repeat(entry, classification)
        notes = (*entry.notes, *classification.notes) if entry.notes else classification.notes
        outcome = self._outcomes.earlier_outcome(entry.position)
        if outcome is None:
            self._decide(span, entry, classification, notes, contacts, is_repeat=repeat)
        elif outcome == PARKED:
            span.detach()
            self._reopen(entry, classification, None, contacts)
        else:
            span.resolve(
                outcome, line=_line(classification) if outcome.kind == "delivered" else None, notes=notes
            )
            if outcome.why in CONTACT_REASONS and self._outcomes.may_reopen(entry.position):
                self._place_revived(Revived(entry, classification, Reason(outcome.why)), contacts)

    def _decide(
        self,
        span: Span,
        entry: Entry,
        classification: Classification,
        notes: tuple[str, ...],
        contacts: dict[CustomerId, Contact],
        *,
        is_repeat: bool = False,
    ) -> None:
        """Give an entry its outcome, or a place in its contact's lane."""
        if isinstance(classification, Noise):
            span.resolve(SKIPPED[classification.why], notes=notes)
        elif isinstance(classification, Reject):
            self._outcomes.record_dead(
                span, DeadLetter(entry.position, classification.why, entry.customer_id), notes
            )
        elif is_repeat:
            span.resolve(SKIPPED[Reason.DUPLICATE], notes=notes)
        else:
            self._deliver(span, entry, classification, notes, contacts)

    def _deliver(
        self,
        span: Span,
        entry: Entry,
        classification: Event | SyncOnly,
        notes: tuple[str, ...],
        contacts: dict[CustomerId, Contact],
    ) -> None:
        delivery = _delivery(span, entry, classification, notes)
        contact = contacts[delivery.customer]
        is_linked = contact.status is ContactStatus.LINKED
        if delivery.line is None and is_linked and self._arrivals.need(Batch(contact, [delivery])) is None:
            span.resolve(SYNCED, notes=notes)
        else:
            self._lanes.add(contact, delivery)

    def _place_revived(self, revived: Revived, contacts: dict[CustomerId, Contact]) -> None:
        """Give a dead entry whose customer has a contact now another outcome, before newer entries."""
        entry, classification, why = revived
        contact = contacts.get(entry.customer_id) if entry.customer_id else None
        if contact and not contact.is_refused and isinstance(classification, FOR_A_CONTACT):
            self._reopen(entry, classification, why, contacts)

    async def _place_asides(
        self,
        reopened: ReopenedEntries,
        classifications: Iterable[tuple[Entry, Classification]],
        contacts: dict[CustomerId, Contact],
    ) -> None:
        """Give entries outside the log's order their outcome; those that the log lost are no customer's."""
        left = set(await self._outcomes.unresolved(reopened.positions, reopened.dead_letters))
        for entry, classification in classifications:
            if entry.position in left:
                why = reopened.dead_letters.get(entry.position)
                self._reopen(entry, classification, why, contacts, is_parked=reopened.are_parked)
        for position in left - {entry.position for entry, _ in classifications}:
            if span := self._outcomes.reopen(position, reopened.dead_letters.get(position)):
                span.resolve(SKIPPED[Reason.ERASED])

    def _reopen(
        self,
        entry: Entry,
        classification: Classification,
        was_dead: Reason | None,
        contacts: dict[CustomerId, Contact],
        *,
        is_parked: bool = False,
    ) -> None:
        """Give an entry outside the log's order its outcome, or a place in its contact's lane."""
        contact = contacts.get(entry.customer_id) if entry.customer_id else None
        span = self._outcomes.reopen(entry.position, was_dead, is_parked=is_parked)
        if span is None:
            return
        if contact and isinstance(classification, FOR_A_CONTACT):
            self._arrivals.mark_dirty(contact, [classification.order] if classification.order else [])
        notes = () if was_dead else (*entry.notes, *classification.notes)  # they were counted when it died
        self._decide(span, entry, classification, notes, contacts)

    async def _place_looks(self, page: ClassifiedPage, contacts: Mapping[CustomerId, Contact]) -> None:
        """Have the contacts of changed customers looked at, and those that the erased may have had."""
        looks = [*_erased(page), *(_Look(each.customer.id, *each[1:]) for each in page.changes)]
        without = {look.customer for look in looks} - contacts.keys()
        found = {**contacts, **(await self._links.of_customers(without) if without else {})}
        for look in looks:
            if contact := found.get(look.customer):
                self._arrivals.mark_dirty(contact, look.orders)
                self._lanes.add(contact, _delivery_of(look, page.span.last))

    def _is_repeat(self, entry: Entry, classification: Classification) -> bool:
        if isinstance(classification, Event):
            return self._duplicates.is_repeat(entry)
        self._duplicates.pass_over()
        return False


def _line(classification: Classification) -> int | None:
    return classification.line.line if isinstance(classification, Event) else None


def _addresses(page: ClassifiedPage) -> dict[CustomerId, Email]:
    """Return the customers of a page whose contact is needed, with their addresses."""
    changed = {
        change.customer.id: change.customer.email for change in page.changes if _has_contact(change.customer)
    }
    named = {
        entry.customer.id: entry.customer.email
        for entry, classification in page.classifications
        if isinstance(classification, FOR_A_CONTACT) and entry.customer
    }
    return {customer: email for customer, email in {**changed, **named}.items() if email}


def _has_contact(customer: Customer) -> bool:
    return not customer.erased and not customer.is_test


def _erased(page: ClassifiedPage) -> list[_Look]:
    """Return the customers who, as entries say, are erased by now: a row that is gone shows no change."""
    moments = {
        entry.customer_id: entry.inserted_at
        for entry, classification in page.classifications
        if isinstance(classification, Noise) and classification.why is Reason.ERASED and entry.customer_id
    }
    return [_Look(customer, at) for customer, at in moments.items()]


def _delivery_of(look: _Look, position: Position) -> Delivery:
    """Return what has a contact looked at, which no outcome is counted of."""
    return Delivery(position, look.at, Span(position, 1), look.customer, line=None, is_entry=False)


def _delivery(span: Span, entry: Entry, classification: Event | SyncOnly, notes: tuple[str, ...]) -> Delivery:
    assert entry.customer_id is not None  # noqa: S101  an event or sync-only entry has a customer
    line, eventdata = (
        (classification.line, classification.eventdata) if isinstance(classification, Event) else (None, "")
    )
    place = entry.position, entry.inserted_at, span, entry.customer_id
    return Delivery(*place, line, eventdata, notes, classification.order)
