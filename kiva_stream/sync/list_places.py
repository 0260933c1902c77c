"""List places: contacts are put on the list `all customers`, or taken off it.

An opt-out of a contact that ActiveCampaign has goes before its fields, so that no failure of theirs holds it
up. The caller holds the contacts' locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from kiva_stream.errors import RecordsHeld, Rejected
from kiva_stream.model.contacts import Contact, ContactRecord
from kiva_stream.model.held_records import HeldKind
from kiva_stream.model.ids import AcId, ContactId
from kiva_stream.observability.logs import log
from kiva_stream.sync.contact_changes import ContactChange
from kiva_stream.sync.contact_ports import ContactPorts
from kiva_stream.sync.held_records import DueWrites


class ListPlace(NamedTuple):
    """A place on the list that a contact is to have."""

    contact: Contact
    ac_id: AcId | None  # None: it is looked up by its address
    subscribed: bool

    @property
    def id(self) -> ContactId:
        """The contact's id."""
        return self.contact.id

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
        """Subscribe a contact or unsubscribe it, and record which; return as `put`. Raises RecordsHeld."""
        why_not = await self.put(record.contact, record.ac_id, subscribed=subscribed)
        if why_not is None:
            await self._ports.links.record_list_status(record.contact.id, unsubscribed=not subscribed)
        return why_not

    async def put(self, contact: Contact, ac_id: AcId | None, *, subscribed: bool) -> str | None:
        """Put a contact on the list, or take it off; return None, or why that was not done.

        That is the reply of ActiveCampaign if it refuses that, "" if it does not have the contact. Raises
        RecordsHeld by the contact's id.
        """
        answers: list[str | None] = []

        async def send(places: Sequence[ListPlace]) -> dict[ContactId, str]:
            try:
                answers.extend([await self._set(each) for each in places])
            except RecordsHeld as error:
                return {contact.id: "; ".join(error.why.values())}
            return {}

        async def refuse(discarded: Sequence[tuple[ListPlace, str]]) -> None:
            answers.extend(reply for _, reply in discarded)

        writes: DueWrites[ListPlace, ContactId] = DueWrites(
            self._ports.held,
            HeldKind.LIST,
            key=attrgetter("id"),
            refuse=refuse,
            is_suspect=lambda _contact: True,
        )
        if held := await writes.write([ListPlace(contact, ac_id, subscribed)], send):
            raise RecordsHeld("the list places of contacts", {int(each): why for each, why in held.items()})
        return answers[0]

    async def _set(self, place: ListPlace) -> str | None:
        """Send a place; return as `put`. Raises RecordsHeld."""
        ac_id = place.ac_id or await self._ports.alone.find(place.contact)
        if ac_id is None:
            return ""
        try:
            await self._ports.alone.set_list(ac_id, subscribed=place.subscribed)
        except Rejected as error:
            log.warning("a place on the list is refused", contact=place.id, said=error.reply)
            return error.reply
        return None
