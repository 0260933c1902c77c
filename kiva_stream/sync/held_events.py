"""Held events: ActiveCampaign gives no answer for them, though it does for others.

An event is held as a record of its contact, with the place of its entry as the fingerprint. One that may have
arrived, and that cannot be looked up, is *in doubt*: only a replay sends it again. Until then no later event
of its contact is sent. A customer who gets another contact takes along what is held of their own entries.
"""

from __future__ import annotations

from collections.abc import Mapping

from kiva_stream.errors import RecordsHeld
from kiva_stream.model.held_records import HeldKey, HeldKind, HeldRecord, Silent
from kiva_stream.model.ids import ContactId
from kiva_stream.model.positions import Position
from kiva_stream.sync.held_records import HeldRecords


class HeldEvents:
    """The held events among the held `records` of a site. Every coroutine raises CheckpointError."""

    def __init__(self, records: HeldRecords) -> None:
        self._records = records

    def contacts(self) -> list[ContactId]:
        """Return the contacts of all held events."""
        return [each.contact for each in self._records.of_kind(HeldKind.EVENT)]

    def is_in_doubt(self, contact: ContactId) -> bool:
        """Return whether an event of a contact waits for a replay."""
        events = self._records.of_contact(HeldKind.EVENT, contact)
        return any(self._records.waits_until_asked(each.key) for each in events)

    def make_due(self) -> None:
        """Make the next try of all due now, but for those in doubt."""
        self._records.make_due(HeldKind.EVENT)

    def sent(self, contact: ContactId, position: Position) -> int:
        """Return how often a contact's event was sent before it was held; 0: it is not held."""
        held = self._find(contact, position)
        return held.sent if held else 0

    def discarded(self, contact: ContactId, position: Position) -> str | None:
        """Return the last reply to a contact's event that was discarded, None if it was not."""
        held = self._find(contact, position)
        return held.reply if held and held.is_discarded else None

    async def hold(self, contact: ContactId, position: Position, error: RecordsHeld) -> None:
        """Hold an event; one that is in doubt is held until a replay."""
        held = self._find(contact, position)
        if held is None:  # an earlier event of the contact that was held has its outcome
            earlier = self._records.of_contact(HeldKind.EVENT, contact)
            await self._records.end(HeldKind.EVENT, [each.key.id for each in earlier])
        key = held.key if held else self._free_key(contact, position)
        event = Silent(contact, _place(position), error.why[contact], sent=error.sent)
        await self._records.hold(HeldKind.EVENT, {key.id: event}, until_asked=error.is_in_doubt)

    async def move(self, contacts: Mapping[Position, ContactId]) -> None:
        """Have the held events at these positions be those of these contacts, which they have now."""
        by_place = {_place(position): contact for position, contact in contacts.items()}
        for each in self._records.of_kind(HeldKind.EVENT):
            contact = by_place.get(each.fingerprint, each.contact)
            if contact != each.contact:
                await self._records.move(each.key, contact)

    def _free_key(self, contact: ContactId, position: Position) -> HeldKey:
        """Return the key of a new held event: its contact, or its entry if an event that moved has that."""
        is_free = not self._records.has(HeldKind.EVENT, contact)
        return HeldKey(HeldKind.EVENT, contact if is_free else -position.id)

    def _find(self, contact: ContactId, position: Position) -> HeldRecord | None:
        place = _place(position)
        events = self._records.of_contact(HeldKind.EVENT, contact)
        return next((each for each in events if each.fingerprint == place), None)


def _place(position: Position) -> bytes:
    return str(position).encode()
