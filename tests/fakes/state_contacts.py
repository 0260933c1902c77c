"""Contacts in the state schema, in memory: see Links and TagsDue of `ports/state.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import date

import anyio
import anyio.lowlevel

from kiva_stream.errors import CheckpointError
from kiva_stream.model.bulk_imports import OpenImport
from kiva_stream.model.contacts import Contact, ContactRecord, ContactStatus, DueContact, LeftOut, NotOnList
from kiva_stream.model.customers import Customer
from kiva_stream.model.ids import AcId, ContactId, CustomerId, Email
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.week_tags import WeekTag


class FakeLinks:
    """Implements Links; is kept from run to run. New contacts have `first_status`.

    `due` are the contacts whose week tag may differ, each with a mark: see `FakeTagsDue`.
    """

    def __init__(self, first_status: ContactStatus = ContactStatus.NEW) -> None:
        self.first_status = first_status
        self.by_id: dict[ContactId, Contact] = {}
        self.by_customer: dict[CustomerId, Contact] = {}
        self.fingerprints: dict[ContactId, bytes] = {}
        self.refused: dict[ContactId, tuple[bytes, str]] = {}  # fingerprints and replies
        self.left_out: dict[ContactId, dict[str, LeftOut]] = {}
        self.ac_ids: dict[ContactId, AcId] = {}
        self.tags: dict[ContactId, tuple[WeekTag, int | None]] = {}
        self.unsubscribed: set[ContactId] = set()
        self.taken_off: set[ContactId] = set()
        self.came_alone: set[ContactId] = set()  # by a request of their own, and not on the list yet
        self.imports: dict[str, OpenImport] = {}
        self.carried_contacts: dict[ContactId, bytes] = {}
        self.carried_age_s = 0.0
        self.notes: Counter[str] = Counter()
        self.erased: set[ContactId] = set()
        self.due: dict[ContactId, int] = {}
        self.highest = AcId(0)
        self.read: list[ContactId] = []  # contacts that were asked for by id
        self.fails = False

    @property
    def by_email(self) -> dict[Email, Contact]:
        return {each.email: each for each in self.by_id.values()}

    async def link(self, customers: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        await self._turn()
        for number, email in customers.items():
            found = self.by_customer.get(number)
            if found is None or (found.status is not ContactStatus.LINKED and found.email != email):
                self.by_customer[number] = self._at(email)
        return {number: self.by_customer[number] for number in customers}

    async def of_customers(self, customers: Collection[CustomerId]) -> dict[CustomerId, Contact]:
        await self._turn()
        return {number: self.by_customer[number] for number in customers if number in self.by_customer}

    async def page(self, after: ContactId, count: int) -> list[ContactRecord]:
        await self._turn()
        return [self.linked(each) for each in self.by_id.values() if each.id > after][:count]

    async def records(self, ids: Collection[ContactId]) -> list[ContactRecord]:
        await self._turn()
        self.read += ids
        return [self.linked(self.by_id[number]) for number in sorted(ids)]

    async def find_by_email(self, email: Email) -> ContactRecord | None:
        await self._turn()
        found = self.by_email.get(email)
        return self.linked(found) if found else None

    async def open_imports(self) -> list[OpenImport]:
        await self._turn()
        return list(self.imports.values())

    async def carried(self) -> dict[ContactId, tuple[bytes, float]]:
        await self._turn()
        return {contact: (each, self.carried_age_s) for contact, each in self.carried_contacts.items()}

    async def record_carried(self, fingerprints: Mapping[ContactId, bytes]) -> None:
        await self._turn()
        self.carried_contacts |= fingerprints

    async def withdraw_carried(self, contacts: Collection[ContactId]) -> None:
        await self._turn()
        for each in contacts:
            self.carried_contacts.pop(each, None)

    async def record_import(self, started: OpenImport) -> None:
        await self._turn()
        self.imports[started.id] = started
        await anyio.lowlevel.checkpoint()

    async def close_import(self, ended: OpenImport, confirmed: Collection[ContactId]) -> None:
        await self._turn()
        del self.imports[ended.id]
        for number in confirmed:
            self._confirm(number, ended.fingerprints[number], came_alone=False)
            self._set_list(number, unsubscribed=number in ended.unsubscribed)
        await anyio.lowlevel.checkpoint()

    async def record_confirmed(
        self,
        number: ContactId,
        fingerprint: bytes,
        ac_id: AcId,
        *,
        unsubscribed: bool,
        came_alone: bool = False,
    ) -> None:
        await self._turn()
        self._confirm(number, fingerprint, came_alone=came_alone)
        self.ac_ids[number] = ac_id
        self._set_list(number, unsubscribed=unsubscribed)
        await anyio.lowlevel.checkpoint()

    async def record_list_status(self, number: ContactId, *, unsubscribed: bool) -> None:
        await self._turn()
        self._set_list(number, unsubscribed=unsubscribed)
        if not unsubscribed:
            self.taken_off.discard(number)

    async def record_on_list(self, contacts: Collection[ContactId]) -> None:
        await self._turn()
        self.came_alone.difference_update(contacts)

    async def record_import_tags(self, tags: Mapping[ContactId, WeekTag]) -> None:
        await self._turn()
        self.tags |= {number: (tag, None) for number, tag in tags.items()}

    async def ids_known_up_to(self) -> AcId:
        await self._turn()
        return self.highest

    async def record_ids(self, ids: Mapping[Email, AcId], known_to: AcId) -> None:
        await self._turn()
        mine = self.by_email
        self.ac_ids |= {mine[email].id: ac_id for email, ac_id in ids.items() if email in mine}
        self.highest = known_to

    async def record_email(self, number: ContactId, email: Email) -> None:
        await self._turn()
        assert email not in self.by_email, "two contacts of one address"
        self.by_id[number].move_to(email)

    async def relink(self, customers: Collection[CustomerId], email: Email, ac_id: AcId | None) -> Contact:
        await self._turn()
        joined = self._at(email)
        for number in customers:
            self.due_again(self.by_customer[number].id)
            self.by_customer[number] = joined
        if ac_id is not None:
            self.ac_ids[joined.id] = ac_id
        self.due_again(joined.id)
        await anyio.lowlevel.checkpoint()
        return joined

    async def record_orphaned(self, number: ContactId) -> None:
        await self._turn()
        found = self.by_id[number]
        assert found not in self.by_customer.values(), "a contact with customers was orphaned"
        found.set_status(ContactStatus.NEW)
        self.refused.pop(number, None)
        self.left_out.pop(number, None)
        self.fingerprints.pop(number, None)
        self.tags.pop(number, None)
        self.due.pop(number, None)
        self.unsubscribed.discard(number)
        self.taken_off.discard(number)
        self.came_alone.discard(number)

    async def record_erased(self, contact: ContactId) -> None:
        await self._turn()
        self.erased.add(contact)

    async def count_notes(self, notes: Mapping[str, int]) -> None:
        await self._turn()
        self.notes.update(notes)

    async def record_rejected(self, number: ContactId, why: Reason) -> None:
        await self._turn()
        found = self.by_id[number]
        found.set_status(ContactStatus.REJECTED, why)

    async def record_refused(self, number: ContactId, fingerprint: bytes, reply: str) -> None:
        await self._turn()
        found = self.by_id[number]
        self.refused[number] = fingerprint, reply
        if found.is_linked:
            found.set_status(found.status, found.why, reply)
        else:
            found.set_status(ContactStatus.REJECTED, Reason.AC_REJECTED, reply)

    async def record_left_out(self, number: ContactId, field: str, left_out: LeftOut) -> None:
        await self._turn()
        self.left_out.setdefault(number, {})[field] = left_out

    async def retry_refused(self, contacts: Collection[ContactId]) -> None:
        await self._turn()
        for number in contacts:
            self.refused.pop(number, None)
            self.left_out.pop(number, None)
            found = self.by_id[number]
            if found.is_refused:
                found.set_status(ContactStatus.NEW)
            else:
                found.set_status(found.status, found.why)

    def status_of(self, who: Customer) -> tuple[ContactStatus, str]:
        """Return the status of a customer's contact, and why it was rejected."""
        return self.by_customer[who.id].status, self.by_customer[who.id].why

    def linked(self, found: Contact) -> ContactRecord:
        """Return what is known of a contact."""
        mine = tuple(number for number, each in self.by_customer.items() if each is found)
        tag, link = self.tags.get(found.id, (None, None))
        known = self.fingerprints.get(found.id), self.ac_ids.get(found.id)
        refused, _ = self.refused.get(found.id, (None, ""))
        left_out = dict(self.left_out.get(found.id, {}))
        is_off = found.id in self.unsubscribed
        taken_off = found.id in self.taken_off
        not_on_list = NotOnList.CAME_ALONE if found.id in self.came_alone else None
        return ContactRecord(
            found, mine, *known, tag, link, is_off, refused, left_out, taken_off, not_on_list
        )

    def due_again(self, number: ContactId) -> None:
        """Mark a contact's week tag due, if the contact is linked."""
        if self.by_id[number].status is ContactStatus.LINKED:
            self.due[number] = max(self.due.values(), default=0) + 1

    def restarted(self) -> None:
        """Begin a new process, in which contacts are other objects."""
        fresh = {
            number: Contact(number, each.email, each.status, each.why, reply=each.reply)
            for number, each in self.by_id.items()
        }
        self.by_customer = {number: fresh[each.id] for number, each in self.by_customer.items()}
        self.by_id = fresh

    def _at(self, email: Email) -> Contact:
        found = self.by_email.get(email)
        if found is None:
            found = Contact(ContactId(len(self.by_id) + 1), email, self.first_status)
            self.by_id[found.id] = found
        return found

    def _confirm(self, number: ContactId, fingerprint: bytes, *, came_alone: bool) -> None:
        found = self.by_id[number]
        is_new = found.status is not ContactStatus.LINKED
        if is_new and came_alone:
            self.came_alone.add(number)
        found.set_status(ContactStatus.LINKED)
        self.refused.pop(number, None)
        self.fingerprints[number] = fingerprint
        if is_new:
            self.due_again(number)

    def _set_list(self, number: ContactId, *, unsubscribed: bool) -> None:
        if unsubscribed:
            self.unsubscribed.add(number)
            self.taken_off.add(number)
            self.came_alone.discard(number)
        else:
            self.unsubscribed.discard(number)

    async def _turn(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.fails:
            raise CheckpointError("the state is gone")


class FakeTagsDue:
    """Implements TagsDue on the state that links are in."""

    def __init__(self, links: FakeLinks) -> None:
        self._links = links
        self.tagged_week: date | None = None

    async def week(self) -> date | None:
        await anyio.lowlevel.checkpoint()
        return self.tagged_week

    async def begin_week(self, week: date) -> None:
        self.tagged_week = week
        await self.mark_all_due()

    async def mark_all_due(self) -> None:
        await self.mark_due(list(self._links.by_id))

    async def mark_due(self, contacts: Collection[ContactId]) -> None:
        await anyio.lowlevel.checkpoint()
        for number in contacts:
            self._links.due_again(number)

    async def page(self, after: ContactId, count: int) -> list[DueContact]:
        await anyio.lowlevel.checkpoint()
        due = sorted(each for each in self._links.due.items() if each[0] > after)
        return [
            DueContact(self._links.linked(self._links.by_id[number]), mark) for number, mark in due[:count]
        ]

    async def clear_due(self, due: Collection[DueContact]) -> None:
        await anyio.lowlevel.checkpoint()
        for linked, mark in due:
            if self._links.due.get(linked.contact.id) == mark:
                del self._links.due[linked.contact.id]

    async def record_tags_unknown(self, contacts: Collection[ContactId]) -> None:
        await anyio.lowlevel.checkpoint()
        for number in contacts:
            self._links.tags.pop(number, None)

    async def record_tag(self, contact: ContactId, *, ac_id: AcId, tag: WeekTag, link: int) -> None:
        await anyio.lowlevel.checkpoint()
        self._links.ac_ids[contact] = ac_id
        self._links.tags[contact] = tag, link
