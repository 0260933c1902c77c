"""Contact links in the state schema: implements the port Links."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from weakref import WeakValueDictionary

import asyncpg

from kiva_stream.model import (
    Contact,
    ContactId,
    ContactStatus,
    CustomerId,
    Email,
    Linked,
    OpenImport,
    Reason,
)
from kiva_stream.state.store import Store

CACHE_ROWS = 50_000


class ContactLinks:
    """The links of one site. Every call raises CheckpointError.

    A contact is one object in a process, so that who holds it sees it change.
    """

    def __init__(self, store: Store, site_id: int, cache_rows: int = CACHE_ROWS) -> None:
        self._store = store
        self._site_id = site_id
        self._cache_rows = cache_rows
        self._contacts: WeakValueDictionary[ContactId, Contact] = WeakValueDictionary()
        self._by_customer: OrderedDict[CustomerId, Contact] = OrderedDict()

    async def link(self, customers: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        """Return these customers' contacts; a customer without a link joins the contact of its address.

        So does one whose address changed before ActiveCampaign confirmed the contact of the old one.
        """
        links = {key: self._by_customer[key] for key in customers if key in self._by_customer}
        unknown = {key: email for key, email in customers.items() if key not in links}
        if unknown:
            links |= await self._stored(unknown)
        new = {key: email for key, email in customers.items() if _is_open(links.get(key), email)}
        if new:
            await self._add(new)
            links |= await self._stored(new)
        self._remember(links)
        return links

    async def page(self, after: ContactId, count: int) -> list[Linked]:
        """Return up to `count` contacts with ids above `after`, by id."""
        return self._linked(await self._store.fetch("contacts_after", self._site_id, after, count))

    async def contacts(self, ids: Collection[ContactId]) -> list[Linked]:
        """Return these contacts, with their customers."""
        return self._linked(await self._store.fetch("contacts", self._site_id, list(ids)))

    async def open_imports(self) -> list[OpenImport]:
        """Return the imports that ActiveCampaign accepted and whose end is not known yet."""
        rows = await self._store.fetch("open_imports", self._site_id)
        return [
            OpenImport(
                row["id"],
                dict(zip(row["contact_ids"], row["fingerprints"], strict=True)),
                row["is_short"],
            )
            for row in rows
        ]

    async def keep_import(self, started: OpenImport) -> None:
        """Remember an accepted import until its end is known."""
        contacts, fingerprints = list(started.fingerprints), list(started.fingerprints.values())
        await self._store.fetch(
            "keep_import", self._site_id, started.id, contacts, fingerprints, started.is_short
        )

    async def close_import(self, ended: OpenImport, confirmed: Collection[ContactId]) -> None:
        """Forget an import; these contacts of it are linked as they were sent."""
        sent = [ended.fingerprints[contact] for contact in confirmed]
        async with self._store.transaction() as connection:
            await connection.execute(self._store.sql["confirm"], list(confirmed), sent)
            await connection.execute(self._store.sql["close_import"], self._site_id, ended.id)
        self._mark(confirmed, ContactStatus.LINKED)

    async def confirm(self, contact: ContactId, fingerprint: bytes) -> None:
        """Note that ActiveCampaign has this contact as it was sent."""
        await self._store.fetch("confirm", [contact], [fingerprint])
        self._mark([contact], ContactStatus.LINKED)

    async def reject(self, contact: ContactId, why: Reason) -> None:
        """Note that ActiveCampaign refuses this contact."""
        await self._store.fetch("reject", contact, why)
        self._mark([contact], ContactStatus.REJECTED, why)

    async def _stored(self, customers: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        rows = await self._store.fetch("contacts_of_customers", self._site_id, list(customers))
        return {row["customer_id"]: self._contact(row) for row in rows}

    async def _add(self, customers: Mapping[CustomerId, Email]) -> None:
        emails = list(customers.values())
        async with self._store.transaction() as connection:
            await connection.execute(self._store.sql["add_contacts"], self._site_id, emails)
            await connection.execute(self._store.sql["add_customers"], self._site_id, list(customers), emails)

    def _linked(self, rows: Iterable[asyncpg.Record]) -> list[Linked]:
        return [Linked(self._contact(row), tuple(row["customers"]), row["fingerprint"]) for row in rows]

    def _contact(self, row: asyncpg.Record) -> Contact:
        contact = self._contacts.get(row["id"])
        if contact is None:
            contact = Contact(row["id"], row["email"], ContactStatus(row["status"]), row["why"])
            self._contacts[contact.id] = contact
        return contact

    def _mark(self, ids: Iterable[ContactId], status: ContactStatus, why: str = "") -> None:
        for contact in filter(None, map(self._contacts.get, ids)):
            contact.status, contact.why = status, why

    def _remember(self, links: Mapping[CustomerId, Contact]) -> None:
        self._by_customer.update(links)
        for customer in links:
            self._by_customer.move_to_end(customer)
        while len(self._by_customer) > self._cache_rows:
            self._by_customer.popitem(last=False)


def _is_open(contact: Contact | None, email: Email) -> bool:
    return contact is None or (contact.status is not ContactStatus.LINKED and contact.email != email)
