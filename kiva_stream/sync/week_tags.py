"""Week tags: every contact has the one tag that its orders of the current week give it.

Entries do not wait for their tags to be changed. The state keeps the contacts that are due: their tag may not
be the right one. When a new week begins, every linked contact becomes due.

A change takes the old tag off before it puts the new one on, so that a contact never has two. Before that,
the state records that the contact's tag is not known. If the change is interrupted, the next one asks
ActiveCampaign which tags are there.

| the due contact                                           | then                                          |
|-----------------------------------------------------------|-----------------------------------------------|
| is new (not expected: only linked ones are marked due)    | it stays due                                  |
| has the right tag, or is rejected                         | it is not due any more, without a request     |
| has another tag, or one that is not known                 | its tags are changed                          |
| has no customer that counts                               | its tags are removed                          |
| changed, or became due again, since the decision          | it stays due, and is decided anew             |
| is gone from ActiveCampaign                               | it is not due any more                        |
| is refused, between two others that are accepted          | it is not due until something about it changes |
| is refused otherwise                                      | it is held: it stays due, and is tried later  |
| is one of all, since the account is refused               | it stays due until one is accepted             |
| gets no answer, though others do                          | it is held: it stays due, and is tried later  |
| is held, and unchanged, before its next try               | it stays due, without a request               |
| was discarded, and is unchanged                           | it is not due any more, without a request     |
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date
from hashlib import blake2b
from typing import NamedTuple

import anyio
import msgspec

from kiva_stream.errors import ContactGone, PermissionRefused, RecordsHeld, Rejected
from kiva_stream.model.contacts import ContactRecord, ContactStatus, DueContact
from kiva_stream.model.held_records import HeldKind, Silent
from kiva_stream.model.ids import AcId, ContactId
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.ports.source import Customers, Weeks
from kiva_stream.ports.state import TagsDue
from kiva_stream.primitives.workers import for_each
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.current_contacts import counted_customers, read_current
from kiva_stream.sync.held_records import HeldRecords
from kiva_stream.sync.lone_requests import TagRequests
from kiva_stream.sync.request_kinds import NO_PERMISSION
from kiva_stream.sync.tag_kind import TagKind

PAGE_ROWS = 100
PATIENCE_S = 10  # how long a change's second half is shielded from a stop
CHANGES_AT_ONCE = 8  # enough to use up five requests a second, however long each takes
LAST_TRIES_S = 120.0
FINGERPRINT_BYTES = 16


class _TagChange(NamedTuple):
    """A contact that is to have `tag` and no other week tag; if `tag` is None, no week tag at all."""

    due: DueContact
    tag: WeekTag | None
    basis: tuple[object, ...]  # what the decision rests on

    @property
    def id(self) -> ContactId:
        return self.due.record.contact.id

    @property
    def contact_id(self) -> ContactId:
        return self.id

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that change with the tag, and with the address or customers of the contact."""
        record = self.due.record
        shown = msgspec.json.encode((self.tag, record.contact.email, sorted(record.customers)))
        return blake2b(shown, digest_size=FINGERPRINT_BYTES).digest()


