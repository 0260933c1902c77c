"""The links of customers to contacts (the tables `customer`, `contact` and `import`)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from weakref import WeakValueDictionary

import asyncpg
import msgspec

from kiva_stream.model.bulk_imports import OpenImport
from kiva_stream.model.contacts import Contact, ContactRecord, ContactStatus, LeftOut, NotOnList
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.state.store import Connection, Store, columns

CACHE_ROWS = 50_000


class ContactLinks:
    """Implements the port Links for one site.

    A contact is one object in a process, so that every holder sees its status and address change. The
    contacts of the `cache_rows` customers used last are cached.
    """

    def __init__(self, store: Store, site_id: int, cache_rows: int = CACHE_ROWS) -> None:
        self._store = store
        self._site_id = site_id
        self._cache_rows = cache_rows
        self._contacts: WeakValueDictionary[ContactId, Contact] = WeakValueDictionary()
        self._by_customer: OrderedDict[CustomerId, Contact] = OrderedDict()

    async def link(self, customers: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        """Return contacts from the cache and the state; the missing ones are inserted in one transaction."""
        links = await self.of_customers(customers)
        new = {key: email for key, email in customers.items() if _may_link(links.get(key), email)}
        if new:
            await self._add(new)
            links |= await self._stored(new)
            self._cache(links)
        return links

    async def of_customers(self, customers: Collection[CustomerId]) -> dict[CustomerId, Contact]:
        """Return contacts from the cache, and from the state those that it lacks."""
        links = self._cached(customers)
        missing = [customer for customer in customers if customer not in links]
        if missing:
            links |= await self._stored(missing) | self._cached(missing)  # one linked meanwhile is cached
        self._cache(links)
        return links

    async def page(self, after: ContactId, count: int) -> list[ContactRecord]:
        """Return the records of a range of ids."""
        return self._records(await self._store.fetch("contacts_after", self._site_id, after, count))

    async def records(self, ids: Collection[ContactId]) -> list[ContactRecord]:
        """Return records by id."""
        return self._records(await self._store.fetch("contacts", self._site_id, list(ids)))

    async def find_by_email(self, email: Email) -> ContactRecord | None:
        """Return the record of an address."""
        rows = await self._store.fetch("contact_of_email", self._site_id, email)
        return next(iter(self._records(rows)), None)

    async def open_imports(self) -> list[OpenImport]:
        """Return the rows of `import`."""
        rows = await self._store.fetch("open_imports", self._site_id)
        return [_open_import(row) for row in rows]

    async def record_import(self, started: OpenImport) -> None:
        """Insert a row of `import`."""
        contacts, fingerprints = list(started.fingerprints), list(started.fingerprints.values())
        unsubscribed = [contact in started.unsubscribed for contact in contacts]
        await self._store.fetch(
            "insert_import", self._site_id, started.id, contacts, fingerprints, unsubscribed, started.is_short
        )

    async def carried(self) -> dict[ContactId, tuple[bytes, float]]:
        """Return the rows of `carried_contact`."""
        rows = await self._store.fetch("carried_contacts", self._site_id)
        return {row["contact_id"]: (row["fingerprint"], row["age_s"]) for row in rows}

    async def record_carried(self, fingerprints: Mapping[ContactId, bytes]) -> None:
        """Write rows of `carried_contact`."""
        contacts, carried = list(fingerprints), list(fingerprints.values())
        await self._store.fetch("record_carried_contacts", self._site_id, contacts, carried)

    async def withdraw_carried(self, contacts: Collection[ContactId]) -> None:
        """Delete rows of `carried_contact`."""
        if contacts:
            await self._store.fetch("withdraw_carried_contacts", self._site_id, list(contacts))

    async def close_import(self, ended: OpenImport, confirmed: Collection[ContactId]) -> None:
        """Confirm contacts and delete the row of the import in one transaction."""
        sent = [
            (contact, ended.fingerprints[contact], contact in ended.unsubscribed, None, False)
            for contact in confirmed
        ]

        async def writing(connection: Connection) -> None:
            await connection.execute(self._store.sql["confirm_contacts"], *columns(sent, 5))
            await connection.execute(self._store.sql["delete_import"], self._site_id, ended.id)

        await self._store.write(writing)
        self._set_status(confirmed, ContactStatus.LINKED)

    async def record_confirmed(
        self,
        contact: ContactId,
        fingerprint: bytes,
        ac_id: AcId,
        *,
        unsubscribed: bool,
        came_alone: bool = False,
    ) -> None:
        """Write what was confirmed of a contact, and set the status of its object."""
        await self._store.fetch(
            "confirm_contacts", [contact], [fingerprint], [unsubscribed], [ac_id], [came_alone]
        )
        self._set_status([contact], ContactStatus.LINKED)

    async def record_list_status(self, contact: ContactId, *, unsubscribed: bool) -> None:
        """Write the column `unsubscribed`."""
        await self._store.fetch("set_unsubscribed", contact, unsubscribed)

    async def record_on_list(self, contacts: Collection[ContactId]) -> None:
        """Clear the column `not_on_list`."""
        await self._store.fetch("set_on_list", list(contacts))

    async def record_import_tags(self, tags: Mapping[ContactId, WeekTag]) -> None:
        """Write the tags of contacts, without their links, whose ids an import does not tell."""
        await self._store.fetch("set_import_tags", list(tags), list(tags.values()))

    async def ids_known_up_to(self) -> AcId:
        """Return `known_to` of the row of the site."""
        rows = await self._store.fetch("site", self._site_id)
        return next((row["known_to"] for row in rows), AcId(0))

    async def record_ids(self, ids: Mapping[Email, AcId], known_to: AcId) -> None:
        """Write ids and `known_to` in one statement."""
        await self._store.fetch("set_ac_ids", self._site_id, list(ids), list(ids.values()), known_to)

    async def record_email(self, contact: ContactId, email: Email) -> None:
        """Write the address, and set it in the contact's object."""
        await self._store.fetch("set_email", contact, email)
        if (known := self._contacts.get(contact)) is not None:
            known.move_to(email)

    async def relink(self, customers: Collection[CustomerId], email: Email, ac_id: AcId | None) -> Contact:
        """Insert a missing contact, link the customers and mark the tags due in one transaction."""
        ids, statements = list(customers), self._store.sql

        async def writing(connection: Connection) -> asyncpg.Record:
            before = await connection.fetch(statements["contacts_of_customers"], self._site_id, ids)
            await connection.execute(statements["insert_contacts"], self._site_id, [email])
            row = await connection.fetchrow(statements["set_ac_id_of_email"], self._site_id, email, ac_id)
            await connection.execute(statements["link_customers"], self._site_id, ids, [email] * len(ids))
            changed = [each["id"] for each in (*before, row)]
            await connection.execute(statements["mark_due"], self._site_id, changed)
            return row

        row = await self._store.write(writing)
        contact = self._contact(row)
        self._cache(dict.fromkeys(ids, contact))
        return contact

    async def record_orphaned(self, contact: ContactId) -> None:
        """Reset the contact's row, and delete those of its customers and its due tag, in one statement."""
        await self._store.fetch("orphan_contact", contact)
        for customer in [key for key, linked in self._by_customer.items() if linked.id == contact]:
            del self._by_customer[customer]
        self._set_status([contact], ContactStatus.NEW)

    async def record_erased(self, contact: ContactId) -> None:
        """Write the column `erased_at`, unless it has a moment already."""
        await self._store.fetch("set_erased", contact)

    async def count_notes(self, notes: Mapping[str, int]) -> None:
        """Add to the rows of the tally."""
        await self._store.fetch("count_notes", self._site_id, list(notes), list(notes.values()))

    async def record_rejected(self, contact: ContactId, why: Reason) -> None:
        """Write status and reason, and set them in the contact's object."""
        await self._store.fetch("reject_contact", contact, why)
        self._set_status([contact], ContactStatus.REJECTED, why)

    async def record_refused(self, contact: ContactId, fingerprint: bytes, reply: str) -> None:
        """Write what was refused and the reply, and the status unless the contact is linked."""
        rows = await self._store.fetch("refuse_contact", contact, fingerprint, reply, Reason.AC_REJECTED)
        self._set_statuses(rows)

    async def record_left_out(self, contact: ContactId, field: str, left_out: LeftOut) -> None:
        """Write a key of the column `left_out`."""
        await self._store.fetch("leave_out", contact, field, *left_out)

    async def retry_refused(self, contacts: Collection[ContactId]) -> None:
        """Clear what was refused and left out, and set the status of contacts that were rejected for it."""
        self._set_statuses(await self._store.fetch("retry_refused", list(contacts), Reason.AC_REJECTED))

    def _cached(self, customers: Iterable[CustomerId]) -> dict[CustomerId, Contact]:
        return {key: self._by_customer[key] for key in customers if key in self._by_customer}

    async def _stored(self, customers: Collection[CustomerId]) -> dict[CustomerId, Contact]:
        rows = await self._store.fetch("contacts_of_customers", self._site_id, list(customers))
        return {row["customer_id"]: self._contact(row) for row in rows}

    async def _add(self, customers: Mapping[CustomerId, Email]) -> None:
        emails, statements = list(customers.values()), self._store.sql

        async def writing(connection: Connection) -> None:
            await connection.execute(statements["insert_contacts"], self._site_id, emails)
            await connection.execute(statements["link_customers"], self._site_id, list(customers), emails)

        await self._store.write(writing)

    def _records(self, rows: Iterable[asyncpg.Record]) -> list[ContactRecord]:
        return [record_from(row, self._contact(row)) for row in rows]

    def _contact(self, row: asyncpg.Record) -> Contact:
        contact = self._contacts.get(row["id"])
        if contact is None:
            contact = contact_from(row)
            self._contacts[contact.id] = contact
        return contact

    def _set_status(self, ids: Iterable[ContactId], status: ContactStatus, why: str = "") -> None:
        for contact in filter(None, map(self._contacts.get, ids)):
            contact.set_status(status, why)

    def _set_statuses(self, rows: Iterable[asyncpg.Record]) -> None:
        """Set the status of contacts as the state has it by now, with the reply to those that are refused."""
        for row in rows:
            if (contact := self._contacts.get(row["id"])) is not None:
                contact.set_status(ContactStatus(row["status"]), row["why"], row["refused"])

    def _cache(self, links: Mapping[CustomerId, Contact]) -> None:
        self._by_customer.update(links)
        for customer in links:
            self._by_customer.move_to_end(customer)
        while len(self._by_customer) > self._cache_rows:
            self._by_customer.popitem(last=False)


