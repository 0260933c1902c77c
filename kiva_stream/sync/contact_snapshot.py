"""The snapshot of all contacts, which a run takes before its first event."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import NamedTuple

from kiva_stream.model.customers import contact_emails
from kiva_stream.model.ids import LOWEST_ID, ContactId, CustomerId
from kiva_stream.observability.logs import log
from kiva_stream.primitives.workers import for_each
from kiva_stream.sync.contact_changes import ContactChange, ContactChanges
from kiva_stream.sync.contact_moves import ContactMoves
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_upserts import ContactUpserts
from kiva_stream.sync.contact_writes import ContactWrites
from kiva_stream.sync.current_contacts import CurrentContact
from kiva_stream.sync.desired_contact import customers_to_move
from kiva_stream.sync.dirty_contacts import DirtyContacts

PAGE_ROWS = 250  # the most that an import takes
IMPORTS_AT_ONCE = 4  # the next are sent while ActiveCampaign works on one
MOST_PLACES = (
    25  # contacts that a snapshot tries to put on the list, since each may cost an import of its own
)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)  # given as the moment of moves: imports start no automations


class _Part(NamedTuple):
    """Changes that fit into one import; those that are history start no automations."""

    changes: list[ContactChange]
    is_history: bool


class ContactSnapshot:
    """Upserts the contacts of all customers that belong at ActiveCampaign: see `contact_emails`.

    With `is_live`, a contact that is not linked starts automations if one of its customers joined the shop a
    short time ago.
    Every call raises AccountRefused, SourceError, CheckpointError, HeldError, or ExceptionGroups of them.
    """

    def __init__(
        self,
        ports: ContactPorts,
        *,
        changes: ContactChanges,
        writes: ContactWrites,
        moves: ContactMoves,
        upserts: ContactUpserts,
        dirty: DirtyContacts,
        is_live: bool,
    ) -> None:
        self._ports = ports
        self._changes = changes
        self._writes = writes
        self._moves = moves
        self._upserts = upserts
        self._dirty = dirty
        self._is_live = is_live

    async def take(self, on_done: Callable[[int], None]) -> None:
        """Take the snapshot.

        `on_done` is called with the number of contacts of each part that is written; first with those of all
        imports that an earlier run began, if they wrote any.
        """
        # 1. Wait for the imports that an earlier run began, so that none is sent twice.
        if imported := await self._writes.resume():
            on_done(imported)
        # 2. Give every customer a contact, and learn the ids of those that ActiveCampaign has.
        await self._link_customers()
        await self._writes.learn_ids()
        # 3. Write the contacts that differ, and learn the ids of those that this created.
        written = 0
        off: list[ContactChange] = []

        async def write(part: _Part) -> None:
            nonlocal written
            held = await self._writes.write(part.changes, exclude_automations=part.is_history)
            for change in part.changes:
                if change.id in held:  # its first batch tries again, and waits
                    log.warning("a contact is held", contact=change.id, why=held[change.id])
                    self._dirty.mark(change.record.contact, ())
            written += len(part.changes)
            on_done(len(part.changes))

        await for_each(self._parts(off), write, at_once=IMPORTS_AT_ONCE)
        if written:
            await self._writes.learn_ids()
        # 4. Try again to put contacts on the list that imports did not take, others each time.
        tried = random.sample(off, min(len(off), MOST_PLACES))
        await self._writes.put_on_list(tried, exclude_automations=True)
        # 5. Make all week tags due: orders may have changed without an entry that says so.
        await self._ports.due.mark_all_due()

    async def _link_customers(self) -> None:
        """Give every customer of `contact_emails` a contact, and move those whose address changed."""
        after = CustomerId(LOWEST_ID)
        while page := await self._ports.customers.page(after, PAGE_ROWS):
            after = page[-1].id
            emails = contact_emails(page)
            contacts = await self._ports.links.link(emails)
            await self._upserts.move(customers_to_move(contacts, emails), _LONG_AGO)

    async def _parts(self, off: list[ContactChange]) -> AsyncIterator[_Part]:
        """Yield the changes in parts that fit into one import; a part is all history, or has none.

        A part is full, and yielded, when the changes gathered for it are more than fit. Changes of contacts
        that are to be put on the list are added to `off`.
        """
        history, recent = _Part([], is_history=True), _Part([], is_history=False)
        async for page in self._pages():
            off += self._changes.not_on_list(page)
            joined = {each.id for each in page if self._has_just_joined(each)}
            for change in await self._changes.of(page):
                (recent if change.id in joined else history).changes.append(change)
            for changes, is_history in (history, recent):
                while (size := self._writes.fitting(changes)) < len(changes):
                    yield _Part(changes[:size], is_history)
                    del changes[:size]
        for part in (history, recent):
            if part.changes:
                yield part

    async def _pages(self) -> AsyncIterator[list[CurrentContact]]:
        """Yield all contacts by pages; dissolve those without customers, and unsubscribe where it is due."""
        after = ContactId(0)
        while page := await self._ports.links.page(after, PAGE_ROWS):
            after = page[-1].contact.id
            await self._moves.dissolve_left(page)
            yield await self._upserts.read_and_unsubscribe(page)

    def _has_just_joined(self, contact: CurrentContact) -> bool:
        """Return whether a contact is not linked and a customer of it joined the shop a short time ago.

        The answer is False in a run that is not live.
        """
        may_start = self._is_live and not contact.record.contact.is_linked
        return may_start and any(not self._writes.is_history(each.joined_at) for each in contact.counted)
