"""Contact links in the state schema: implements the port Links."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from weakref import WeakValueDictionary

import asyncpg

from kiva_stream.model.bulk_imports import OpenImport
from kiva_stream.model.contacts import Contact, ContactRecord, ContactStatus
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.state.store import Store, columns

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
        links = await self.of_customers(customers)
        new = {key: email for key, email in customers.items() if _is_open(links.get(key), email)}
        if new:
            await self._add(new)
            links |= await self._stored(new)
            self._remember(links)
        return links

    async def of_customers(self, customers: Collection[CustomerId]) -> dict[CustomerId, Contact]:
        """Return the contacts of those of these customers who have one."""
        links = self._cached(customers)
        unknown = [customer for customer in customers if customer not in links]
        if unknown:
            links |= await self._stored(unknown) | self._cached(unknown)  # who joined meanwhile is cached
        self._remember(links)
        return links

    async def page(self, after: ContactId, count: int) -> list[ContactRecord]:
        """Return up to `count` contacts with ids above `after`, by id."""
        return self._linked(await self._store.fetch("contacts_after", self._site_id, after, count))

    async def records(self, ids: Collection[ContactId]) -> list[ContactRecord]:
        """Return these contacts, with their customers."""
        return self._linked(await self._store.fetch("contacts", self._site_id, list(ids)))

    async def find_by_email(self, email: Email) -> ContactRecord | None:
        """Return the contact of an address, None when there is none."""
        rows = await self._store.fetch("contact_at", self._site_id, email)
        return next(iter(self._linked(rows)), None)

    async def open_imports(self) -> list[OpenImport]:
        """Return the imports that ActiveCampaign accepted and whose end is not known yet."""
        rows = await self._store.fetch("open_imports", self._site_id)
        return [_open_import(row) for row in rows]

    async def record_import(self, started: OpenImport) -> None:
        """Remember an accepted import until its end is known."""
        contacts, fingerprints = list(started.fingerprints), list(started.fingerprints.values())
        unsubscribed = [contact in started.unsubscribed for contact in contacts]
        await self._store.fetch(
            "keep_import", self._site_id, started.id, contacts, fingerprints, unsubscribed, started.is_short
        )

    async def close_import(self, ended: OpenImport, confirmed: Collection[ContactId]) -> None:
        """Forget an import; these contacts of it are linked as they were sent."""
        sent = [
            (contact, ended.fingerprints[contact], contact in ended.unsubscribed, None)
            for contact in confirmed
        ]
        async with self._store.transaction() as connection:
            await connection.execute(self._store.sql["confirm"], *columns(sent, 4))
            await connection.execute(self._store.sql["close_import"], self._site_id, ended.id)
        self._mark(confirmed, ContactStatus.LINKED)

    async def record_confirmed(
        self, contact: ContactId, fingerprint: bytes, ac_id: AcId, *, unsubscribed: bool
    ) -> None:
        """Note that ActiveCampaign has this contact as it was sent; `unsubscribed` is of the list, by us."""
        await self._store.fetch("confirm", [contact], [fingerprint], [unsubscribed], [ac_id])
        self._mark([contact], ContactStatus.LINKED)

    async def record_list_status(self, contact: ContactId, *, unsubscribed: bool) -> None:
        """Note that ActiveCampaign has this contact on the list, or not any more."""
        await self._store.fetch("set_unsubscribed", contact, unsubscribed)

    async def record_import_tags(self, tags: Mapping[ContactId, WeekTag]) -> None:
        """Note which tag the import that creates these contacts puts on each, before it is sent."""
        await self._store.fetch("give_tags", list(tags), list(tags.values()))

    async def ids_known_up_to(self) -> AcId:
        """Return up to which id ActiveCampaign's contacts have been looked at."""
        rows = await self._store.fetch("site", self._site_id)
        return next((row["known_to"] for row in rows), AcId(0))

    async def record_ids(self, ids: Mapping[Email, AcId], known_to: AcId) -> None:
        """Note ActiveCampaign's ids of contacts by their address; addresses of no contact are passed over."""
        await self._store.fetch("learn", self._site_id, list(ids), list(ids.values()), known_to)

    async def record_email(self, contact: ContactId, email: Email) -> None:
        """Note that ActiveCampaign's contact has another address now."""
        await self._store.fetch("set_email", contact, email)
        if (known := self._contacts.get(contact)) is not None:
            known.email = email

    async def relink(self, customers: Collection[CustomerId], email: Email, ac_id: AcId | None) -> Contact:
        """Have these customers leave their contact for that of an address, which is new if there is none.

        `ac_id` is of the contact that ActiveCampaign has already, None when it has none or is not known to.
        The week tags of those left and of the one joined are due: their customers are others now.
        """
        ids, statements = list(customers), self._store.sql
        async with self._store.transaction() as connection:
            left = await connection.fetch(statements["contacts_of_customers"], self._site_id, ids)
            await connection.execute(statements["add_contacts"], self._site_id, [email])
            row = await connection.fetchrow(statements["adopt"], self._site_id, email, ac_id)
            await connection.execute(statements["add_customers"], self._site_id, ids, [email] * len(ids))
            concerned = [each["id"] for each in (*left, row)]
            await connection.execute(statements["add_due"], self._site_id, concerned)
        joined = self._contact(row)
        self._remember(dict.fromkeys(ids, joined))
        return joined

    async def record_orphaned(self, contact: ContactId) -> None:
        """Note that a contact without customers is nobody's: its fields and its tag are taken off."""
        await self._store.fetch("dissolve", contact)
        for customer in [key for key, place in self._by_customer.items() if place.id == contact]:
            del self._by_customer[customer]
        self._mark([contact], ContactStatus.NEW)

    async def record_erased(self, contact: ContactId) -> None:
        """Note that a contact is still at ActiveCampaign whose customers the shop erased."""
        await self._store.fetch("note_erased", contact)

    async def count_notes(self, notes: Mapping[str, int]) -> None:
        """Add to the counts of what was odd."""
        await self._store.fetch("add_notes", self._site_id, list(notes), list(notes.values()))

    async def record_rejected(self, contact: ContactId, why: Reason) -> None:
        """Note that ActiveCampaign refuses this contact."""
        await self._store.fetch("reject", contact, why)
        self._mark([contact], ContactStatus.REJECTED, why)

    def _cached(self, customers: Iterable[CustomerId]) -> dict[CustomerId, Contact]:
        return {key: self._by_customer[key] for key in customers if key in self._by_customer}

    async def _stored(self, customers: Collection[CustomerId]) -> dict[CustomerId, Contact]:
        rows = await self._store.fetch("contacts_of_customers", self._site_id, list(customers))
        return {row["customer_id"]: self._contact(row) for row in rows}

    async def _add(self, customers: Mapping[CustomerId, Email]) -> None:
        emails = list(customers.values())
        async with self._store.transaction() as connection:
            await connection.execute(self._store.sql["add_contacts"], self._site_id, emails)
            await connection.execute(self._store.sql["add_customers"], self._site_id, list(customers), emails)

    def _linked(self, rows: Iterable[asyncpg.Record]) -> list[ContactRecord]:
        return [linked_from(row, self._contact(row)) for row in rows]

    def _contact(self, row: asyncpg.Record) -> Contact:
        contact = self._contacts.get(row["id"])
        if contact is None:
            contact = contact_from(row)
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


def contact_from(row: asyncpg.Record) -> Contact:
    """Return the contact of a row."""
    return Contact(row["id"], row["email"], ContactStatus(row["status"]), row["why"])


def linked_from(row: asyncpg.Record, contact: Contact) -> ContactRecord:
    """Return what is known of a contact, of a row of the query `linked`."""
    return ContactRecord(
        contact,
        customers=tuple(row["customers"]),
        fingerprint=row["fingerprint"],
        ac_id=row["ac_id"],
        tag=None if row["tag"] is None else WeekTag(row["tag"]),
        tag_link=row["tag_link"],
        unsubscribed=row["unsubscribed"],
    )


def _open_import(row: asyncpg.Record) -> OpenImport:
    contacts = row["contact_ids"]
    return OpenImport(
        row["id"],
        dict(zip(contacts, row["fingerprints"], strict=True)),
        row["is_short"],
        frozenset(contact for contact, is_off in zip(contacts, row["unsubscribed"], strict=True) if is_off),
    )


def _is_open(contact: Contact | None, email: Email) -> bool:
    return contact is None or (contact.status is not ContactStatus.LINKED and contact.email != email)
