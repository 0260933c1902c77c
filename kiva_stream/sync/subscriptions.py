"""Subscriptions: contacts are unsubscribed from the list `all customers`, and resubscribed.

The import that creates a contact subscribes it. A ContactChange unsubscribes it when one of its customers
opts out. This module unsubscribes it when none of its customers counts any more, if all of them are erased
or one of them opted out. Only this module resubscribes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

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
        """Unsubscribe those of these contacts that must leave the list, and have their week tags taken off.

        For that, a contact whose tag is known is marked due. One whose tag is not known needs no mark: either
        it is due still, or the last change of its tag took all tags off or was refused.
        """
        for each in contacts:
            if each.must_unsubscribe and each.record.contact.is_linked:
                await self._unsubscribe(each)

    async def _unsubscribe(self, contact: CurrentContact) -> None:
        if contact.is_erased:
            await self._ports.links.record_erased(contact.id)
        if contact.record.tag is not None:
            await self._ports.due.mark_due([contact.id])
        if not contact.record.unsubscribed:
            await self._writes.set_list(contact.record, subscribed=False)

    async def resubscribe(self, contacts: Collection[ContactId]) -> None:
        """Resubscribe those of these contacts whose customer accounts all want e-mails now.

        First compare the contacts with their rows once more, and send what differs: a customer may have
        opted in after the contact was written. Otherwise the state would keep the fingerprint of the
        unsubscription. The next opt-out would not differ from it, and the contact would stay on the list.
        """
        if not contacts:
            return
        records = await self._ports.links.records(contacts)
        linked = [each for each in records if each.contact.is_linked]
        current = await self._changes.current(linked)
        for change in await self._changes.of(current):
            await self._writes.write_one(change)
        for each in current:
            if each.counted and wants_emails(each.counted):
                await self._writes.set_list(each.record, subscribed=True)
