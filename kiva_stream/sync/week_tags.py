"""Week tags: every contact has the one tag that its orders of the current week give it.

They are worked behind the entries, from a set of contacts whose tag may differ; a new week puts every linked
contact into it. A swap takes the old tag off before it puts the new one on, so that a contact never has two;
before that, the state says that its tag is not known. Whoever comes after an interrupted swap asks
ActiveCampaign what is there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import anyio

from kiva_stream.errors import AccountRefused, ContactGone, Rejected
from kiva_stream.model.contacts import ContactRecord, ContactStatus, DueContact
from kiva_stream.model.customers import CustomerAccount
from kiva_stream.model.ids import AcId, ContactId, CustomerId
from kiva_stream.model.week_tags import WeekTag
from kiva_stream.observability.logs import log
from kiva_stream.ports.destination import Contacts, WeekTags
from kiva_stream.ports.source import Customers, Weeks
from kiva_stream.ports.state import TagsDue
from kiva_stream.primitives.workers import for_each
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.desired_contact import countable, week_tag

PAGE_ROWS = 100
REFUSALS = 3  # of contacts one after the other, with none accepted between
PATIENCE_S = 10  # how long a stop waits for the second half of a swap
SWAPS_AT_ONCE = 8  # enough to use up five requests a second, however long each takes


class _Swap(NamedTuple):
    """A contact whose tag is to be another one; None: it is to have none."""

    due: DueContact
    tag: WeekTag | None
    basis: tuple[object, ...]  # what the decision rests on

    @property
    def id(self) -> ContactId:
        return self.due.record.contact.id


class WeekTagSync:
    """Gives the contacts of one site their week tags.

    Every call raises AccountRefused, SourceError, CheckpointError, or ExceptionGroups of them.
    """

    def __init__(
        self,
        site_id: int,
        due: TagsDue,
        weeks: Weeks,
        customers: Customers,
        tags: WeekTags,
        contacts: Contacts,
        locks: ContactLocks,
    ) -> None:
        self._site_id = site_id
        self._due = due
        self._weeks = weeks
        self._customers = customers
        self._tags = tags
        self._contacts = contacts
        self._locks = locks
        self._woken = anyio.Event()
        self._refused_in_a_row = 0

    async def run(self, every_s: float) -> None:
        """Keep the tags right, for ever; look again every so many seconds, or when woken."""
        while True:
            await self.sync_due()
            with anyio.move_on_after(every_s):
                await self._woken.wait()
            self._woken = anyio.Event()

    def wake(self) -> None:
        """Have `run` look at once."""
        self._woken.set()

    async def look_at_week(self) -> None:
        """Make every linked contact due when the week is another one than the tags speak of."""
        await self._look_at_week()

    async def _look_at_week(self) -> tuple[date, bool]:
        """Return the week that the tags speak of, and whether they did not do so before."""
        week = await self._weeks.current()
        is_new = week != await self._due.week()
        if is_new:
            await self._due.begin_week(week)
        return week, is_new

    async def sync_due(self) -> None:
        """Give all contacts that are due their tag; a contact that becomes due meanwhile may stay so."""
        await for_each(self._differing(), self._swap, at_once=SWAPS_AT_ONCE)

    async def sync_one(self, contact: ContactId) -> None:
        """Give one contact its tag, whether it was due or not, and leave the others due."""
        await self._due.mark_due([contact])
        week, _ = await self._look_at_week()
        page = await self._due.page(ContactId(contact - 1), 1)
        for swap in await self._begun([due for due in page if due.record.contact.id == contact], week):
            await self._swap(swap)

    # --- which tag ---

    async def _differing(self) -> AsyncIterator[_Swap]:
        """Yield the contacts whose tag differs, and settle those whose tag is right."""
        after = ContactId(0)
        while True:
            week, is_new = await self._look_at_week()
            if is_new:
                after = ContactId(0)  # those before are due again
            page = await self._due.page(after, PAGE_ROWS)
            if not page:
                return
            after = page[-1].record.contact.id
            for swap in await self._begun(page, week):
                yield swap

    async def _begun(self, page: Sequence[DueContact], week: date) -> list[_Swap]:
        """Settle those whose tag is right; return the others, whose tag is not known from now on."""
        swaps = await self._swaps(page, week)
        await self._settle_others(page, swaps)
        if swaps:
            await self._due.record_tags_unknown([swap.id for swap in swaps])
        return swaps

    async def _swaps(self, page: Sequence[DueContact], week: date) -> list[_Swap]:
        bases = [_basis(due) for due in page]  # first: what is read later is no older
        tags = await self._wanted([due.record for due in page], week)
        return [
            _Swap(due, tags[due.record.contact.id], basis)
            for due, basis in zip(page, bases, strict=True)
            if _differs(due.record, tags[due.record.contact.id])
        ]

    async def _settle_others(self, page: Sequence[DueContact], swaps: Sequence[_Swap]) -> None:
        """Settle those that need no swap; who is not at ActiveCampaign yet stays due."""
        differing = {swap.id for swap in swaps}
        right = [
            due
            for due in page
            if due.record.contact.id not in differing and due.record.contact.status is not ContactStatus.NEW
        ]
        if right:
            await self._due.clear_due(right)

    async def _wanted(self, contacts: Sequence[ContactRecord], week: date) -> dict[ContactId, WeekTag | None]:
        """Return the tags of contacts by the rows there are now; None where no customer counts."""
        rows = await self._customers.accounts({each for linked in contacts for each in linked.customers})
        accounts = {account.customer.id: account for account in rows}
        counted = {linked.contact.id: self._countable(linked, accounts) for linked in contacts}
        customers = {customer for mine in counted.values() for customer in mine}
        statuses = await self._weeks.statuses(customers, week)
        return {
            contact: week_tag(statuses.get(customer, ()) for customer in mine) if mine else None
            for contact, mine in counted.items()
        }

    def _countable(
        self, linked: ContactRecord, accounts: Mapping[CustomerId, CustomerAccount]
    ) -> list[CustomerId]:
        mine: Iterable[CustomerAccount] = (accounts[each] for each in linked.customers if each in accounts)
        return [account.customer.id for account in countable(mine, self._site_id, linked.contact.email)]

    # --- swapping ---

    async def _swap(self, swap: _Swap) -> None:
        """Change a contact's tag, unless something about it changed: then it stays due."""
        async with self._locks.hold([swap.id]):
            if not await self._holds(swap):
                return
            try:
                await self._change(swap.due.record, swap.tag)
            except ContactGone:
                pass  # nobody is there to be tagged
            except Rejected as error:
                self._take_refusal(swap, error)
            else:
                self._refused_in_a_row = 0
            await self._due.clear_due([swap.due])

    def _take_refusal(self, swap: _Swap, error: Rejected) -> None:
        """Leave a contact until it is due again; when one after the other is refused, it is the account's."""
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= REFUSALS:
            raise AccountRefused(f"ActiveCampaign refuses week tags; run `kiva-stream setup`: {error.reply}")
        log.warning("a week tag is refused", contact=swap.id, said=error.reply)

    async def _holds(self, swap: _Swap) -> bool:
        """Return whether what a swap rests on is still so, now that nobody else changes the contact."""
        found = await self._due.page(ContactId(swap.id - 1), 1)
        return bool(found) and _basis(found[0]) == swap.basis

    async def _change(self, linked: ContactRecord, tag: WeekTag | None) -> None:
        """Take off every other tag, then put on the right one. Raises ContactGone."""
        ac_id = linked.ac_id or await self._contacts.find(linked.contact.email)
        if ac_id is None:
            return
        there = await self._there(linked, ac_id)
        for other in there.keys() - {tag}:
            await self._tags.remove(there[other])
        if tag is None:
            return
        with anyio.move_on_after(PATIENCE_S, shield=True) as begun:  # a stop leaves nobody without a tag
            await self._put(linked.contact.id, ac_id, tag, there.get(tag))
        if begun.cancelled_caught:  # but waits for no outage
            await self._put(linked.contact.id, ac_id, tag, there.get(tag))

    async def _put(self, contact: ContactId, ac_id: AcId, tag: WeekTag, link: int | None) -> None:
        """Put a tag on a contact, unless it has it, and keep its link."""
        if link is None:
            link = await self._tags.add(ac_id, tag)
        await self._due.record_tag(contact, ac_id, tag, link)

    async def _there(self, linked: ContactRecord, ac_id: AcId) -> Mapping[WeekTag, int]:
        """Return the week tags of a contact, with their links: as they are known, else as they are."""
        if linked.tag is not None and linked.tag_link is not None:
            return {linked.tag: linked.tag_link}
        return await self._tags.links(ac_id)


def _basis(due: DueContact) -> tuple[object, ...]:
    """Return what of a due contact the decision about its tag rests on."""
    linked, mark = due
    contact = linked.contact
    return contact.id, contact.email, contact.status, linked.customers, linked.ac_id, mark


def _differs(linked: ContactRecord, tag: WeekTag | None) -> bool:
    """Return whether a contact needs a swap; that it has no tag is never known."""
    return linked.contact.status is ContactStatus.LINKED and (tag is None or linked.tag is not tag)
