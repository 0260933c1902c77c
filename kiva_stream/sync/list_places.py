"""List places: contacts are put on the list `all customers`, or taken off it.

An opt-out of a contact that ActiveCampaign has goes before its fields, so that no failure of theirs holds it
up. The caller holds the contacts' locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from kiva_stream.errors import RecordsHeld, Rejected
from kiva_stream.model.contacts import ContactRecord
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import AcId, ContactId
from kiva_stream.observability.logs import log
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.held_records import DueWrites


class ListPlace(NamedTuple):
    """A place on the list that a contact is to have."""

    id: ContactId
    ac_id: AcId
    subscribed: bool

    @property
    def contact_id(self) -> ContactId:
        """Whose entries wait for it."""
        return self.id

    @property
    def fingerprint(self) -> bytes:
        """The fingerprint of what is to be sent."""
        return b"on" if self.subscribed else b"off"


class ListPlaces:
    """The places of contacts on the list. Every call raises AccountRefused, CheckpointError, HeldError."""

    def __init__(self, ports: ContactPorts) -> None:
        self._ports = ports

    async def opt_out_each(
        self, changes: Sequence[ContactChange]
    ) -> tuple[list[ContactChange], dict[ContactId, str]]:
        """Opt out of changes that go by an import; return these changes, and the contacts that are held."""
        out: list[ContactChange] = []
        held: dict[ContactId, str] = {}
        for each in changes:
            try:
                out.append(each if each.record.unsubscribed else await self.opt_out(each))
            except RecordsHeld as error:
                held[each.id] = error.why[each.id]
        return out, held

    async def opt_out(self, change: ContactChange) -> ContactChange:
        """Unsubscribe a contact that ActiveCampaign has, if the change says so; return the change.

        Raises RecordsHeld.
        """
        if not (change.unsubscribes and change.is_known) or change.is_off or change.refused_place:
            return change
        why_not = await self.set(change.record, subscribed=False)
        return change._replace(is_off=why_not is None, refused_place=why_not or "")

    async def set(self, record: ContactRecord, *, subscribed: bool) -> str | None:
        """Subscribe a contact or unsubscribe it, and record which; return None, or why that was not done.

        That is the reply of ActiveCampaign if it refuses it, "" if it does not have the contact. Raises
        RecordsHeld.
        """
        contact = record.contact
        ac_id = record.ac_id or await self._ports.contacts.find(contact.email)
        if ac_id is None:
            return ""
        reply = await self.refusal(contact.id, ac_id, subscribed=subscribed)
        if reply is None:
            await self._ports.links.record_list_status(contact.id, unsubscribed=not subscribed)
        return reply

    async def refusal(self, contact: ContactId, ac_id: AcId, *, subscribed: bool) -> str | None:
        """Put a contact on the list, or take it off; return the reply if that is refused.

        Raises RecordsHeld.
        """
        try:
            await self.put(contact, ac_id, subscribed=subscribed)
        except Rejected as error:
            log.warning("a place on the list is refused", contact=contact, said=error.reply)
            return error.reply
        return None

    async def put(self, contact: ContactId, ac_id: AcId, *, subscribed: bool) -> None:
        """Put a contact on the list, or take it off. Raises RecordsHeld by the contact's id, Rejected."""
        refused: list[Rejected] = []

        async def send(places: Sequence[ListPlace]) -> dict[ContactId, str]:
            for each in places:
                try:
                    await self._ports.alone.set_list(each.ac_id, subscribed=each.subscribed)
                except RecordsHeld as error:
                    return {each.id: error.why[each.ac_id]}
                except Rejected as error:
                    refused.append(error)
            return {}

        async def refuse(discarded: Sequence[tuple[ListPlace, str]]) -> None:
            refused.extend(Rejected("it was discarded", reply) for _, reply in discarded)

        writes: DueWrites[ListPlace, ContactId] = DueWrites(
            self._ports.held,
            HeldKind.LIST,
            key=attrgetter("id"),
            refuse=refuse,
            is_suspect=lambda _contact: True,
        )
        if held := await writes.write([ListPlace(contact, ac_id, subscribed)], send):
            raise RecordsHeld("the list places of contacts", {int(each): why for each, why in held.items()})
        if refused:
            raise refused[0]
