"""Contact sync: brings the site's contacts to ActiveCampaign, before their first event.

Level-triggered: what a contact should look like is made of the current rows, and only what differs from
what ActiveCampaign last confirmed is sent. An interrupted run is simply run again. Imports of history start
no automations.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream
from msgspec.structs import replace

from kiva_stream.contacts import countable, desired_contact, fingerprint
from kiva_stream.errors import AccountRefused, Rejected, RowsRejected
from kiva_stream.model import (
    Contact,
    ContactId,
    ContactStatus,
    CustomerId,
    DesiredContact,
    Email,
    ImportReport,
    ImportState,
    Linked,
    ListStatus,
    OpenImport,
    Reason,
)
from kiva_stream.ports import Contacts, Customers, Links, Sleep
from kiva_stream.settings import ActiveCampaignSettings
from kiva_stream.telemetry import log

PAGE_ROWS = 1_000
IMPORTS_AT_ONCE = 4  # while ActiveCampaign works on one, the next are on their way


class Wanted(NamedTuple):
    """A contact that ActiveCampaign does not show as the shop has it."""

    contact: Contact
    desired: DesiredContact
    fingerprint: bytes


class ContactSync:
    """Implements the port Arrivals, and the snapshot of all customers that comes before the events.

    Every call raises AccountRefused, SourceError, CheckpointError.
    """

    def __init__(
        self,
        site_id: int,
        customers: Customers,
        links: Links,
        contacts: Contacts,
        settings: ActiveCampaignSettings,
        sleep: Sleep = anyio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._site_id = site_id
        self._customers = customers
        self._links = links
        self._contacts = contacts
        self._settings = settings
        self._sleep = sleep
        self._now = now
        self._turn = anyio.Lock()
        self._waiting: dict[ContactId, datetime] = {}

    async def snapshot(self, on_done: Callable[[int], None]) -> None:
        """Bring every customer with a usable address; `on_done` hears how many contacts came at a time."""
        for started in await self._links.open_imports():
            if await self._finish(started):
                on_done(len(started.fingerprints))
        await self._link_customers()
        send, receive = anyio.create_memory_object_stream[list[Wanted]]()
        async with anyio.create_task_group() as imports, receive:
            for _ in range(IMPORTS_AT_ONCE):
                imports.start_soon(self._import_each, receive.clone(), on_done)
            async with send:
                async for wanted in self._changed():
                    await send.send(wanted)

    async def ensure(self, contact: Contact, newest: datetime) -> None:
        """Return when a contact is linked or rejected. Those who wait at the same time go together.

        `newest` is when the newest of the entries that wait for it was inserted.
        """
        self._waiting[contact.id] = newest
        async with self._turn:
            if contact.status is ContactStatus.NEW:
                waiting = dict(self._waiting)
                await self._bring(await self._links.contacts(waiting), waiting)
                for done in waiting:
                    del self._waiting[done]

    async def _bring(self, contacts: list[Linked], waiting: Mapping[ContactId, datetime]) -> None:
        wanted = await self._wanted(contacts)
        size = self._settings.contacts_per_import
        for start in range(0, len(wanted), size):
            part = wanted[start : start + size]
            newest = max(waiting[each.contact.id] for each in part)
            await self._import(part, exclude_automations=self._is_history(newest))
        for linked in contacts:
            if linked.contact.status is ContactStatus.NEW:  # nobody of this address is left at the shop
                await self._links.reject(linked.contact.id, Reason.NO_CONTACT)

    def _is_history(self, inserted_at: datetime) -> bool:
        return self._now() - inserted_at > timedelta(seconds=self._settings.realtime_max_age_s)

    async def _link_customers(self) -> None:
        """Give every customer with a usable address its contact."""
        after = CustomerId(0)
        while page := await self._customers.page(after, PAGE_ROWS):
            after = page[-1].id
            await self._links.link(
                {
                    customer.id: customer.email
                    for customer in page
                    if customer.email and not customer.erased and not customer.is_test
                }
            )

    async def _changed(self) -> AsyncIterator[list[Wanted]]:
        """Yield what differs from what ActiveCampaign confirmed, an import's worth at a time."""
        size = self._settings.contacts_per_import
        wanted: list[Wanted] = []
        after = ContactId(0)
        while page := await self._links.page(after, PAGE_ROWS):
            after = page[-1].contact.id
            wanted += await self._wanted(page)
            while len(wanted) >= size:
                yield wanted[:size]
                del wanted[:size]
        if wanted:
            yield wanted

    async def _wanted(self, contacts: Iterable[Linked]) -> list[Wanted]:
        open_to_change = [
            linked for linked in contacts if linked.contact.status is not ContactStatus.REJECTED
        ]
        ids = {customer for linked in open_to_change for customer in linked.customers}
        accounts = {account.customer.id: account for account in await self._customers.accounts(ids)}
        wanted = []
        for linked in open_to_change:
            contact = linked.contact
            mine = (accounts[customer] for customer in linked.customers if customer in accounts)
            if counted := countable(mine, self._site_id, contact.email):
                desired = desired_contact(contact.email, counted, contact.status is ContactStatus.NEW)
                if (mark := fingerprint(desired)) != linked.fingerprint:
                    wanted.append(Wanted(contact, desired, mark))
        return wanted

    async def _import_each(
        self, lists: MemoryObjectReceiveStream[list[Wanted]], on_done: Callable[[int], None]
    ) -> None:
        async with lists:
            async for wanted in lists:
                await self._import(wanted, exclude_automations=True)
                on_done(len(wanted))

    async def _import(self, wanted: list[Wanted], *, exclude_automations: bool) -> None:
        """Import contacts until ActiveCampaign completed it; without those that it refuses."""
        while wanted:
            try:
                desired = [each.desired for each in wanted]
                accepted = await self._contacts.start_import(desired, exclude_automations=exclude_automations)
            except RowsRejected as error:
                self._refuse_to_lose(len(error.reasons), len(wanted))
                for index in error.reasons:
                    await self._refused(wanted[index].contact, error.reasons[index])
                wanted = [each for index, each in enumerate(wanted) if index not in error.reasons]
                continue
            sent = {each.contact.id: each.fingerprint for each in wanted}
            started = OpenImport(accepted.id, sent, accepted.is_short)
            await self._links.keep_import(started)
            if await self._finish(started):
                return

    async def _finish(self, started: OpenImport) -> bool:
        """Wait for the end of an import and keep what came of it; False: it is lost, send it again."""
        report = await self._ended(started.id)
        if report.state is ImportState.LOST:
            log.warning("an import is lost; its contacts are sent again", import_id=started.id)
            await self._links.close_import(started, [])
            return False
        contacts = await self._links.contacts(started.fingerprints)
        absent = report.failures | (await self._absent(contacts) if started.is_short else frozenset())
        failed = [linked for linked in contacts if linked.contact.email in absent]
        came = [linked.contact.id for linked in contacts if linked.contact.email not in absent]
        await self._links.close_import(started, came)
        self._refuse_to_lose(len(failed), len(started.fingerprints))
        for each in await self._wanted(failed):
            await self._sync_alone(each)
        return True

    async def _absent(self, contacts: Iterable[Linked]) -> frozenset[Email]:
        """Return whom ActiveCampaign does not have: of those on its exclusion list it says nothing."""
        emails = [linked.contact.email for linked in contacts]
        return frozenset([email for email in emails if not await self._contacts.find(email)])

    async def _ended(self, import_id: str) -> ImportReport:
        while True:
            await self._sleep(self._settings.import_poll_s)
            report = await self._contacts.import_report(import_id)
            if report.state is not ImportState.RUNNING:
                return report

    async def _sync_alone(self, wanted: Wanted) -> None:
        """Try a contact that failed in an import once more, without the list: it may fail for that alone.

        What is confirmed is what was sent: an opt-out, which is of the list, is left to the next run.
        """
        alone = replace(wanted.desired, list_status=ListStatus.LEAVE)
        try:
            await self._contacts.sync(alone)
        except Rejected as error:
            await self._refused(wanted.contact, error.reply)
        else:
            await self._links.confirm(wanted.contact.id, fingerprint(alone))

    async def _refused(self, contact: Contact, said: str) -> None:
        """Reject a contact that ActiveCampaign refuses; one that it has stays as it is there."""
        if contact.status is ContactStatus.LINKED:
            log.warning("a change of a contact is refused; it stays as it was", contact=contact.id, said=said)
        else:
            await self._links.reject(contact.id, Reason.AC_REJECTED)

    def _refuse_to_lose(self, failed: int, size: int) -> None:
        """Raise AccountRefused when so many of an import failed that it is not about these people."""
        share, least = self._settings.import_failure_share, self._settings.import_failure_min
        if failed >= least and failed > share * size:
            raise AccountRefused(
                f"ActiveCampaign refused {failed} of {size} contacts of one import: look at the account's "
                "contact limit and its exclusion list, then start again. Nobody was dead-lettered."
            )
