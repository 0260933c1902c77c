"""Revivals: dead letters of customers who have a contact since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from kiva_stream.model.classifications import Classification
from kiva_stream.model.contacts import Contact
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.outcomes import Reason
from kiva_stream.ports.source import Entries
from kiva_stream.ports.stages import Outcomes
from kiva_stream.ports.state import ContactDeadLetters


class Revived(NamedTuple):
    """A dead entry whose customer may have a contact now: its classification now, and what it died of."""

    entry: Entry
    classification: Classification
    why: Reason


class Revivals:
    """Finds the dead letters of customers who have got a contact, or another one, since."""

    def __init__(
        self,
        dead_letters: ContactDeadLetters,
        log: Entries,
        classify: Callable[[Entry], Classification],
        outcomes: Outcomes,
    ) -> None:
        self._dead_letters = dead_letters
        self._log = log
        self._classify = classify
        self._outcomes = outcomes

    async def of(self, contacts: Mapping[CustomerId, Contact]) -> list[Revived]:
        """Return the dead entries of those of these customers whose contact is not refused, in log order.

        Those that an earlier run left above the watermark are left out: they come again in their place.

        Raises SourceError, CheckpointError.
        """
        customers = [
            customer
            for customer, contact in contacts.items()
            if not contact.is_refused and await self._outcomes.has_dead_letters(customer)
        ]
        if not customers:
            return []
        dead_letters = {
            position: why
            for position, why in (await self._dead_letters.without_contact(customers)).items()
            if not self._outcomes.will_be_reread(position)
        }
        entries = await self._log.entries(dead_letters)
        return [Revived(entry, self._classify(entry), dead_letters[entry.position]) for entry in entries]
