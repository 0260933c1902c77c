"""Contact writes: ActiveCampaign gets contact changes, many by one import or each by a request of its own.

| the contact    | number of contacts written together  | it is sent                                    |
|----------------|--------------------------------------|-----------------------------------------------|
| any            | `import_min_contacts` or more        | by one import with all of them                |
| is not linked  | fewer                                | by one import with those that are not linked  |
| is linked      | fewer                                | by a request of its own                       |
| loses a name   | any                                  | by a request of its own                       |

What imports do not take is written as `untaken_contacts` says.

A contact that is not linked is sent by an import first: any other request that subscribes would also
resubscribe a contact that has unsubscribed at ActiveCampaign. If the contact fails there, it is sent by a
request of its own, which does not subscribe it.

A name or phone that the shop has no more is cleared by a request of its own: there an empty one clears it, as
users of another connector report (verbb/formie issues 537 and 2934), and of imports that is not known.

An opt-out of a contact that ActiveCampaign has goes before all of these, by a request that carries ids only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter

import anyio

from kiva_stream.errors import RecordsHeld, Rejected
from kiva_stream.model.contacts import ContactRecord, ContactStatus
from kiva_stream.model.ids import AcId, ContactId
from kiva_stream.model.outcomes import Reason
from kiva_stream.observability.logs import log
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_imports import ContactImports
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.desired_contact import fingerprint
from kiva_stream.sync.isolation import BatchSender, LoneRecords
from kiva_stream.sync.left_out_values import leave_out
from kiva_stream.sync.untaken_contacts import UntakenContacts


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
        self._now = now
        self._imports = ContactImports(ports, settings, sleep)
        self._untaken = UntakenContacts(ports, settings, imports=self._imports, write_one=self.write_one)
        lone: LoneRecords[ContactId] = LoneRecords(
            ports.contacts.answers, settings.retry_held_s, anyio.current_time
        )
        self._sender: BatchSender[ContactChange, ContactId] = BatchSender(attrgetter("id"), lone)

    def is_history(self, moment: datetime) -> bool:
        """Return whether what happened at a moment is too old to start automations."""
        return self._now() - moment > timedelta(seconds=self._settings.realtime_max_age_s)

    async def resume(self) -> int:
        """See ContactImports.resume."""
        return await self._imports.resume()

    async def learn_ids(self) -> None:
        """See ContactImports.learn_ids."""
        await self._imports.learn_ids()

    def fitting(self, changes: Sequence[ContactChange]) -> int:
        """Return how many of these changes, from the first, fit into one import."""
        return self._ports.contacts.count_fitting([each.desired for each in changes])

    async def write(
        self, changes: Sequence[ContactChange], *, exclude_automations: bool
    ) -> dict[ContactId, str]:
        """Write contacts until ActiveCampaign confirmed or refused each; they must fit into one import.

        Return the contacts that are held: ActiveCampaign answers for others, but not for these; and why.
        Fewer than `import_min_contacts` are divided: linked contacts are sent one by one, which is faster,
        and the others are imported meanwhile.
        """
        are_many = len(changes) >= self._settings.import_min_contacts
        imported = [each for each in changes if each.needs_import or (are_many and not each.clears)]
        alone = [each for each in changes if not each.needs_import and (each.clears or not are_many)]
        held: dict[ContactId, str] = {}

        async def write_one(change: ContactChange) -> None:
            held.update(await self.write_one(change))

        async with anyio.create_task_group() as group:
            for each in alone:
                group.start_soon(write_one, each)
            if imported:
                held |= await self.import_contacts(imported, exclude_automations=exclude_automations)
        if notes := Counter(note for each in changes for note in each.desired.notes):
            await self._ports.links.count_notes(notes)
        return held

    async def import_contacts(
        self, changes: Sequence[ContactChange], *, exclude_automations: bool
    ) -> dict[ContactId, str]:
        """Import contacts and wait for the end; then send those that it left unconfirmed one by one.

        Return those that are held, as `write` does.
        """
        async with self._ports.locks.hold([each.id for each in changes]):
            changes, held = await self._opt_out_each(changes)
            await self._ports.links.record_import_tags(
                {each.id: tag for each in changes if (tag := each.desired.tag) and each.record.tag is None}
            )
            result = await self._imports.run(changes, exclude_automations=exclude_automations)
        held |= result.held
        return held | await self._untaken.write(result, exclude_automations=exclude_automations)

    async def write_one(self, change: ContactChange) -> dict[ContactId, str]:
        """Send one contact by itself, and unsubscribe it if the change says so.

        It is not subscribed and gets no tag: only an import does that. It is sent again without the optional
        fields whose values are refused. Return it if it is held, as `write` does.
        """
        held: dict[ContactId, str] = {}
        try:
            async with self._ports.locks.hold([change.id]):
                parts: list[Sequence[ContactChange]] = [[await self._opt_out(change)]]
                while parts:
                    held |= await self._sender.send(parts.pop(0), parts, send=self._send_one)
        except RecordsHeld as error:  # its place on the list
            held[change.id] = error.why[change.id]
        return held

    async def _send_one(
        self, batch: Sequence[ContactChange], /, *, tries: int, is_suspect: bool
    ) -> list[Sequence[ContactChange]]:
        """Send one contact by itself; return what is left of its change. Raises Unanswered."""
        (change,) = batch
        left = await self._write_one(change, tries=tries, is_suspect=is_suspect)
        return [] if left is None else [[left]]

    async def _opt_out_each(
        self, changes: Sequence[ContactChange]
    ) -> tuple[list[ContactChange], dict[ContactId, str]]:
        """Opt out of changes that go by an import; return these changes, and the contacts that are held."""
        out: list[ContactChange] = []
        held: dict[ContactId, str] = {}
        for each in changes:
            try:
                out.append(each if each.record.unsubscribed else await self._opt_out(each))
            except RecordsHeld as error:
                held[each.id] = error.why[each.id]
        return out, held

    async def _opt_out(self, change: ContactChange) -> ContactChange:
        """Unsubscribe a contact that ActiveCampaign has, if the change says so; return the change.

        Its fields are sent only then, so that no failure of theirs holds an opt-out up. The caller holds the
        contact's lock. Raises RecordsHeld.
        """
        if not (change.unsubscribes and change.is_known) or change.is_off:
            return change
        return change._replace(is_off=await self._set_list(change.record, subscribed=False))

    async def _write_one(
        self, change: ContactChange, *, tries: int, is_suspect: bool
    ) -> ContactChange | None:
        """Send one contact; return what is left of a change of which a value, or an empty one, is refused."""
        try:
            ac_id = await self._ports.contacts.upsert(
                change.desired, clear=change.clears, tries=tries, is_suspect=is_suspect
            )
            if change.unsubscribes and not change.is_off:
                await self._put(change.id, ac_id, subscribed=False)
        except Rejected as error:
            left = await leave_out(self._ports.links, change, error.reply)
            if left is None and change.clears:
                log.warning("a name or phone cannot be cleared", contact=change.id, said=error.reply)
                return change.without_clearing()
            if left is None:
                await self._refused(change, error.reply)
            return left
        await self._ports.links.record_confirmed(
            change.id, fingerprint(change.desired), ac_id, unsubscribed=change.unsubscribes
        )
        return None

    async def reject_unwritten(self, record: ContactRecord) -> None:
        """Reject a contact that is still new after all changes were written.

        No customer of its address is left. With one it would have had a change, and be linked or rejected by
        now.
        """
        if record.contact.status is ContactStatus.NEW:
            await self._ports.links.record_rejected(record.contact.id, Reason.NO_CONTACT)

    async def set_list(self, record: ContactRecord, *, subscribed: bool) -> None:
        """Subscribe a contact that ActiveCampaign has, or unsubscribe it. Raises RecordsHeld."""
        async with self._ports.locks.hold([record.contact.id]):
            await self._set_list(record, subscribed=subscribed)

    async def _set_list(self, record: ContactRecord, *, subscribed: bool) -> bool:
        """Subscribe a contact or unsubscribe it, and record which; return whether that was done.

        It is not done if ActiveCampaign refuses it or does not have the contact. The caller holds the
        contact's lock. Raises RecordsHeld.
        """
        contact = record.contact
        ac_id = record.ac_id or await self._ports.contacts.find(contact.email)
        if ac_id is None:
            return False
        try:
            await self._put(contact.id, ac_id, subscribed=subscribed)
        except Rejected as error:
            log.warning("a place on the list is refused", contact=contact.id, said=error.reply)
            return False
        await self._ports.links.record_list_status(contact.id, unsubscribed=not subscribed)
        return True

    async def _put(self, contact: ContactId, ac_id: AcId, *, subscribed: bool) -> None:
        """Put a contact on the list, or take it off. Raises RecordsHeld by the contact's id, Rejected."""
        try:
            await self._ports.alone.set_list(ac_id, subscribed=subscribed)
        except RecordsHeld as error:
            raise RecordsHeld("the list places of contacts", {contact: error.why[ac_id]}) from error

    async def _refused(self, change: ContactChange, said: str) -> None:
        """Record a refusal; the caller holds the contact's lock.

        A contact that is not linked is rejected. The change is not sent again: see `ContactChanges`. If it
        unsubscribes the contact, which is not off the list yet, that is tried once more.
        """
        await self._ports.links.record_refused(change.id, fingerprint(change.desired), said)
        if not change.needs_import:
            log.warning("a change of a contact is refused; it stays as it was", contact=change.id, said=said)
        if change.unsubscribes and not change.is_off:
            await self._set_list(change.record, subscribed=False)
