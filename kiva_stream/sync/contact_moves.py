"""Contact moves: a customer whose address changed gets the contact of the new address.

| the old contact, and the new address                           | then                                      |
|----------------------------------------------------------------|-------------------------------------------|
| it has no other customer that counts; the address is free      | it gets the new address                   |
| it has another customer that counts                            | the customer gets a contact of their own  |
| another contact has the address, here or at ActiveCampaign     | the customer joins that contact           |
| ActiveCampaign lacks the contact, or refuses the address       | the customer gets a contact of their own  |

A contact that all its customers left is dissolved. One that other customers keep is upserted, since it may
still show the customer who left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from kiva_stream.errors import AddressTaken, Rejected
from kiva_stream.model.contacts import Contact, ContactRecord
from kiva_stream.model.ids import AcId, CustomerId, Email
from kiva_stream.observability.logs import log
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.desired_contact import countable


class ContactMoves:
    """Moves and dissolves contacts. Every call raises AccountRefused, SourceError, CheckpointError."""

    def __init__(self, site_id: int, ports: ContactPorts) -> None:
        self._site_id = site_id
        self._ports = ports

    async def move(self, customers: Mapping[CustomerId, Email]) -> list[Contact]:
        """Move customers to the contacts of their addresses; return the contacts that must be upserted."""
        changed = []
        contacts = await self._ports.links.of_customers(customers)
        for contact in {each.id: each for each in contacts.values()}.values():
            movers = {
                customer: email
                for customer, email in customers.items()
                if contacts.get(customer) is contact and email != contact.email
            }
            changed += await self._leave(contact, _by_email(movers))
        return changed

    async def _leave(self, contact: Contact, movers: Mapping[Email, list[CustomerId]]) -> list[Contact]:
        """Move customers away from a contact; return those they joined, and this one if others stay."""
        changed = []
        leaving = {customer for customers in movers.values() for customer in customers}
        for email, customers in movers.items():
            (record,) = await self._ports.links.records([contact.id])
            if await self._is_shared(record, leaving) or not await self._rename(record, email):
                async with self._ports.locks.hold([contact.id]):
                    ac_id = await self._ports.contacts.find(email)
                    changed.append(await self._ports.links.relink(customers, email, ac_id))
            leaving.difference_update(customers)
        (left,) = await self._ports.links.records([contact.id])
        if not left.customers:
            await self.dissolve(left)
        return [*changed, contact] if changed and left.customers else changed

    async def _is_shared(self, record: ContactRecord, leaving: Collection[CustomerId]) -> bool:
        """Return whether a customer that is not among `leaving` counts for the contact."""
        accounts = await self._ports.customers.accounts(set(record.customers) - set(leaving))
        return bool(countable(accounts, self._site_id, record.contact.email))

    async def _rename(self, record: ContactRecord, email: Email) -> bool:
        """Give a contact a new address; return whether it has it now."""
        contact = record.contact
        if await self._ports.links.find_by_email(email) is not None:
            return False
        async with self._ports.locks.hold([contact.id]):
            ac_id = await self._ac_id(record)
            if ac_id is None:
                return False
            try:
                await self._ports.contacts.rename(ac_id, email)
            except AddressTaken:
                log.info("another contact has the new address; it is adopted", contact=contact.id)
                return False
            except Rejected as error:
                log.warning("a new address is refused", contact=contact.id, said=error.reply)
                return False
            await self._ports.links.record_email(contact.id, email)
        return True

    async def dissolve_left(self, records: Iterable[ContactRecord]) -> None:
        """Dissolve those of these contacts that have no customers: an earlier run was stopped before that."""
        for record in records:
            if record.contact.is_linked and not record.customers:
                await self.dissolve(record)

    async def dissolve(self, record: ContactRecord) -> None:
        """Remove customer id and week tag from a contact without customers; it stays at ActiveCampaign."""
        contact = record.contact
        async with self._ports.locks.hold([contact.id]):
            ac_id = await self._ac_id(record)
            try:
                if ac_id is not None:
                    await self._ports.contacts.clear_customer_id(ac_id)
                    for link in (await self._ports.tags.links(ac_id)).values():
                        await self._ports.tags.remove(link)
            except Rejected as error:
                log.info("a contact that was left cannot be cleared", contact=contact.id, said=error.reply)
            await self._ports.links.record_orphaned(contact.id)

    async def _ac_id(self, record: ContactRecord) -> AcId | None:
        """Return ActiveCampaign's id of a contact; None: it does not have the contact."""
        return record.ac_id or await self._ports.contacts.find(record.contact.email)


def _by_email(movers: Mapping[CustomerId, Email]) -> Mapping[Email, list[CustomerId]]:
    groups: defaultdict[Email, list[CustomerId]] = defaultdict(list)
    for customer in sorted(movers):
        groups[movers[customer]].append(customer)
    return groups