def contact_from(row: asyncpg.Record) -> Contact:
    """Return the contact of a row."""
    return Contact(
        row["id"], row["email"], ContactStatus(row["status"]), why=row["why"], reply=row["refused"]
    )


def record_from(row: asyncpg.Record, contact: Contact) -> ContactRecord:
    """Return the record of a contact, whose row is one of the block `contact_records`."""
    return ContactRecord(
        contact,
        customers=tuple(row["customers"]),
        fingerprint=row["fingerprint"],
        ac_id=row["ac_id"],
        tag=None if row["tag"] is None else WeekTag(row["tag"]),
        tag_link=row["tag_link"],
        unsubscribed=row["unsubscribed"],
        taken_off=row["taken_off"],
        not_on_list=None if row["not_on_list"] is None else NotOnList(row["not_on_list"]),
        refused_fingerprint=row["refused_fingerprint"],
        left_out=msgspec.json.decode(row["left_out"], type=dict[str, LeftOut]),
    )


def _open_import(row: asyncpg.Record) -> OpenImport:
    contacts = row["contact_ids"]
    return OpenImport(
        id=row["id"],
        fingerprints=dict(zip(contacts, row["fingerprints"], strict=True)),
        is_short=row["is_short"],
        unsubscribed=frozenset(
            contact for contact, is_off in zip(contacts, row["unsubscribed"], strict=True) if is_off
        ),
    )


def _may_link(contact: Contact | None, email: Email) -> bool:
    return contact is None or (not contact.is_linked and contact.email != email)
