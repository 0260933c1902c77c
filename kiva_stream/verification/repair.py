"""Repair: closes gaps by forgetting what the state believes of a contact or an order, and bringing it anew.

Nobody is put back on the list: a contact that ActiveCampaign lost comes back without it. Events are sent only
where that is asked for, and only such as their contact's log would list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime

from kiva_stream.errors import AddressTaken, Rejected, UnknownOutcome
from kiva_stream.model.contacts import Contact, ContactRecord, ContactStatus
from kiva_stream.model.deliveries import Need
from kiva_stream.model.ids import ContactId, CustomerId, Email, OrderId
from kiva_stream.model.positions import DAY1
from kiva_stream.observability.logs import log
from kiva_stream.ports.destination import Events
from kiva_stream.runtime.working_site import WorkingSite
from kiva_stream.state.evidence import Evidence, Stand
from kiva_stream.sync.desired_contact import customers_to_move
from kiva_stream.verification.discrepancies import Discrepancy, DiscrepancyKind, Expected
from kiva_stream.verification.expected_state import ExpectedState

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)  # history: a repair is to start no automation
OF_CONTACT = frozenset(
    {
        DiscrepancyKind.MOVED,
        DiscrepancyKind.NO_CONTACT,
        DiscrepancyKind.CONTACT_ID,
        DiscrepancyKind.ADDRESS,
        DiscrepancyKind.FIELDS,
        DiscrepancyKind.LIST,
        DiscrepancyKind.TAG,
    }
)


class Repair:
    """Closes gaps of one site, of which `site` has the stages.

    Every call raises SourceError, CheckpointError, AccountRefused, TryLater.
    """

    def __init__(
        self, site: WorkingSite, evidence: Evidence, expectations: ExpectedState, events: Events
    ) -> None:
        self._site = site
        self._links = site.links
        self._evidence = evidence
        self._expectations = expectations
        self._events = events

    # --- contacts, tags and orders ---

    async def close(self, gaps: Collection[Discrepancy]) -> None:
        """Close the gaps of contacts, tags and orders, as far as they can be closed."""
        for customer in [gap.customer for gap in gaps if gap.kind is DiscrepancyKind.NO_LINK]:
            if customer is not None:
                await self._upsert_customer(customer)
        for contact, mine in _by_contact(gaps).items():
            kinds = {gap.kind for gap in mine}
            (linked,) = await self._links.contacts([contact])
            if DiscrepancyKind.NO_CUSTOMER in kinds:
                await self._site.contacts.dissolve([linked])
            else:
                await self._mend(linked, kinds, {gap.order for gap in mine if gap.order})

    async def _upsert_customer(self, customer: CustomerId) -> None:
        """Bring the contact of a customer who has none; ActiveCampaign may have it all the same."""
        emails = await self._emails([customer])
        if emails:
            contact = (await self._links.link(emails))[customer]
            await self._learn_id(contact)
            await self._upsert(contact, ())

    async def _mend(
        self, linked: ContactRecord, kinds: Collection[DiscrepancyKind], orders: set[OrderId]
    ) -> None:
        contact = linked.contact
        if OF_CONTACT & set(kinds):
            await self._place(linked, kinds)
            await self._evidence.unconfirm_contact(contact.id)
        if DiscrepancyKind.NO_CONTACT in kinds:  # its orders went with it
            orders = orders | {order.id for order in await self._site.shop.orders.of(linked.customers)}
        await self._evidence.unconfirm_orders(orders)
        await self._upsert(contact, orders)

    async def _place(self, linked: ContactRecord, kinds: Collection[DiscrepancyKind]) -> None:
        """Have a contact be where it is looked for: with its id, its address, and the customers of it."""
        if DiscrepancyKind.CONTACT_ID in kinds:
            await self._learn_id(linked.contact)
        if DiscrepancyKind.ADDRESS in kinds:
            await self._rename(linked)
        if DiscrepancyKind.MOVED in kinds:
            emails = await self._emails(linked.customers)
            await self._site.contacts.move(customers_to_move(await self._links.link(emails), emails))

    async def _rename(self, linked: ContactRecord) -> None:
        """Give a contact its address back; where another has it by now, that one is adopted."""
        contact = linked.contact
        try:
            if linked.ac_id is not None:
                await self._site.account.rename(linked.ac_id, contact.email)
        except AddressTaken:
            await self._learn_id(contact)
        except Rejected as error:
            log.warning("a contact's address is refused", contact=contact.id, said=error.reply)

    async def _upsert(self, contact: Contact, orders: Collection[OrderId]) -> None:
        await self._site.contacts.upsert([Need(contact, DAY1, LONG_AGO, frozenset(orders))])
        if contact.status is ContactStatus.LINKED:
            (linked,) = await self._links.contacts([contact.id])
            if linked.ac_id is None:
                await self._learn_id(contact)
            await self._site.tags.sync_one(contact.id)

    async def _learn_id(self, contact: Contact) -> None:
        ac_id = await self._site.account.find(contact.email)
        if ac_id is not None:
            await self._links.learn({contact.email: ac_id}, await self._links.known_to())

    async def _emails(self, customers: Collection[CustomerId]) -> dict[CustomerId, Email]:
        found = await self._site.shop.customers.by_id(customers)
        return {each.id: each.email for each in found if each.email and not each.erased and not each.is_test}

    # --- events ---

    async def resend(self, gaps: Collection[Discrepancy], stand: Stand) -> None:
        """Send the missing events that their contact's log would list, those of a contact in log order."""
        missing = _by_contact(gap for gap in gaps if gap.kind is DiscrepancyKind.NO_EVENT)
        for contact, mine in missing.items():
            positions = {gap.position for gap in mine}
            (should,) = await self._expectations.of(await self._links.contacts([contact]), stand)
            events = [each for each in should.events if each.position in positions and each.eventdata]
            try:
                for each in events:
                    await self._resend(should.linked.contact, each)
            except (Rejected, UnknownOutcome) as error:  # what comes after it must not overtake it
                log.warning("a missing event was not sent", contact=contact, why=str(error))

    async def _resend(self, contact: Contact, event: Expected) -> None:
        await self._events.send(contact.email, event.name, event.eventdata)
        await self._evidence.keep_resent(event.position, contact.id, event.line)


def _by_contact(gaps: Iterable[Discrepancy]) -> Mapping[ContactId, list[Discrepancy]]:
    found: defaultdict[ContactId, list[Discrepancy]] = defaultdict(list)
    for gap in gaps:
        if gap.contact is not None:
            found[gap.contact].append(gap)
    return found
