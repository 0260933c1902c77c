"""Contact writes: makes ActiveCampaign show contacts as they are wanted, many at once or one by one.

What is known to have arrived is written only after ActiveCampaign confirmed it; an interrupted import is
asked for again. A contact that is new there always comes by an import, since only an import can subscribe
without bringing back who has unsubscribed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from typing import NamedTuple

import anyio

from kiva_stream.errors import AccountRefused, Rejected, RowsRejected
from kiva_stream.model.bulk_imports import ImportReport, ImportState, OpenImport
from kiva_stream.model.contacts import ContactRecord, ContactStatus, DesiredContact, ListStatus
from kiva_stream.model.ids import ContactId
from kiva_stream.model.outcomes import Reason
from kiva_stream.observability.logs import log
from kiva_stream.ports.destination import Contacts
from kiva_stream.ports.state import Links, TagsDue
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.contact_locks import ContactLocks
from kiva_stream.sync.desired_contact import fingerprint


class ContactChange(NamedTuple):
    """A contact that ActiveCampaign does not show as the shop has it."""

    record: ContactRecord
    desired: DesiredContact

    @property
    def id(self) -> ContactId:
        """The contact's link."""
        return self.record.contact.id

    @property
    def unsubscribes(self) -> bool:
        """Whether it is to leave the list."""
        return self.desired.list_status is ListStatus.UNSUBSCRIBE


