"""Subscriptions: contacts are unsubscribed from the list `all customers`, and resubscribed.

The import that creates a contact subscribes it. A ContactChange unsubscribes it when a customer who
counts for it opts out. This module unsubscribes a contact of which no customer counts any more, if
also all its customers are erased, or one of them opted out. Only this module resubscribes.

An entry that was parked or dead, or is read again, comes late: the person may have unsubscribed since.

| entries that ask  | the place on the list, read just before            | then                          |
|-------------------|----------------------------------------------------|-------------------------------|
| one comes in time | is not read                                        | the contact is resubscribed   |
| all come late     | is unsubscribed, and the state says that we did it | the contact is resubscribed   |
| all come late     | is anything else                                   | `resubscribe_late` is counted |
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.contacts import ContactRecord
from kiva_stream.model.ids import ContactId
from kiva_stream.sync.contact_changes import ContactChanges
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.contact_writes import ContactWrites
from kiva_stream.sync.current_contacts import CurrentContact
from kiva_stream.sync.desired_contact import wants_emails


class Subscriptions:
    """Unsubscribes and resubscribes contacts.

    Every call raises AccountRefused, SourceError, CheckpointError, HeldError.
    """

    def __init__(self, ports: ContactPorts, *, changes: ContactChanges, writes: ContactWrites) -> None:
        self._ports = ports
        self._changes = changes
        self._writes = writes

    async def unsubscribe(self, contacts: Iterable[CurrentContact]) -> None:
        """Unsubscribe those of these contacts that must leave the list.

        Their week tags must be taken off too, so a contact whose tag is known is marked due. One whose tag is
        not known needs no mark: the contact is due still, or the last change of its tag (see `WeekTagSync`)
        took all tags off or was refused. Raises RecordsHeld when the others are done.
        """
        held: dict[int, str] = {}
        for each in contacts:
            if each.must_unsubscribe and each.record.contact.is_linked:
                try:
                    await self._unsubscribe(each)
                except RecordsHeld as error:
                    held |= error.why
        if held:
            raise RecordsHeld("the list places of contacts", held)

    async def _unsubscribe(self, contact: CurrentContact) -> None:
        if contact.is_erased:
            await self._ports.links.record_erased(contact.id)
        if contact.record.tag is not None:
            await self._ports.due.mark_due([contact.id])
        if not contact.record.unsubscribed:
            await self._writes.set_list(contact.record, subscribed=False)

    async def resubscribe(self, contacts: Collection[ContactId], late: Collection[ContactId] = ()) -> None:
        """Resubscribe those of these contacts that have customers who count, all of whom want e-mails now.

        First compare the contacts with their rows once more, and send what differs: a customer may have
        opted in after the contact was written as one that opted out. Without that, the fingerprint in the
        state would still be that of the opted-out contact. A later opt-out would have the same fingerprint,
        so nothing would be sent, and the contact would stay on the list. See above for those that are `late`.
        """
        if not contacts:
            return
        records = await self._ports.links.records(contacts)
        linked = [each for each in records if each.contact.is_linked]
        current = await self._changes.current(linked)
        for change in await self._changes.of(current):
            if held := await self._writes.write([change], exclude_automations=True):
                raise RecordsHeld("contacts", {int(contact): why for contact, why in held.items()})
        for each in current:
            if each.counted and wants_emails(each.counted):
                if each.id not in late or await self._is_off_by_us(each.record):
                    await self._writes.set_list(each.record, subscribed=True)
                else:
                    await self._ports.links.count_notes({"resubscribe_late": 1})

    async def _is_off_by_us(self, record: ContactRecord) -> bool:
        """Return whether a contact is unsubscribed at ActiveCampaign, and kiva_stream did that.

        If ActiveCampaign does not say so, though it answers for others, that is not known.
        """
        if not record.taken_off:
            return False
        try:
            ac_id = record.ac_id or await self._ports.alone.find(record.contact)
            return ac_id is not None and await self._ports.alone.list_place(ac_id) is False
        except RecordsHeld:
            return False
