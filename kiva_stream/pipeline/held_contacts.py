"""Held contacts: their entries lie in the state alone until the next try, so that they hold up nothing.

ActiveCampaign answers for others, but not for a held contact, or not for one of its orders.

| what happens                                  | then                                                       |
|-----------------------------------------------|------------------------------------------------------------|
| the sender finds that a contact gets no       | its lane is parked, and forgotten                          |
| answer                                        |                                                            |
| an entry of a held contact is read            | it is parked at once, without an attempt                   |
| the time of the next try has come             | the parked entries are read again, in log order, and come  |
|                                               | before newer ones                                          |
| data of the contact change                    | a contact check goes to the sender, which is a try         |
| a try succeeds                                | the parked entries are due at once                         |
| a try fails                                   | the contact is held again, for twice the time              |
| there is no room for more parked entries      | the sender keeps the lane, and tries again                 |

What is held is known to one run. The next one tries it first: it begins with what is parked.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection

import anyio

from kiva_stream.model.classifications import Classification
from kiva_stream.model.contacts import Contact
from kiva_stream.model.deliveries import Delivery
from kiva_stream.model.entries import Entry, ReopenedEntries
from kiva_stream.model.ids import ContactId
from kiva_stream.model.outcomes import Span
from kiva_stream.model.pages import ClassifiedPage
from kiva_stream.model.positions import DAY1
from kiva_stream.observability.logs import log
from kiva_stream.pipeline.earlier_runs import EarlierRuns
from kiva_stream.pipeline.lanes import Lanes
from kiva_stream.pipeline.parking import Parking
from kiva_stream.ports.source import Entries
from kiva_stream.ports.stages import ParkedEntries

MOST_S = 86_400.0
DOUBLINGS = 20  # more of them exceed MOST_S with any useful setting


class HeldContacts:
    """The held contacts of one run.

    The first next try comes after `retry_s` seconds, each further one after twice the time, at most a day.
    """

    def __init__(
        self,
        parking: Parking,
        retry_s: float,
        *,
        clock: Callable[[], float] = anyio.current_time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._parking = parking
        self._retry_s = retry_s
        self._clock = clock
        self._chance = chance
        self._tries: dict[ContactId, int] = {}  # in a row
        self._due_at: dict[ContactId, float] = {}  # of those that are held

    def hold(self, lanes: Lanes, contact: Contact, why: str, *, until_asked: bool = False) -> bool:
        """Hold a contact whose batch is at the sender; False: there is no room for its parked entries."""
        if not self._parking.leave(lanes.rest(contact), contact.id):
            return False
        lanes.remove(contact)
        tries = self._tries[contact.id] = self._tries.get(contact.id, 0) + 1
        wait_s = min(MOST_S, self._retry_s * 2 ** min(tries - 1, DOUBLINGS)) * (1 + self._chance() / 10)
        self._due_at[contact.id] = math.inf if until_asked else self._clock() + wait_s
        next_try = None if until_asked else round(wait_s)
        log.warning("a contact is held", contact=contact.id, why=why, next_try_in_s=next_try)
        return True

    def leave(self, contact: Contact, delivery: Delivery) -> bool:
        """Park an entry if its contact is held, and leave it to the next try; return whether it was."""
        is_held = contact.id in self._due_at and delivery.is_entry
        # It must not overtake what is parked of its contact, so there is always room for it.
        return is_held and self._parking.leave([delivery], contact.id, beyond_max=True)

    def answered(self, contact: Contact) -> None:
        """Note that ActiveCampaign answered for a contact: what is parked of it is due."""
        if self._tries.pop(contact.id, None) and contact.id in self._due_at:
            self._due_at[contact.id] = self._clock()

    def try_now(self, contacts: Collection[ContactId]) -> None:
        """Make the next try of these contacts due now, as far as they are held, but not until asked."""
        for contact in contacts:
            if self._due_at.get(contact, math.inf) < math.inf:
                self._due_at[contact] = self._clock()

    def make_due(self) -> None:
        """Make the next try of all due now, but of those that are held until asked."""
        now = self._clock()
        for contact, due_at in self._due_at.items():
            if due_at < math.inf:
                self._due_at[contact] = now

    @property
    def has_due(self) -> bool:
        """Whether a contact is due for another try."""
        now = self._clock()
        return any(due_at <= now for due_at in self._due_at.values())

    def take_due(self) -> list[ContactId]:
        """Return the contacts that are due for another try, and hold them no more."""
        now = self._clock()
        due = [contact for contact, due_at in self._due_at.items() if due_at <= now]
        for contact in due:
            del self._due_at[contact]
        return due


class LaneHolds:
    """Implements the port Holds for the contacts that have lanes."""

    def __init__(self, held: HeldContacts, lanes: Lanes) -> None:
        self._held = held
        self._lanes = lanes

    def hold(self, contact: Contact, why: str, *, until_asked: bool = False) -> bool:
        """See HeldContacts.hold."""
        return self._held.hold(self._lanes, contact, why, until_asked=until_asked)

    def answered(self, contact: Contact) -> None:
        """See HeldContacts.answered."""
        self._held.answered(contact)


class HeldEntries:
    """The entries of held contacts, read again from the log for another try."""

    def __init__(
        self,
        held: HeldContacts,
        *,
        parked: ParkedEntries,
        earlier: EarlierRuns,
        entries: Entries,
        classify: Callable[[Entry], Classification],
    ) -> None:
        self._held = held
        self._parked = parked
        self._earlier = earlier
        self._entries = entries
        self._classify = classify

    async def due(self, contacts: Collection[ContactId] = ()) -> ClassifiedPage | None:
        """Return the entries of the contacts that are due, and of these contacts, in log order.

        Raises SourceError, CheckpointError.
        """
        self._held.try_now(contacts)
        if not (contacts := self._held.take_due()):
            return None
        parked = await self._parked.parked_of(contacts)
        # Those above the start of this run are reopened where the log is read again.
        positions = [each for each in parked if not self._earlier.will_be_reread(each)]
        entries = await self._entries.entries(positions)
        reopened = ReopenedEntries(dict.fromkeys(positions), entries)
        classifications = [(entry, self._classify(entry)) for entry in entries]
        return ClassifiedPage(Span(DAY1, 0), classifications, reopened=reopened)