class ContactWrites:
    """Writes contacts of one account. Every call raises AccountRefused, CheckpointError."""

    def __init__(
        self,
        links: Links,
        due: TagsDue,
        contacts: Contacts,
        locks: ContactLocks,
        settings: ActiveCampaignSettings,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self._links = links
        self._due = due
        self._contacts = contacts
        self._locks = locks
        self._settings = settings
        self._sleep = sleep
        self._refusals: dict[ContactId, bytes] = {}  # of contacts that ActiveCampaign has

    def is_refused(self, wanted: ContactChange) -> bool:
        """Return whether ActiveCampaign refused just this of a contact that it has."""
        return self._refusals.get(wanted.id) == fingerprint(wanted.desired)

    async def resume(self) -> int:
        """Wait for the imports that an earlier run began; return how many contacts came by them."""
        came = 0
        for started in await self._links.open_imports():
            alone = await self._finish(started)
            came += 0 if alone is None else len(started.fingerprints) - len(alone)
        return came

    async def learn_ids(self) -> None:
        """Learn ActiveCampaign's ids of the contacts that it has had since the last time."""
        known_to = await self._links.known_to()
        while page := await self._contacts.page(known_to):
            known_to = max(page.values())
            await self._links.learn(page, known_to)

    def fitting(self, wanted: Sequence[ContactChange]) -> int:
        """Return how many of these, from the first, go into one import."""
        return self._contacts.fitting([each.desired for each in wanted])

    async def write(self, wanted: Sequence[ContactChange], *, exclude_automations: bool) -> None:
        """Return when ActiveCampaign confirmed or refused these contacts; they are few enough for an import.

        A few that it has already are sent one by one, so that nobody waits for an import.
        """
        new = [each for each in wanted if each.record.contact.status is not ContactStatus.LINKED]
        known = [each for each in wanted if each.record.contact.status is ContactStatus.LINKED]
        if len(wanted) >= self._settings.import_min_contacts:
            new, known = list(wanted), []
        async with anyio.create_task_group() as group:
            for each in known:
                group.start_soon(self.write_one, each)
            if new:
                await self.import_contacts(new, exclude_automations=exclude_automations)
        if notes := Counter(note for each in wanted for note in each.desired.notes):
            await self._links.note(notes)

    async def import_contacts(self, wanted: Sequence[ContactChange], *, exclude_automations: bool) -> None:
        """Import contacts until ActiveCampaign completed it; without those that it refuses."""
        async with self._locks.hold([each.id for each in wanted]):
            await self._links.give_tags(
                {each.id: tag for each in wanted if (tag := each.desired.tag) and each.record.tag is None}
            )
            alone = await self._import(list(wanted), exclude_automations=exclude_automations)
        for each in alone:
            await self.write_one(each)

    async def write_one(self, wanted: ContactChange) -> None:
        """Send one contact by itself, and take it off the list where that is wanted.

        It is not put on the list, and gets no tag, which are an import's to do.
        """
        async with self._locks.hold([wanted.id]):
            try:
                ac_id = await self._contacts.sync(wanted.desired)
                if wanted.unsubscribes:
                    await self._contacts.set_list(ac_id, subscribed=False)
            except Rejected as error:
                await self._refused(wanted, error.reply)
            else:
                await self._links.confirm(
                    wanted.id, fingerprint(wanted.desired), ac_id, unsubscribed=wanted.unsubscribes
                )

    async def set_list(self, linked: ContactRecord, *, subscribed: bool) -> None:
        """Put a contact that ActiveCampaign has on the list, or take it off."""
        async with self._locks.hold([linked.contact.id]):
            await self._set_list(linked, subscribed=subscribed)

    async def _set_list(self, linked: ContactRecord, *, subscribed: bool) -> None:
        contact = linked.contact
        ac_id = linked.ac_id or await self._contacts.find(contact.email)
        try:
            if ac_id is not None:
                await self._contacts.set_list(ac_id, subscribed=subscribed)
        except Rejected as error:
            log.warning("a place on the list is refused", contact=contact.id, said=error.reply)
        else:
            await self._links.on_list(contact.id, unsubscribed=not subscribed)

    async def _import(self, wanted: list[ContactChange], *, exclude_automations: bool) -> list[ContactChange]:
        """Import contacts; return those that failed in it, to be tried once more, alone."""
        while wanted:
            try:
                desired = [each.desired for each in wanted]
                accepted = await self._contacts.start_import(desired, exclude_automations=exclude_automations)
            except RowsRejected as error:
                self._refuse_to_lose(len(error.reasons), len(wanted))
                for index in error.reasons:
                    await self._refused(wanted[index], error.reasons[index])
                wanted = [each for index, each in enumerate(wanted) if index not in error.reasons]
                continue
            sent = {each.id: fingerprint(each.desired) for each in wanted}
            taken_off = frozenset(each.id for each in wanted if each.unsubscribes)
            started = OpenImport(accepted.id, sent, accepted.is_short, taken_off)
            await self._links.keep_import(started)
            by_id = {each.id: each for each in wanted}
            failed = await self._finish(started)
            if failed is not None:
                return [by_id[number] for number in failed]
        return []

    async def _finish(self, started: OpenImport) -> list[ContactId] | None:
        """Wait for an import's end, keep what came of it; return whom to try alone, None: it is lost."""
        report = await self._ended(started.id)
        if report.state is ImportState.LOST:
            log.warning("an import is lost; its contacts are sent again", import_id=started.id)
            await self._links.close_import(started, [])
            return None
        contacts = await self._links.contacts(started.fingerprints)
        failed = {each.contact.id for each in contacts if each.contact.email in report.failures}
        unsure: set[ContactId] = set()
        if started.is_short:
            unsure = {each.contact.id for each in contacts if each.ac_id is not None}
            failed |= await self._absent(started)
        came = started.fingerprints.keys() - failed - unsure
        await self._links.close_import(started, came)
        await self._due.forget_tags([each.contact.id for each in contacts if _is_new(each, failed)])
        self._refuse_to_lose(len(failed), len(started.fingerprints))
        return sorted(failed | unsure)

    async def _absent(self, started: OpenImport) -> set[ContactId]:
        """Return whom of a short import ActiveCampaign does not have: of those it excludes it says nothing.

        One that it had before proves nothing by being there.
        """
        await self.learn_ids()
        left = [each.contact for each in await self._links.contacts(started.fingerprints) if not each.ac_id]
        return {contact.id for contact in left if await self._contacts.find(contact.email) is None}

    async def _ended(self, import_id: str) -> ImportReport:
        while True:
            await self._sleep(self._settings.import_poll_s)
            report = await self._contacts.import_report(import_id)
            if report.state is not ImportState.RUNNING:
                return report

    async def _refused(self, wanted: ContactChange, said: str) -> None:
        """Reject a contact that ActiveCampaign refuses; one that it has stays as it is, but for the list."""
        if wanted.record.contact.status is ContactStatus.LINKED:
            self._refusals[wanted.id] = fingerprint(wanted.desired)
            log.warning("a change of a contact is refused; it stays as it was", contact=wanted.id, said=said)
            if wanted.unsubscribes:
                await self._set_list(wanted.record, subscribed=False)
        else:
            await self._links.reject(wanted.id, Reason.AC_REJECTED)

    def _refuse_to_lose(self, failed: int, size: int) -> None:
        """Raise AccountRefused when so many of an import failed that it is not about these people."""
        share, least = self._settings.import_failure_share, self._settings.import_failure_min
        if failed >= least and failed > share * size:
            raise AccountRefused(
                f"ActiveCampaign refused {failed} of {size} contacts of one import: look at the account's "
                "contact limit and its exclusion list, then start again. Nobody was dead-lettered."
            )


def _is_new(linked: ContactRecord, among: Container[ContactId]) -> bool:
    return linked.contact.id in among and linked.contact.status is not ContactStatus.LINKED
