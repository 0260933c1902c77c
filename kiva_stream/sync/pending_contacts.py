"""Pending contacts: batches at the sender wait until their contacts show what their entries changed.

Contacts that are pending at the same moment are looked at together and written together, in three steps:

1. A need is queued (`wait_for`).
2. One task looks at all queued contacts: it reads their rows and finds which differ.
3. Each of a few tasks takes a part of the contacts that differ and writes it: at most what one import takes.
   Of fewer than `import_min_contacts`, it takes only linked contacts, or only those that are not.

| the contact, when it is looked at                    | then                                               |
|------------------------------------------------------|----------------------------------------------------|
| shows what its rows ask for                          | its batch goes on at once                          |
| is new, and no customer of its address is left       | it is rejected, and its batch goes on              |
| is one of `import_min_contacts` or more that differ  | it is imported with these                          |
| is one of fewer that differ, and is linked           | it is sent by itself, and waits for no import      |
| is one of fewer that differ, and is not linked       | it is imported with the others that are not linked |
| gets no answer, though others do                     | RecordsHeld is raised in `wait_for`                |
| cannot be looked at or written                       | the error is raised in `wait_for`                  |
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.deliveries import Need
from kiva_stream.model.ids import ContactId
from kiva_stream.ports.state import Links
from kiva_stream.primitives.signal import Signal
from kiva_stream.sync.contact_changes import ContactChange, ContactChanges
from kiva_stream.sync.contact_writes import ContactWrites
from kiva_stream.sync.current_contacts import CurrentContact

WRITES_AT_ONCE = 4  # so few that changes gather while these run, and are then written together


class PendingContact:
    """The need of one batch, until its contact is looked at and written, or an error ends that."""

    def __init__(self, need: Need) -> None:
        self.need = need
        self._found: asyncio.Future[CurrentContact] = asyncio.get_running_loop().create_future()

    async def wait(self) -> CurrentContact:
        """Return the contact as it was when it was looked at. Raises the error that ended the wait."""
        return await self._found

    def complete(self, found: CurrentContact) -> None:
        """Let the batch go on; without effect when it was cancelled."""
        if not self._found.done():
            self._found.set_result(found)

    def fail(self, error: Exception) -> None:
        """Have `wait` raise an error; without effect when the batch was cancelled."""
        if not self._found.done():
            self._found.set_exception(error)


class _Unwritten(NamedTuple):
    """A pending contact that differs."""

    pending: PendingContact
    found: CurrentContact
    change: ContactChange


class PendingContacts:
    """The contacts that batches wait for; a contact has one batch at a time."""

    def __init__(
        self,
        *,
        links: Links,
        changes: ContactChanges,
        writes: ContactWrites,
        import_min_contacts: int,
    ) -> None:
        self._links = links
        self._changes = changes
        self._writes = writes
        self._import_min_contacts = import_min_contacts
        self._queued: dict[ContactId, PendingContact] = {}  # to be looked at
        self._unwritten: dict[ContactId, _Unwritten] = {}  # looked at, to be written
        self._work_added = Signal()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Look at contacts and write them while this lasts."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._look_at_each)
            for _ in range(WRITES_AT_ONCE):
                group.start_soon(self._write_each)
            yield
            group.cancel_scope.cancel()

    # --- step 1: queue the need, and wait ---

    async def wait_for(self, need: Need) -> CurrentContact:
        """Return when the contact of a need is written or rejected, or does not differ.

        Needs `working`. Raises AccountRefused, SourceError, CheckpointError, HeldError, or ExceptionGroups of
        them.
        """
        contact, pending = need.contact.id, PendingContact(need)
        self._queued[contact] = pending
        self._work_added.notify()
        try:
            return await pending.wait()
        finally:
            # After a cancellation, or an error halfway in `_look`, one of the two dicts may have the contact.
            for queue in (self._queued, self._unwritten):
                queue.pop(contact, None)

    # --- step 2: look ---

    async def _look_at_each(self) -> None:
        while True:
            await self._work_added.wait_until(lambda: self._queued)
            taken, self._queued = self._queued, {}
            try:
                await self._look(taken)
            except Exception as error:  # noqa: BLE001  it is raised where it is waited for
                for pending in taken.values():
                    pending.fail(error)

    async def _look(self, taken: Mapping[ContactId, PendingContact]) -> None:
        """Find which of these contacts differ; the batches of the others go on."""
        current = await self._changes.current(await self._links.records(taken))
        changes = {change.id: change for change in await self._changes.of(current)}
        for found in current:
            pending = taken[found.id]
            if change := changes.get(found.id):
                self._unwritten[found.id] = _Unwritten(pending, found, change)
            else:
                await self._writes.finish(found.record)  # no-op unless it is new or held
                pending.complete(found)
        self._work_added.notify()

    # --- step 3: write the contacts that differ ---

    async def _write_each(self) -> None:
        while True:
            await self._work_added.wait_until(lambda: self._unwritten)
            part = self._take_part()
            try:
                held = await self._write(part)
            except Exception as error:  # noqa: BLE001  it is raised where it is waited for
                for each in part:
                    each.pending.fail(error)
            else:
                for each in part:
                    if why := held.get(each.found.id):
                        each.pending.fail(RecordsHeld("contacts", {each.found.id: why}))
                    else:
                        each.pending.complete(each.found)

    def _take_part(self) -> list[_Unwritten]:
        """Take contacts to be written together, at most as many as fit into one import.

        If fewer than `import_min_contacts` differ, take only linked contacts, or only those that are not
        linked: whichever the first is. These need an import, and a linked contact must not wait for its end.
        """
        part = list(self._unwritten.values())
        if len(part) < self._import_min_contacts:
            needs_import = part[0].change.needs_import
            part = [each for each in part if each.change.needs_import is needs_import]
        del part[self._writes.fitting([each.change for each in part]) :]
        for each in part:
            del self._unwritten[each.found.id]
        return part

    async def _write(self, part: Collection[_Unwritten]) -> dict[ContactId, str]:
        """Write contacts, and learn the ids of those that were created; return those that are held."""
        newest = max(each.pending.need.inserted_at for each in part)
        has_new = any(each.change.needs_import for each in part)
        changes = [each.change for each in part]
        held = await self._writes.write(changes, exclude_automations=self._writes.is_history(newest))
        if has_new:
            await self._writes.learn_ids()
        return held
