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
from functools import partial
from operator import attrgetter

import anyio
from msgspec.structs import replace

from kiva_stream.errors import PermissionRefused, RecordsHeld, Rejected
from kiva_stream.model.contacts import ContactRecord, ContactStatus, ListStatus
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import AcId, ContactId
from kiva_stream.model.outcomes import Reason
from kiva_stream.observability.logs import log
from kiva_stream.primitives.clock import Sleep
from kiva_stream.settings.sections import ActiveCampaignSettings
from kiva_stream.sync.carried_contacts import OvertakenLast
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_imports import ContactImports
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_refusals import ContactRefusals
from kiva_stream.sync.desired_contact import fingerprint
from kiva_stream.sync.held_records import DueWrites
from kiva_stream.sync.isolation import BatchSender, LoneRecords
from kiva_stream.sync.left_out_values import leave_out
from kiva_stream.sync.list_places import ListPlaces
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
        refusals: ContactRefusals,
        sleep: Sleep = anyio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._now = now
        self._refusals = refusals
        self._places = ListPlaces(ports)
        self._imports = ContactImports(ports, settings, refusals=refusals, sleep=sleep)
        self._overtaken_last = OvertakenLast(self._imports.carried, self._places, ports.locks)
        self._untaken = UntakenContacts(
            ports, settings, imports=self._imports, refusals=refusals, write_one=self.write_one
        )
        lone: LoneRecords[ContactId] = LoneRecords(
            ports.contacts.answers,
            settings.retry_held_s,
            anyio.current_time,
            on_recovery=partial(ports.held.make_due, HeldKind.CONTACT),
        )
        lone.resume(map(ContactId, ports.held.suspects(HeldKind.CONTACT)))
        self._sender: BatchSender[ContactChange, ContactId] = BatchSender(attrgetter("id"), lone)
        self._due_writes: DueWrites[ContactChange, ContactId] = DueWrites(
            ports.held,
            HeldKind.CONTACT,
            key=attrgetter("id"),
            refuse=self._refuse_discarded,
            is_suspect=lambda contact: contact in lone or self._imports.is_suspect(contact),
            is_held_as=HeldKind.LIST,
        )

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

        Return the contacts that are held: ActiveCampaign takes others, but not these; and why.
        """
        send = partial(self._send, exclude_automations=exclude_automations)
        return await self._due_writes.write(changes, partial(self._overtaken_last.send, send))

    async def _send(
        self, changes: Sequence[ContactChange], *, exclude_automations: bool
    ) -> dict[ContactId, str]:
        """Send contacts; return those that are held, as `write` does.

        Fewer than `import_min_contacts` are divided: linked contacts are sent one by one, which is faster,
        and the others are imported meanwhile.
        """
        held: dict[ContactId, str] = {}
        # A contact that is sent by itself would show no custom field that ActiveCampaign does not have.
        are_many = len(changes) >= self._settings.import_min_contacts or self._imports.is_field_refused
        imported = [each for each in changes if each.needs_import or (are_many and not each.clears)]
        alone = [each for each in changes if not each.needs_import and (each.clears or not are_many)]

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
        async with self._ports.locks.hold([each.id for each in changes]) as release:
            changes, held = await self._places.opt_out_each(changes)
            held |= await self._refusals.held(changes)
            changes = [each for each in changes if each.id not in held]
            await self._ports.links.record_import_tags(
                {each.id: tag for each in changes if (tag := each.desired.tag) and each.record.tag is None}
            )
            result = await self._imports.run(
                changes, exclude_automations=exclude_automations, on_confirmed=release
            )
        held |= result.held
        return held | await self._untaken.write(result, exclude_automations=exclude_automations)

    async def put_on_list(self, changes: Sequence[ContactChange], *, exclude_automations: bool) -> None:
        """See ListImports.put."""
        await self._untaken.put_on_list(changes, exclude_automations=exclude_automations)

    async def write_one(self, change: ContactChange) -> dict[ContactId, str]:
        """Send one contact by itself, and unsubscribe it if the change says so.

        It is not subscribed and gets no tag: only an import does that. It is sent again without the optional
        fields whose values are refused. Return it if it is held, as `write` does.
        """
        held: dict[ContactId, str] = {}
        try:
            async with self._ports.locks.hold([change.id]):
                change = await self._places.opt_out(change)
                held |= await self._refusals.held([change])
                parts: list[Sequence[ContactChange]] = [] if held else [[change]]
                while parts:
                    send = partial(self._send_one, held)
                    held |= await self._sender.send(parts.pop(0), parts, send=send)
        except RecordsHeld as error:  # its place on the list
            held[change.id] = error.why[change.id]
        return held

    async def _send_one(
        self,
        held: dict[ContactId, str],
        batch: Sequence[ContactChange],
        /,
        *,
        tries: int,
        is_suspect: bool,
    ) -> list[Sequence[ContactChange]]:
        """Send one contact by itself; return what is left of its change. Raises Unanswered.

        A contact that is refused, and held for that, is added to `held`.
        """
        (change,) = batch
        sent = self._refusals.sent(batch)
        try:
            left = await self._write_one(change, tries=tries, is_suspect=is_suspect)
        except Rejected as error:
            held |= await self._refused(change, error.reply)
            return []
        except PermissionRefused as error:
            held |= self._refusals.forbidden(change, error)
            return []
        if left is not None:
            return [[left]]
        await self._refusals.accepted([change.id], sent)
        return []

    async def _write_one(
        self, change: ContactChange, *, tries: int, is_suspect: bool
    ) -> ContactChange | None:
        """Send one contact; return what is left of a change of which a value, or an empty one, is refused.

        Raises Rejected if it is refused altogether.
        """
        try:
            ac_id = await self._ports.contacts.upsert(
                change.desired, clear=change.clears, tries=tries, is_suspect=is_suspect
            )
        except Rejected as error:
            left = await leave_out(self._ports.links, change, error.reply)
            if left is None and change.clears:
                log.warning("a name or phone cannot be cleared", contact=change.id, said=error.reply)
                return change.without_clearing()
            if left is None:
                raise
            return left
        await self._confirm(change, ac_id)
        return None

    async def _confirm(self, change: ContactChange, ac_id: AcId) -> None:
        """Record that a contact was sent by itself, and take it off the list if the change says so.

        If ActiveCampaign refuses that, the rest of the change is confirmed all the same. The change counts as
        refused then, so that the place on the list is tried again when that is asked for.
        """
        confirmed, reply = change.desired, None
        if change.unsubscribes and not change.is_off:
            is_refused = bool(change.refused_place) and change.record.ac_id == ac_id
            reply = (
                change.refused_place
                if is_refused
                else await self._places.put(change.record.contact, ac_id, subscribed=False)
            )
        if reply is not None:
            confirmed = replace(confirmed, list_status=ListStatus.KEEP)
        await self._ports.links.record_confirmed(
            change.id,
            fingerprint(confirmed),
            ac_id,
            unsubscribed=change.unsubscribes and reply is None,
            came_alone=change.needs_import,
        )
        if reply is not None:
            await self._ports.links.record_refused(change.id, fingerprint(change.desired), reply)

    async def finish(self, record: ContactRecord) -> None:
        """End the hold of a contact of which nothing is left to be written; reject it if it is still new.

        A new contact with a customer has a change, which links or rejects it. So one that is still new has no
        customer of its address any more.
        """
        self._refusals.forget(record.contact.id)
        await self._ports.held.end(HeldKind.CONTACT, [record.contact.id])
        if record.contact.status is ContactStatus.NEW:
            await self._ports.links.record_rejected(record.contact.id, Reason.NO_CONTACT)

    async def set_list(self, record: ContactRecord, *, subscribed: bool) -> None:
        """Subscribe a contact that ActiveCampaign has, or unsubscribe it. Raises RecordsHeld."""
        async with self._ports.locks.hold([record.contact.id]):
            await self._places.set(record, subscribed=subscribed)

    async def _refuse_discarded(self, discarded: Sequence[tuple[ContactChange, str]]) -> None:
        for change, said in discarded:
            self._refusals.forget(change.id)
            await self._ports.links.record_refused(change.id, change.fingerprint, said)

    async def _refused(self, change: ContactChange, said: str) -> dict[ContactId, str]:
        """Note a refusal; return the contact if it is held for that. The caller holds the contact's lock.

        If the change unsubscribes a contact that was not known at ActiveCampaign, it is looked for there, and
        unsubscribed. One that was known had that tried before: see ListPlaces.opt_out.
        """
        held = await self._refusals.refused(change, said)
        if change.unsubscribes and not change.is_known:
            await self._places.set(change.record, subscribed=False)
        return held