class WeekTagSync:
    """Gives the contacts of one site their week tags.

    Its coroutines raise AccountRefused, SourceError, CheckpointError, HeldError, or ExceptionGroups of them.
    """

    def __init__(
        self,
        site_id: int,
        *,
        due: TagsDue,
        weeks: Weeks,
        customers: Customers,
        tags: TagRequests,
        locks: ContactLocks,
        kind: TagKind,
        held: HeldRecords,
    ) -> None:
        self._site_id = site_id
        self._due = due
        self._weeks = weeks
        self._customers = customers
        self._tags = tags
        self._locks = locks
        self._held = held
        self._woken = anyio.Event()
        self._kind = kind

    async def run(self, every_s: float) -> None:
        """Keep the tags right forever: sync the due contacts every so many seconds, or when woken."""
        while True:
            await self.sync_due()
            with anyio.move_on_after(every_s):
                await self._woken.wait()
            self._woken = anyio.Event()

    def wake(self) -> None:
        """Have `run` sync the due contacts at once."""
        self._woken.set()

    async def open_week(self) -> tuple[date, bool]:
        """Return the current week, and whether it is not the recorded one; at first none is recorded.

        If it is not, record it and mark every linked contact due.
        """
        week = await self._weeks.current()
        has_begun = week != await self._due.week()
        if has_begun:
            await self._due.begin_week(week)
        return week, has_begun

    async def sync_due(self) -> None:
        """Give all due contacts their tag; a contact that becomes due meanwhile may stay due."""
        if self._kind.why is not None and not self._kind.has_due:
            await self.open_week()
            return
        self._held.try_tags_now(self._kind.take_due())
        await for_each(self._changes(), self._apply, at_once=CHANGES_AT_ONCE)

    async def sync_one(self, contact: ContactId) -> None:
        """Give one contact its tag, whether it was due or not, or is held; the others stay due."""
        self._held.try_tags_now([contact])
        await self._due.mark_due([contact])
        week, _ = await self.open_week()
        # The first due contact from this id on: this one, or another one if this one is not linked.
        found = await self._due.page(ContactId(contact - 1), 1)
        page = [due for due in found if due.record.contact.id == contact]
        for change in await self._prepare(page, week):
            await self._apply(change)
        if not page:
            await self._held.end(HeldKind.TAG, [contact])

    async def sync_held(self) -> None:
        """Give those contacts their tag whose held tag is due for another try."""
        for contact in self._held.tags_due():
            await self.sync_one(contact)

    async def try_held_again(self) -> None:
        """Try all held tags once more, for `LAST_TRIES_S`."""
        self._held.make_due(HeldKind.TAG)
        with anyio.move_on_after(LAST_TRIES_S):
            await self.sync_held()

    # --- step 1: decide which tags change ---

    async def _changes(self) -> AsyncIterator[_TagChange]:
        """Yield the changes of the contacts whose tag differs; the others are not due any more."""
        after = ContactId(0)
        while True:
            week, has_begun = await self.open_week()
            if has_begun:
                after = ContactId(0)  # the contacts before are due again
            page = await self._due.page(after, PAGE_ROWS)
            if not page:
                return
            after = page[-1].record.contact.id
            for change in await self._prepare(page, week):
                yield change

    async def _prepare(self, page: Sequence[DueContact], week: date) -> list[_TagChange]:
        """Return the changes of the contacts whose tag differs; record that the others are not due.

        New contacts stay due, and so do held ones until their next try, and all while tags are paused. For
        each contact with a change, record that its tag is not known from now on.
        """
        paused = await self._kind.held([due.record.contact.id for due in page])
        page = [due for due in page if due.record.contact.id not in paused]
        changes = await self._decide(page, week)
        discarded = {change.id for change in changes if self._is_discarded(change)}
        differing = {change.id for change in changes} - discarded
        changes = [change for change in changes if change.id in differing and not self._has_to_wait(change)]
        new = {due.record.contact.id for due in page if due.record.contact.status is ContactStatus.NEW}
        if right := [due for due in page if due.record.contact.id not in differing | new]:
            self._kind.forget([due.record.contact.id for due in right])
            await self._clear_due(right)
        if changes:
            await self._due.record_tags_unknown([change.id for change in changes])
        return changes

    async def _decide(self, page: Sequence[DueContact], week: date) -> list[_TagChange]:
        """Return the changes that the current rows of these contacts ask for."""
        # The bases are those of the page, which was read before the customers' rows. So `_is_current` finds
        # whatever changed of a contact while or after the rows were read.
        bases = [_basis(due) for due in page]
        contacts = await read_current(self._customers, self._site_id, [due.record for due in page])
        statuses = await self._weeks.statuses(counted_customers(contacts), week)
        tags = [each.week_tag(statuses) if each.counted else None for each in contacts]
        return [
            _TagChange(due, tag, basis)
            for due, tag, basis in zip(page, tags, bases, strict=True)
            if _differs(due.record, tag)
        ]

    # --- step 2: change them ---

    async def _apply(self, change: _TagChange) -> None:
        """Change a contact's tag. It stays due if it is held, or the basis of the decision changed."""
        async with self._locks.hold([change.id]):
            if not await self._is_current(change) or await self._kind.held([change.id]):
                return
            sent_at = self._kind.now()
            try:
                await self._change(change.due.record, change.tag)
            except RecordsHeld as error:
                await self._hold(change, "; ".join(error.why.values()))
            except ContactGone:
                self._kind.forget([change.id])
                await self._clear_due([change.due])  # there is no contact to be tagged
            except Rejected as error:
                await self._hold_refused(change, error.reply)
            except PermissionRefused as error:
                await self._hold_refused(change, str(error), NO_PERMISSION)
            else:
                at_fault = self._kind.accepted([change.id], sent_at=sent_at)
                await self._clear_due([change.due, *at_fault.values()])

    async def _clear_due(self, due: Sequence[DueContact]) -> None:
        """Record that contacts are neither due nor held any more."""
        await self._held.end(HeldKind.TAG, (each.record.contact.id for each in due))
        await self._due.clear_due(due)

    async def _hold_refused(self, change: _TagChange, reply: str, text: str | None = None) -> None:
        """Hold a contact whose tag is refused: it stays due."""
        why = self._kind.provisional(change.id, change.due, reply, text=text)
        await self._hold(change, why[change.id], is_suspect=False)

    async def _hold(self, change: _TagChange, reply: str, *, is_suspect: bool = True) -> None:
        silent = Silent(change.id, change.fingerprint, reply, is_suspect=is_suspect)
        await self._held.hold(HeldKind.TAG, {change.id: silent})

    def _is_discarded(self, change: _TagChange) -> bool:
        known = self._held.unchanged(HeldKind.TAG, change)
        return known is not None and known.is_discarded

    def _has_to_wait(self, change: _TagChange) -> bool:
        """Return whether a contact is held, has not changed, and its next try has not come."""
        known = self._held.unchanged(HeldKind.TAG, change)
        return known is not None and not self._held.is_due(known.key)

    async def _is_current(self, change: _TagChange) -> bool:
        """Return whether what a decision rests on is unchanged; the contact's lock is held."""
        # The first due contact from this id on. If this one is not due any more, it is another one, or none;
        # the basis of another one has another id.
        found = await self._due.page(ContactId(change.id - 1), 1)
        return bool(found) and _basis(found[0]) == change.basis

    async def _change(self, record: ContactRecord, tag: WeekTag | None) -> None:
        """Take every other tag off, then put the right one on. Raises ContactGone, RecordsHeld."""
        ac_id = record.ac_id or await self._tags.find(record.contact)
        if ac_id is None:
            return
        tag_links = await self._tag_links(record, ac_id)
        for other in tag_links.keys() - {tag}:
            await self._tags.remove(tag_links[other])
        if tag is None:
            return
        # The first half of the change, above, took the old tag off; the second half puts the new one on. A
        # stop between them would leave the contact without a tag. So the second half is tried twice: first
        # for PATIENCE_S, shielded from a stop, then, if that was too short (in an outage), without a shield.
        with anyio.move_on_after(PATIENCE_S, shield=True) as shielded:
            await self._put(record.contact.id, ac_id=ac_id, tag=tag, link=tag_links.get(tag))
        if shielded.cancelled_caught:
            await self._put(record.contact.id, ac_id=ac_id, tag=tag, link=tag_links.get(tag))

    async def _put(self, contact: ContactId, *, ac_id: AcId, tag: WeekTag, link: int | None) -> None:
        """Put a tag on a contact unless it has a link already, and record it."""
        if link is None:
            link = await self._tags.add(ac_id, tag)
        await self._due.record_tag(contact, ac_id=ac_id, tag=tag, link=link)

    async def _tag_links(self, record: ContactRecord, ac_id: AcId) -> Mapping[WeekTag, int]:
        """Return the week tags on a contact with their links; ask ActiveCampaign if the record lacks them.

        The record was read before `_prepare` recorded that the tag is not known. So it has the tag that was
        known until then.
        """
        if record.tag is not None and record.tag_link is not None:
            return {record.tag: record.tag_link}
        return await self._tags.links(ac_id)


def _basis(due: DueContact) -> tuple[object, ...]:
    """Return what of a due contact the decision about its tag rests on."""
    record, mark = due
    contact = record.contact
    return contact.id, contact.email, contact.status, record.customers, record.ac_id, mark


def _differs(record: ContactRecord, tag: WeekTag | None) -> bool:
    """Return whether a contact's tag must change.

    In a record, None means that the tag is not known, never that there is none. So a contact that must have
    no tag always differs: its tags are removed, or ActiveCampaign is asked whether there are any.
    """
    return record.contact.is_linked and (tag is None or record.tag is not tag)
