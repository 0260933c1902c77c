"""Contact imports: contacts are sent by bulk imports, whose ends are waited for.

In the state a contact is linked only after ActiveCampaign confirmed it. A new process waits for the imports
that an earlier one began, and does not send them again. An import that was lost counts as unanswered: it is
sent once more, then halved.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from operator import attrgetter

import anyio
import msgspec

from kiva_stream.errors import (
    FieldRefused,
    KindRefused,
    PermissionRefused,
    RecordsHeld,
    Rejected,
    RowsRejected,
    Unanswered,
)
from kiva_stream.model.bulk_imports import AcceptedImport, ImportReport, ImportState, OpenImport
from kiva_stream.model.contacts import Contact
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import ContactId
from kiva_stream.observability.logs import log
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.carried_contacts import CarriedContacts
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_refusals import ContactRefusals
from kiva_stream.sync.desired_contact import fingerprint
from kiva_stream.sync.import_refusals import Changes, Refusal, has_fields, refused_alone
from kiva_stream.sync.isolation import BatchSender, LoneRecords
from kiva_stream.sync.lone_tries import RefusedRow


class ImportResult(msgspec.Struct):
    """What imports did not confirm."""

    unconfirmed: list[ContactChange] = []  # they failed, or may have been left out
    refused: list[RefusedRow] = []  # an import was refused, perhaps for these
    held: dict[ContactId, str] = {}  # they get no answer, though others do; the last replies
    accepted: set[ContactId] = set()  # those of imports that ActiveCampaign accepted, whatever became of them
    on_confirmed: Callable[[Collection[ContactId]], None] | None = None  # is called with all others


class ContactImports:
    """Imports the contacts of one account. Every call raises AccountRefused, CheckpointError, HeldError."""

    def __init__(
        self,
        ports: ContactPorts,
        settings: ActiveCampaignSettings,
        *,
        refusals: ContactRefusals,
        sleep: Sleep,
    ) -> None:
        self._ports = ports
        self._refusals = refusals
        self._settings = settings
        self._sleep = sleep
        self.carried = CarriedContacts(ports.links, ports.contacts, sleep=sleep)
        lone: LoneRecords[ContactId] = LoneRecords(
            ports.contacts.answers,
            settings.retry_held_s,
            anyio.current_time,
            on_recovery=partial(ports.held.make_due, HeldKind.CONTACT),
        )
        lone.resume(map(ContactId, ports.held.suspects(HeldKind.CONTACT)))
        self.is_suspect = lone.__contains__
        self.is_field_refused = False  # a custom field, as far as is known
        self._sender: BatchSender[ContactChange, ContactId] = BatchSender(attrgetter("id"), lone)

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
        """Learn ActiveCampaign's ids of the contacts that were created since the last call.

        If it refuses to list them, each is looked up when its id is needed.
        """
        known_to = await self._ports.links.ids_known_up_to()
        try:
            while page := await self._ports.contacts.page(known_to):
                known_to = max(page.values())
                await self._ports.links.record_ids(page, known_to)
        except PermissionRefused as error:
            log.warning("the ids of contacts cannot be listed", why=str(error))

    async def run(
        self,
        changes: Changes,
        *,
        exclude_automations: bool,
        on_confirmed: Callable[[Collection[ContactId]], None] | None = None,
        detects_refused_kind: bool = True,
    ) -> ImportResult:
        """Import contacts; find those that an import is refused for. The caller holds the contacts' locks.

        `on_confirmed` is called with the contacts of each import that ActiveCampaign accepted: they need no
        lock any more, while the others are divided further. With `detects_refused_kind` it is found out
        whether ActiveCampaign accepts no import at all: then new contacts are held, and the others are left
        unconfirmed; or whether it refuses a custom field: then all are held. Without it the contacts are
        taken to be at fault.
        """
        result = ImportResult(on_confirmed=on_confirmed)
        send = partial(self._send_each, result, exclude_automations=exclude_automations)
        probe = partial(self._refusal, exclude_automations=exclude_automations)
        try:
            refusals = await refused_alone(
                changes, send, probe if detects_refused_kind else None, accepted=result.accepted
            )
            for (change,), said in refusals:
                result.refused.append(RefusedRow(change, said, was_alone=True))
        except FieldRefused as error:
            result.held |= self.field_refused(changes, str(error))
        except KindRefused as error:
            result.held |= self._refusals.convict_new(changes, str(error))
            result.unconfirmed += [each for each in changes if each.is_known]
        return result

    def field_refused(self, changes: Changes, why: str) -> dict[ContactId, str]:
        """Pause contacts, since a custom field is refused; return those that are held, and why."""
        self.is_field_refused = True
        return self._refusals.convict(changes, why)

    async def _refusal(self, change: ContactChange, *, exclude_automations: bool) -> str | None:
        """Send an import of one; return the reply if it was refused."""
        result = ImportResult()
        refusals = await self._send_each(result, [[change]], exclude_automations=exclude_automations)
        replies = [each.said for each in refusals] + [each.said for each in result.refused]
        return replies[0] if replies else None

    async def _send_each(
        self, result: ImportResult, parts: Sequence[Changes], *, exclude_automations: bool
    ) -> list[Refusal]:
        """Send imports, anew without the rows that are named; return those refused without naming one."""
        refusals: list[Refusal] = []
        send = partial(self._send, result, refusals, exclude_automations=exclude_automations)
        left = list(parts)
        while left:
            if part := left.pop(0):
                result.held |= await self._sender.send(part, left, send=send)
        return refusals

    async def _send(
        self,
        result: ImportResult,
        refusals: list[Refusal],
        changes: Changes,
        /,
        *,
        exclude_automations: bool,
        tries: int,
        is_suspect: bool,
    ) -> list[Changes]:
        """Send an import and wait for its end; return what is to be sent anew. Raises Unanswered."""
        # 1. Start the import. If it is refused, no contact was imported: if rows are named, start again
        # without those that may be at fault.
        sent = self._refusals.sent(changes)
        fingerprints = {each.id: each.confirms or fingerprint(each.desired) for each in changes}
        try:
            accepted = await self._ports.contacts.start_import(
                [each.desired for each in changes],
                exclude_automations=exclude_automations,
                tries=tries,
                is_suspect=is_suspect,
                around=self.carried.around(fingerprints),
            )
        except RowsRejected as error:
            result.refused += [
                RefusedRow(changes[row], said, len(changes) == 1) for row, said in error.reasons.items()
            ]
            return [[each for index, each in enumerate(changes) if index not in error.reasons]]
        except (Rejected, PermissionRefused) as error:
            refusals.append(Refusal(changes, error.reply if isinstance(error, Rejected) else str(error)))
            return []
        self._accepted(result, changes)
        # 2. Record the import in the state, so that a new process can wait for its end.
        started = await self._record(changes, fingerprints, accepted)
        # 3. Wait for its end.
        unconfirmed = await self._finish(started)
        if unconfirmed is None:
            raise Unanswered("ActiveCampaign accepted an import and did not complete it")
        result.unconfirmed += [each for each in changes if each.id in unconfirmed]
        await self._refusals.accepted(fingerprints.keys() - unconfirmed, sent)
        if result.on_confirmed is not None:
            result.on_confirmed(fingerprints.keys() - unconfirmed)
        return []

    async def _record(
        self, changes: Changes, fingerprints: dict[ContactId, bytes], accepted: AcceptedImport
    ) -> OpenImport:
        """Record an accepted import; its contacts are carried no more, since its end is known by its id."""
        unsubscribed = frozenset(each.id for each in changes if each.unsubscribes)
        started = OpenImport(accepted.id, fingerprints, accepted.is_short, unsubscribed=unsubscribed)
        await self._ports.links.record_import(started)
        await self.carried.answered(fingerprints)
        return started

    def _accepted(self, result: ImportResult, changes: Changes) -> None:
        """Note that ActiveCampaign accepted an import."""
        result.accepted.update(each.id for each in changes)
        if any(map(has_fields, changes)):
            self.is_field_refused = False

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
        return failed | unsure

    async def _absent(self, started: OpenImport) -> set[ContactId]:
        """Return the contacts of a short import that ActiveCampaign does not have.

        They are on its exclusion list. Contacts whose id at ActiveCampaign is known are never among them.
        """
        await self.learn_ids()
        records = await self._ports.links.records(started.fingerprints)
        unknown = [each.contact for each in records if each.ac_id is None]
        return {contact.id for contact in unknown if await self._is_absent(contact)}

    async def _is_absent(self, contact: Contact) -> bool:
        """Return whether ActiveCampaign lacks a contact, or does not say so though it answers for others.

        One that counts as absent though it is there is sent by itself, which does no harm.
        """
        try:
            return await self._ports.alone.find(contact) is None
        except RecordsHeld:
            return True

    async def _ended(self, import_id: str) -> ImportReport:
        """Ask for an import's report every `import_poll_s` until the import has ended."""
        while True:
            await self._sleep(self._settings.import_poll_s)
            report = await self._ports.contacts.import_report(import_id)
            if report.state is not ImportState.RUNNING:
                return report
