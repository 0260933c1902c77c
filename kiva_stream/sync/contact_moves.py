"""Contact moves: a customer whose address changed gets the contact of the new address.

Either the old contact is renamed: it gets the new address and keeps its customers. Or the customers who have
the new address are relinked: they join the contact of that address, which is created if there is none.

| the old contact, and the new address (the first row that applies)   | then                          |
|---------------------------------------------------------------------|-------------------------------|
| another customer counts for the old contact                         | the customers are relinked    |
| another contact has the address, here or at ActiveCampaign          | the customers are relinked    |
| ActiveCampaign lacks the old contact, or refuses the address        | the customers are relinked    |
| the new address gets no answer, and is not there either             | the customers are relinked    |
| none of these                                                       | the old contact is renamed    |

A contact that all its customers left is dissolved. One that some left and others keep is upserted, since it
may still show a customer who left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from kiva_stream.errors import AddressTaken, RecordsHeld, Rejected
from kiva_stream.model.contacts import Contact, ContactRecord
from kiva_stream.model.ids import AcId, CustomerId, Email
from kiva_stream.observability.logs import log
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.desired_contact import countable


class ContactMoves:
    """Moves customers and dissolves contacts.

    Every call raises AccountRefused, SourceError, CheckpointError, HeldError.
    """

    def __init__(self, site_id: int, ports: ContactPorts) -> None:
        self._site_id = site_id
        self._ports = ports

    async def move(self, customers: Mapping[CustomerId, Email]) -> list[Contact]:
        """Move customers to contacts that have their addresses; return the contacts that must be upserted.

        These are the contacts that they joined, and those that some left and others keep, each once. A
        contact that was only renamed, or that all its customers left, is not among them.
        """
        to_upsert: list[Contact] = []
        contacts = await self._ports.links.of_customers(customers)
        for contact in {each.id: each for each in contacts.values()}.values():
            movers = {
                customer: email
                for customer, email in customers.items()
                if contacts.get(customer) is contact and email != contact.email
            }
            to_upsert += await self._leave(contact, _by_email(movers))
        return list({each.id: each for each in to_upsert}.values())

    async def _leave(self, contact: Contact, by_email: Mapping[Email, list[CustomerId]]) -> list[Contact]:
        """Move customers, given by their new addresses, away from a contact; return the contacts to upsert.

        These are the contacts that they joined, and this one if it lost some customers. If it lost all, it is
        dissolved and not returned.
        """
        joined = []
        unmoved = {customer for customers in by_email.values() for customer in customers}
        for email, customers in by_email.items():
            (record,) = await self._ports.links.records([contact.id])
            is_renamed = not await self._is_shared(record, unmoved) and await self._rename(record, email)
            if not is_renamed:
                # The lock is that of the old contact: no write of it is under way while customers leave it.
                async with self._ports.locks.hold([contact.id]):
                    ac_id = await self._find(contact, email)
                    joined.append(await self._ports.links.relink(customers, email, ac_id))
            # After a rename these customers are still in the contact's record, and have its address. From now
            # on they count for it, so that the next address cannot rename it again.
            unmoved.difference_update(customers)
        (left,) = await self._ports.links.records([contact.id])
        if not left.customers:
            await self.dissolve(left)
        return [*joined, contact] if joined and left.customers else joined

    async def _is_shared(self, record: ContactRecord, unmoved: Collection[CustomerId]) -> bool:
        """Return whether a customer who stays at the contact counts for it.

        The `unmoved` do not stay: they are still to be moved away. Customers who were relinked are not in the
        record any more.
        """
        accounts = await self._ports.customers.accounts(set(record.customers) - set(unmoved))
        return bool(countable(accounts, self._site_id, record.contact.email))

    async def _rename(self, record: ContactRecord, email: Email) -> bool:
        """Give a contact a new address, if possible; return whether the contact was renamed."""
        contact = record.contact
        if await self._ports.links.find_by_email(email) is not None:
            return False
        async with self._ports.locks.hold([contact.id]):
            ac_id = await self._ac_id(record)
            if ac_id is None:
                return False
            try:
                await self._ports.alone.rename(ac_id, email)
            except AddressTaken:  # the caller finds that contact, and relinks the customers to it
                log.info("another contact has the new address; it is adopted", contact=contact.id)
                return False
            except Rejected as error:
                log.warning("a new address is refused", contact=contact.id, said=error.reply)
                return False
            except RecordsHeld as error:
                if await self._find(contact, email) != ac_id:
                    log.warning("a new address gets no answer", contact=contact.id, why=str(error))
                    return False
            await self._ports.links.record_email(contact.id, email)
        return True

    async def dissolve_left(self, records: Iterable[ContactRecord]) -> None:
        """Dissolve those of these contacts that are linked and have no customers.

        An earlier run moved their customers away, and was stopped before it dissolved them.
        """
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
                    await self._ports.alone.clear_customer_id(ac_id)
                    for tag_link in (await self._ports.tags.links(ac_id)).values():
                        await self._ports.tags.remove(tag_link)
            except Rejected as error:
                log.info("a contact that was left cannot be cleared", contact=contact.id, said=error.reply)
            except RecordsHeld as error:
                log.warning("a contact that was left gets no answer", contact=contact.id, why=str(error))
            await self._ports.links.record_orphaned(contact.id)

    async def _ac_id(self, record: ContactRecord) -> AcId | None:
        """Return ActiveCampaign's id of a contact; None: see `_find`."""
        return record.ac_id or await self._find(record.contact, record.contact.email)

    async def _find(self, contact: Contact, email: Email) -> AcId | None:
        """Return the id of the contact that has an address, which is that of a contact or is to be.

        None: ActiveCampaign has no such contact, or does not say which, though it answers for others.
        """
        try:
            return await self._ports.alone.find(contact, email)
        except RecordsHeld as error:
            log.warning("a contact cannot be looked up", contact=contact.id, why=str(error))
            return None


def _by_email(movers: Mapping[CustomerId, Email]) -> Mapping[Email, list[CustomerId]]:
    groups: defaultdict[Email, list[CustomerId]] = defaultdict(list)
    for customer in sorted(movers):
        groups[movers[customer]].append(customer)
    return groups
