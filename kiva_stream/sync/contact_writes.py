"""Contact writes: ActiveCampaign gets contact changes, many by one import or each by a request of its own.

| the contact    | number of contacts written together  | it is sent                                    |
|----------------|--------------------------------------|-----------------------------------------------|
| any            | `import_min_contacts` or more        | by one import with all of them                |
| is not linked  | fewer                                | by one import with those that are not linked  |
| is linked      | fewer                                | by a request of its own                       |

| the import                                               | then the contact is sent                      |
|----------------------------------------------------------|-----------------------------------------------|
| reports that the contact failed, or may have left it out | once more, by a request of its own            |
| was lost                                                 | once more, by an import                       |

A contact that is not linked is sent by an import first: any other request that subscribes would also
resubscribe a contact that has unsubscribed at ActiveCampaign. If the contact fails there, it is sent by a
request of its own, which does not subscribe it. In the state a contact is linked only after ActiveCampaign
confirmed it. A new process waits for the imports that an earlier one began, and does not send them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import anyio

from kiva_stream.errors import AccountRefused, Rejected, RowsRejected
from kiva_stream.model.bulk_imports import ImportReport, ImportState, OpenImport
from kiva_stream.model.contacts import ContactRecord, ContactStatus
from kiva_stream.model.ids import ContactId
from kiva_stream.model.outcomes import Reason
from kiva_stream.observability.logs import log
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.desired_contact import fingerprint


class ContactWrites:
    """Writes the contacts of one account.

    Its coroutines raise AccountRefused, CheckpointError, HeldError; `write` raises ExceptionGroups of them.
    """

    def __init__(
        self,
        ports: ContactPorts,
        settings: ActiveCampaignSettings,
        *,
        sleep: Sleep = anyio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._sleep = sleep
        self._now = now
        self._refusals: dict[ContactId, bytes] = {}  # the fingerprints of refused changes of linked contacts

    def is_history(self, moment: datetime) -> bool:
        """Return whether what happened at a moment is too old to start automations."""
        return self._now() - moment > timedelta(seconds=self._settings.realtime_max_age_s)

    def is_refused(self, change: ContactChange) -> bool:
        """Return whether ActiveCampaign refused exactly this change of a linked contact in this process.

        A contact that is not linked is rejected when its change is refused; the state knows that.
        """
        return self._refusals.get(change.id) == fingerprint(change.desired)

    async def resume(self) -> int:
        """Wait for the imports that an earlier run began; return how many contacts they wrote.

        Contacts that they did not write are not sent here: they still differ when they are next compared.
        """
        written = 0
        for started in await self._ports.links.open_imports():
            unconfirmed = await self._finish(started)
            written += 0 if unconfirmed is None else len(started.fingerprints) - len(unconfirmed)
        return written

    async def learn_ids(self) -> None:
        """Learn ActiveCampaign's ids of the contacts that were created since the last call."""
        known_to = await self._ports.links.ids_known_up_to()
        while page := await self._ports.contacts.page(known_to):
            known_to = max(page.values())
            await self._ports.links.record_ids(page, known_to)

    def fitting(self, changes: Sequence[ContactChange]) -> int:
        """Return how many of these changes, from the first, fit into one import."""
        return self._ports.contacts.count_fitting([each.desired for each in changes])

    async def write(self, changes: Sequence[ContactChange], *, exclude_automations: bool) -> None:
        """Write contacts until ActiveCampaign confirmed or refused each; they must fit into one import.

        Fewer than `import_min_contacts` are divided: linked contacts are sent one by one, which is faster,
        and the others are imported meanwhile.
        """
        are_many = len(changes) >= self._settings.import_min_contacts
        imported = [each for each in changes if are_many or each.needs_import]
        alone = [] if are_many else [each for each in changes if not each.needs_import]
        async with anyio.create_task_group() as group:
            for each in alone:
                group.start_soon(self.write_one, each)
            if imported:
                await self.import_contacts(imported, exclude_automations=exclude_automations)
        if notes := Counter(note for each in changes for note in each.desired.notes):
            await self._ports.links.count_notes(notes)

    async def import_contacts(self, changes: Sequence[ContactChange], *, exclude_automations: bool) -> None:
        """Import contacts and wait for the end; then send those that it left unconfirmed one by one."""
        async with self._ports.locks.hold([each.id for each in changes]):
            await self._ports.links.record_import_tags(
                {each.id: tag for each in changes if (tag := each.desired.tag) and each.record.tag is None}
            )
            unconfirmed = await self._import(list(changes), exclude_automations=exclude_automations)
        for each in unconfirmed:
            await self.write_one(each)

    async def write_one(self, change: ContactChange) -> None:
        """Send one contact by itself, and unsubscribe it if the change says so.

        It is not subscribed and gets no tag: only an import does that.
        """
        async with self._ports.locks.hold([change.id]):
            try:
                ac_id = await self._ports.contacts.upsert(change.desired)
                if change.unsubscribes:
                    await self._ports.contacts.set_list(ac_id, subscribed=False)
            except Rejected as error:
                await self._refused(change, error.reply)
            else:
                await self._ports.links.record_confirmed(
                    change.id, fingerprint(change.desired), ac_id, unsubscribed=change.unsubscribes
                )

    async def reject_unwritten(self, record: ContactRecord) -> None:
        """Reject a contact that is still new after all changes were written.

        No customer of its address is left. With one it would have had a change, and be linked or rejected by
        now.
        """
        if record.contact.status is ContactStatus.NEW:
            await self._ports.links.record_rejected(record.contact.id, Reason.NO_CONTACT)

    async def set_list(self, record: ContactRecord, *, subscribed: bool) -> None:
        """Subscribe a contact that ActiveCampaign has, or unsubscribe it."""
        async with self._ports.locks.hold([record.contact.id]):
            await self._set_list(record, subscribed=subscribed)

    async def _set_list(self, record: ContactRecord, *, subscribed: bool) -> None:
        """Subscribe a contact or unsubscribe it, and record which; the caller holds the contact's lock.

        If ActiveCampaign does not have the contact, nothing is sent, and the same is recorded.
        """
        contact = record.contact
        ac_id = record.ac_id or await self._ports.contacts.find(contact.email)
        try:
            if ac_id is not None:
                await self._ports.contacts.set_list(ac_id, subscribed=subscribed)
        except Rejected as error:
            log.warning("a place on the list is refused", contact=contact.id, said=error.reply)
        else:
            await self._ports.links.record_list_status(contact.id, unsubscribed=not subscribed)

    async def _import(
        self, changes: list[ContactChange], *, exclude_automations: bool
    ) -> list[ContactChange]:
        """Import contacts, again when the import is lost; return those that it left unconfirmed."""
        while changes:
            # 1. Start the import. If rows are refused, none was imported: start again without them.
            try:
                desired = [each.desired for each in changes]
                accepted = await self._ports.contacts.start_import(
                    desired, exclude_automations=exclude_automations
                )
            except RowsRejected as error:
                self._check_failures(len(error.reasons), of=len(changes))
                for index in error.reasons:
                    await self._refused(changes[index], error.reasons[index])
                changes = [each for index, each in enumerate(changes) if index not in error.reasons]
                continue
            # 2. Record the import in the state, so that a new process can wait for its end.
            sent = {each.id: fingerprint(each.desired) for each in changes}
            unsubscribed = frozenset(each.id for each in changes if each.unsubscribes)
            started = OpenImport(accepted.id, sent, accepted.is_short, unsubscribed)
            await self._ports.links.record_import(started)
            # 3. Wait for its end.
            unconfirmed = await self._finish(started)
            if unconfirmed is not None:
                return [each for each in changes if each.id in unconfirmed]
        return []

    async def _finish(self, started: OpenImport) -> set[ContactId] | None:
        """Wait for an import's end and record it; return the contacts left unconfirmed, None if lost."""
        report = await self._ended(started.id)
        if report.state is ImportState.LOST:
            log.warning("an import is lost; its contacts are sent again", import_id=started.id)
            await self._ports.links.close_import(started, [])
            return None
        # 1. Find the contacts that failed: those that the report names, and those that a short import left
        # out, which nothing names. Of a short import, a contact whose id is not known in the state failed if
        # ActiveCampaign does not have it now. One whose id is known may have been there before, so that its
        # presence proves nothing: it is unsure, and is sent again as if it had failed. The records are read
        # first, since `_absent` makes more ids known.
        records = await self._ports.links.records(started.fingerprints)
        failed = {each.contact.id for each in records if each.contact.email in report.failures}
        unsure: set[ContactId] = set()
        if started.is_short:
            unsure = {each.contact.id for each in records if each.ac_id is not None}
            failed |= await self._absent(started)
        # 2. Confirm all others, which links them. The tag of a contact that is not linked was recorded before
        # the import. If the contact failed, it did not get that tag, so the record is taken back.
        await self._ports.links.close_import(started, started.fingerprints.keys() - failed - unsure)
        await self._ports.due.record_tags_unknown(
            [each.contact.id for each in records if each.contact.id in failed and not each.contact.is_linked]
        )
        # 3. Stop if so many failed that the cause is the account.
        self._check_failures(len(failed), of=len(started.fingerprints))
        return failed | unsure

    async def _absent(self, started: OpenImport) -> set[ContactId]:
        """Return the contacts of a short import that ActiveCampaign does not have.

        They are on its exclusion list. Contacts whose id at ActiveCampaign is known are never among them.
        """
        await self.learn_ids()
        records = await self._ports.links.records(started.fingerprints)
        unknown = [each.contact for each in records if each.ac_id is None]
        return {contact.id for contact in unknown if await self._ports.contacts.find(contact.email) is None}

    async def _ended(self, import_id: str) -> ImportReport:
        """Ask for an import's report every `import_poll_s` until the import has ended."""
        while True:
            await self._sleep(self._settings.import_poll_s)
            report = await self._ports.contacts.import_report(import_id)
            if report.state is not ImportState.RUNNING:
                return report

    async def _refused(self, change: ContactChange, said: str) -> None:
        """Record a refusal; the caller holds the contact's lock.

        A contact that is not linked is rejected. The change of a linked contact is not sent again in this
        process. If it unsubscribes the contact, the unsubscription is sent by itself; a second time if it was
        the unsubscription that was refused.
        """
        if change.needs_import:
            await self._ports.links.record_rejected(change.id, Reason.AC_REJECTED)
        else:
            self._refusals[change.id] = fingerprint(change.desired)
            log.warning("a change of a contact is refused; it stays as it was", contact=change.id, said=said)
            if change.unsubscribes:
                await self._set_list(change.record, subscribed=False)

    def _check_failures(self, failed: int, *, of: int) -> None:
        """Raise AccountRefused if so many contacts of an import failed that the cause is the account."""
        share, least = self._settings.import_failure_share, self._settings.import_failure_min
        if failed >= least and failed > share * of:
            raise AccountRefused(
                f"ActiveCampaign refused {failed} of {of} contacts of one import: look at the account's "
                "contact limit and its exclusion list, then start again. Nobody was dead-lettered."
            )
