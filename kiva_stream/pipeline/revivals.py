"""Revivals: dead letters of customers who have got a contact since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from kiva_stream.model.classifications import FOR_A_CONTACT, Classification
from kiva_stream.model.contacts import Contact
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import CustomerId
from kiva_stream.model.outcomes import Reason
from kiva_stream.pipeline.earlier_runs import EarlierRuns
from kiva_stream.ports.source import Entries
from kiva_stream.ports.stages import DeadLetterOutcomes
from kiva_stream.ports.state import ContactDeadLetters


class Revived(NamedTuple):
    """A dead letter that may be delivered now: its entry, how that is classified now, and its reason."""

    entry: Entry
    classification: Classification
    was_dead: Reason


def can_be_revived(
    entry: Entry, classification: Classification, contacts: Mapping[CustomerId, Contact]
) -> bool:
    """Return whether a dead letter is still for a contact, and its customer has one that is not refused."""
    contact = contacts.get(entry.customer_id) if entry.customer_id else None
    return contact is not None and not contact.is_refused and isinstance(classification, FOR_A_CONTACT)


class Revivals:
    """Finds the dead letters of customers who have got a contact, or another one, since."""

    def __init__(
        self,
        dead_letters: ContactDeadLetters,
        entries: Entries,
        *,
        classify: Callable[[Entry], Classification],
        outcomes: DeadLetterOutcomes,
        earlier: EarlierRuns,
    ) -> None:
        self._dead_letters = dead_letters
        self._entries = entries
        self._classify = classify
        self._outcomes = outcomes
        self._earlier = earlier

    async def of(self, contacts: Mapping[CustomerId, Contact]) -> list[Revived]:
        """Return the dead letters of these customers that their contact takes now, in log order.

        Those that an earlier run left above the watermark are left out, since they are read again there.
        Raises SourceError, CheckpointError.
        """
        customers = [
            customer
            for customer, contact in contacts.items()
            if not contact.is_refused and await self._outcomes.take_dead_letter_customer(customer)
        ]
        if not customers:
            return []
        dead_letters = {
            position: why
            for position, why in (await self._dead_letters.without_contact(customers)).items()
            if not self._earlier.will_be_reread(position)
        }
        classified = [(entry, self._classify(entry)) for entry in await self._entries.entries(dead_letters)]
        return [
            Revived(entry, classification, dead_letters[entry.position])
            for entry, classification in classified
            if can_be_revived(entry, classification, contacts)
        ]
