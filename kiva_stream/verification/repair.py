"""Repair: marks a contact or an order as not confirmed in the state, and upserts it again.

No contact is subscribed again: one that ActiveCampaign lost is created off the list. Events are sent only
on request, and only those that their contact's log would list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from kiva_stream.errors import AddressTaken, Rejected, UnknownOutcome
from kiva_stream.model.contacts import Contact, ContactRecord
from kiva_stream.model.customers import contact_emails
from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.observability.logs import log
from kiva_stream.ports.destination import Events
from kiva_stream.runtime.working_site import WorkingSite
from kiva_stream.state.evidence import Evidence, SiteProgress
from kiva_stream.sync.desired_contact import customers_to_move
from kiva_stream.verification.discrepancies import Discrepancy, DiscrepancyKind, ExpectedEvent
from kiva_stream.verification.expected_state import ExpectedState

OF_CONTACT = frozenset(
    {
        DiscrepancyKind.MOVED,
        DiscrepancyKind.NO_CONTACT,
        DiscrepancyKind.CONTACT_ID,
        DiscrepancyKind.ADDRESS,
        DiscrepancyKind.FIELDS,
        DiscrepancyKind.LEFT_OUT,
        DiscrepancyKind.LIST,
        DiscrepancyKind.TAG,
    }
)


class Repair:
    """Closes the discrepancies of one site.

    Every call raises SourceError, CheckpointError, AccountRefused, TryLater.
    """

    def __init__(
        self, site: WorkingSite, *, evidence: Evidence, expected_state: ExpectedState, events: Events
    ) -> None:
        self._site = site
        self._evidence = evidence
        self._expected_state = expected_state
        self._events = events

    # --- contacts, tags and orders ---

    async def close(self, discrepancies: Collection[Discrepancy]) -> None:
        """Close the discrepancies of contacts, tags and orders, as far as they can be closed."""
        for each in discrepancies:
            if each.kind is DiscrepancyKind.NO_LINK and each.customer is not None:
                await self._upsert_customer(each.customer)
        for contact, mine in _by_contact(discrepancies).items():
            kinds = {each.kind for each in mine}
            (record,) = await self._site.links.records([contact])
            if DiscrepancyKind.NO_CUSTOMER in kinds:
                await self._site.contacts.dissolve([record])
            elif DiscrepancyKind.REFUSED in kinds:
                await self._site.contacts.retry_refused([record.contact], is_asked=True)
                await self._upsert(record.contact, ())
            else:
                await self._close_of_contact(record, kinds, {each.order for each in mine if each.order})

    async def _upsert_customer(self, customer: CustomerId) -> None:
        """Upsert the contact of a customer who has none in the state; ActiveCampaign may have it already."""
        emails = await self._emails([customer])
        if emails:
            contact = (await self._site.links.link(emails))[customer]
            await self._site.look_up_id(contact)
            await self._upsert(contact, ())

    async def _close_of_contact(
        self, record: ContactRecord, kinds: Collection[DiscrepancyKind], orders: set[OrderId]
    ) -> None:
        contact = record.contact
        if OF_CONTACT & set(kinds):
            await self._correct_identity(record, kinds)
            await self._evidence.unconfirm_contact(contact.id)
        if DiscrepancyKind.NO_CONTACT in kinds:  # its orders went with it
            orders = orders | {order.id for order in await self._site.shop.orders.of(record.customers)}
        await self._evidence.unconfirm_orders(orders)
        await self._upsert(contact, orders)

    async def _correct_identity(self, record: ContactRecord, kinds: Collection[DiscrepancyKind]) -> None:
        """Correct a contact's id, its address and its customers."""
        if DiscrepancyKind.CONTACT_ID in kinds:
            await self._site.look_up_id(record.contact)
        if DiscrepancyKind.ADDRESS in kinds:
            await self._rename(record)
        if DiscrepancyKind.MOVED in kinds:
            emails = await self._emails(record.customers)
            await self._site.contacts.move(customers_to_move(await self._site.links.link(emails), emails))

    async def _rename(self, record: ContactRecord) -> None:
        """Give a contact its address back; if another contact has it by now, link that one instead."""
        contact = record.contact
        try:
            if record.ac_id is not None:
                await self._site.account.rename(record.ac_id, contact.email)
        except AddressTaken:
            await self._site.look_up_id(contact)
        except Rejected as error:
            log.warning("a contact's address is refused", contact=contact.id, said=error.reply)

    async def _upsert(self, contact: Contact, orders: Collection[OrderId]) -> None:
        await self._site.upsert_as_history(contact, orders)
        if contact.is_linked:
            (record,) = await self._site.links.records([contact.id])
            if record.ac_id is None:
                await self._site.look_up_id(contact)
            await self._site.tags.sync_one(contact.id)

    async def _emails(self, customers: Collection[CustomerId]) -> dict[CustomerId, Email]:
        return contact_emails(await self._site.shop.customers.by_id(customers))

    # --- events ---

    async def resend(self, discrepancies: Collection[Discrepancy], progress: SiteProgress) -> None:
        """Send the missing events that their contact's log would list, those of a contact in log order."""
        missing = _by_contact(each for each in discrepancies if each.kind is DiscrepancyKind.NO_EVENT)
        for contact, mine in missing.items():
            positions = {each.position for each in mine}
            (expected,) = await self._expected_state.of(await self._site.links.records([contact]), progress)
            events = [each for each in expected.events if each.position in positions and each.eventdata]
            try:
                for each in events:
                    await self._resend(expected.record.contact, each)
            except (Rejected, UnknownOutcome) as error:  # later events of the contact must not overtake it
                log.warning("a missing event was not sent", contact=contact, why=str(error))

    async def _resend(self, contact: Contact, event: ExpectedEvent) -> None:
        await self._events.send(contact.email, event.name, event.eventdata)
        await self._evidence.record_resent(event.position, contact.id, event.event_line)


def _by_contact(discrepancies: Iterable[Discrepancy]) -> Mapping[ContactId, list[Discrepancy]]:
    found: defaultdict[ContactId, list[Discrepancy]] = defaultdict(list)
    for each in discrepancies:
        if each.contact is not None:
            found[each.contact].append(each)
    return found
