"""Contact moves: customers whose address changed come to the contact they belong to now.

A contact that is theirs alone gets the new address. Where another contact has that address, they join it,
and the one they leave is nobody's any more; who shared a contact leaves it to the other account.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from kiva_stream.errors import AddressTaken, Rejected
from kiva_stream.model.contacts import Contact, ContactRecord
from kiva_stream.model.ids import AcId, CustomerId, Email
from kiva_stream.observability.logs import log
from kiva_stream.ports.destination import Contacts, WeekTags
from kiva_stream.ports.source import Customers
from kiva_stream.ports.state import Links
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.desired_contact import countable


class ContactMoves:
    """Moves contacts of one site. Every call raises AccountRefused, SourceError, CheckpointError."""

    def __init__(
        self,
        site_id: int,
        customers: Customers,
        links: Links,
        contacts: Contacts,
        tags: WeekTags,
        locks: ContactLocks,
    ) -> None:
        self._site_id = site_id
        self._customers = customers
        self._links = links
        self._contacts = contacts
        self._tags = tags
        self._locks = locks

    async def move(self, customers: Mapping[CustomerId, Email]) -> list[Contact]:
        """Bring customers to the contacts of their addresses; return contacts that others belong to now."""
        changed = []
        places = await self._links.of(customers)
        for contact in {place.id: place for place in places.values()}.values():
            movers = {
                customer: email
                for customer, email in customers.items()
                if places.get(customer) is contact and email != contact.email
            }
            changed += await self._leave(contact, _by_email(movers))
        return changed

    async def _leave(self, contact: Contact, movers: Mapping[Email, list[CustomerId]]) -> list[Contact]:
        """Have movers leave a contact; return which they joined, and this one if others stay."""
        changed = []
        leaving = {customer for customers in movers.values() for customer in customers}
        for email, customers in movers.items():
            (linked,) = await self._links.contacts([contact.id])
            if await self._is_shared(linked, leaving) or not await self._renamed(linked, email):
                async with self._locks.hold([contact.id]):
                    changed.append(
                        await self._links.relink(customers, email, await self._contacts.find(email))
                    )
            leaving.difference_update(customers)
        (left,) = await self._links.contacts([contact.id])
        if not left.customers:
            await self.dissolve(left)
        return [*changed, contact] if changed and left.customers else changed

    async def _is_shared(self, linked: ContactRecord, leaving: Collection[CustomerId]) -> bool:
        """Return whether somebody else of a contact has its address, whatever those who leave have by now."""
        accounts = await self._customers.accounts(set(linked.customers) - set(leaving))
        return bool(countable(accounts, self._site_id, linked.contact.email))

    async def _renamed(self, linked: ContactRecord, email: Email) -> bool:
        """Give a contact that address; False: it is to be another contact."""
        contact = linked.contact
        if await self._links.at(email) is not None:
            return False
        async with self._locks.hold([contact.id]):
            ac_id = await self._known(linked)
            if ac_id is None:
                return False
            try:
                await self._contacts.rename(ac_id, email)
            except AddressTaken:
                log.info("another contact has the new address; it is adopted", contact=contact.id)
                return False
            except Rejected as error:
                log.warning("a new address is refused", contact=contact.id, said=error.reply)
                return False
            await self._links.record_email(contact.id, email)
        return True

    async def dissolve(self, linked: ContactRecord) -> None:
        """Take customer id and week tag off a contact that is nobody's any more; it stays there as it is."""
        contact = linked.contact
        async with self._locks.hold([contact.id]):
            ac_id = await self._known(linked)
            try:
                if ac_id is not None:
                    await self._contacts.disown(ac_id)
                    for link in (await self._tags.on(ac_id)).values():
                        await self._tags.remove(link)
            except Rejected as error:
                log.info("a contact that was left cannot be cleared", contact=contact.id, said=error.reply)
            await self._links.dissolve(contact.id)

    async def _known(self, linked: ContactRecord) -> AcId | None:
        return linked.ac_id or await self._contacts.find(linked.contact.email)


def _by_email(movers: Mapping[CustomerId, Email]) -> Mapping[Email, list[CustomerId]]:
    groups: defaultdict[Email, list[CustomerId]] = defaultdict(list)
    for customer in _in_order(movers):
        groups[movers[customer]].append(customer)
    return groups


def _in_order(customers: Iterable[CustomerId]) -> list[CustomerId]:
    return sorted(customers)
