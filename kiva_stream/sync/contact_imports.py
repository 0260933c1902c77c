"""Contact imports: contacts are sent by bulk imports, whose ends are waited for.

In the state a contact is linked only after ActiveCampaign confirmed it. A new process waits for the imports
that an earlier one began, and does not send them again. An import that was lost is sent once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import attrgetter

import anyio
import msgspec

from kiva_stream.errors import AccountRefused, RowsRejected
from kiva_stream.model.bulk_imports import ImportReport, ImportState, OpenImport
from kiva_stream.model.ids import ContactId
from kiva_stream.observability.logs import log
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.desired_contact import fingerprint
from kiva_stream.sync.isolation import BatchSender, LoneRecords
from kiva_stream.sync.refused_fields import names_value

Changes = Sequence[ContactChange]


class ImportResult(msgspec.Struct):
    """What imports did not confirm."""

    unconfirmed: list[ContactChange] = []  # they failed, or may have been left out
    refused: list[tuple[ContactChange, str]] = []  # an import was refused, perhaps for these; the reasons
    held: dict[ContactId, str] = {}  # they get no answer, though others do; the last replies


class ContactImports:
    """Imports the contacts of one account. Every call raises AccountRefused, CheckpointError, HeldError."""

    def __init__(self, ports: ContactPorts, settings: ActiveCampaignSettings, sleep: Sleep) -> None:
        self._ports = ports
        self._settings = settings
        self._sleep = sleep
        lone: LoneRecords[ContactId] = LoneRecords(
            ports.contacts.answers, settings.retry_held_s, anyio.current_time
        )
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
        """Learn ActiveCampaign's ids of the contacts that were created since the last call."""
        known_to = await self._ports.links.ids_known_up_to()
        while page := await self._ports.contacts.page(known_to):
            known_to = max(page.values())
            await self._ports.links.record_ids(page, known_to)

    async def run(self, changes: Sequence[ContactChange], *, exclude_automations: bool) -> ImportResult:
        """Import contacts, again when the import is lost. The caller holds the contacts' locks."""
        result = ImportResult()
        send = partial(self._send, result, exclude_automations=exclude_automations)
        parts = [changes]
        while parts:
            if part := parts.pop(0):
                result.held |= await self._sender.send(part, parts, send=send)
        return result

    async def _send(
        self,
        result: ImportResult,
        changes: Changes,
        /,
        *,
        exclude_automations: bool,
        tries: int,
        is_suspect: bool,
    ) -> list[Changes]:
        """Send an import and wait for its end; return what is to be sent anew. Raises Unanswered."""
        # 1. Start the import. If rows are refused, none was imported: start again without those that may
        # be at fault. The account may be the cause, unless the reasons name the values of rows.
        try:
            accepted = await self._ports.contacts.start_import(
                [each.desired for each in changes],
                exclude_automations=exclude_automations,
                tries=tries,
                is_suspect=is_suspect,
            )
        except RowsRejected as error:
            reasons = error.reasons.items()
            unnamed = [row for row, reason in reasons if not names_value(reason, changes[row].desired)]
            self._check_failures(min(error.count, len(unnamed)), of=len(changes))
            result.refused += [(changes[index], reason) for index, reason in error.reasons.items()]
            return [[each for index, each in enumerate(changes) if index not in error.reasons]]
        # 2. Record the import in the state, so that a new process can wait for its end.
        sent = {each.id: fingerprint(each.desired) for each in changes}
        unsubscribed = frozenset(each.id for each in changes if each.unsubscribes)
        started = OpenImport(accepted.id, sent, accepted.is_short, unsubscribed=unsubscribed)
        await self._ports.links.record_import(started)
        # 3. Wait for its end.
        unconfirmed = await self._finish(started)
        if unconfirmed is None:
            return [changes]
        result.unconfirmed += [each for each in changes if each.id in unconfirmed]
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

    def _check_failures(self, failed: int, *, of: int) -> None:
        """Raise AccountRefused if so many contacts of an import failed that the cause is the account."""
        share, least = self._settings.import_failure_share, self._settings.import_failure_min
        if failed >= least and failed > share * of:
            raise AccountRefused(
                f"ActiveCampaign refused {failed} of {of} contacts of one import: look at the account's "
                "contact limit and its exclusion list, then start again. Nobody was dead-lettered."
            )
