"""Held contacts: their entries lie in the state alone until the next try, so that they hold up nothing.

ActiveCampaign does not take a held contact, or one of its orders or events, though it takes others. Which
records are held, and when each is tried again, is known to `HeldRecords`, and stored.

| what happens                                  | then                                                       |
|-----------------------------------------------|------------------------------------------------------------|
| the sender finds that a contact gets no       | its lane is parked, and forgotten                          |
| answer                                        |                                                            |
| an entry of a held contact is read            | it is parked at once, without an attempt                   |
| the time of the next try has come             | a contact check and the parked entries, read again in log  |
|                                               | order, come before newer ones                              |
| the same, and an event of it is in doubt      | the contact check comes alone; all entries stay parked     |
|                                               | until a replay                                             |
| data of the contact change                    | a contact check goes to the sender, which is a try         |
| customers of it get another contact           | the parked entries are read again; each goes, or is        |
|                                               | parked, with the contact that its customer has now         |
| its records are held no more                  | the parked entries are due at once                         |
| there is no room for more parked entries      | the sender keeps the lane, and tries again                 |
| nothing else is left to be done               | each is tried once more, all for `LAST_TRIES_S`            |
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple

import anyio

from kiva_stream.errors import EVENTS, RecordsHeld, StateBusyError
from kiva_stream.model.classifications import Classification
from kiva_stream.model.contacts import Contact
from kiva_stream.model.deliveries import Delivery
from kiva_stream.model.entries import Entry, ReopenedEntries
from kiva_stream.model.ids import ContactId, CustomerId, OrderId
from kiva_stream.model.outcomes import Reason, Span
from kiva_stream.model.pages import ClassifiedPage
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.pipeline.contact_checks import ContactCheck
from kiva_stream.pipeline.earlier_runs import EarlierRuns
from kiva_stream.pipeline.lanes import Lanes
from kiva_stream.pipeline.parking import Parking
from kiva_stream.ports.source import Entries
from kiva_stream.ports.stages import ParkedEntries
from kiva_stream.ports.state import Links
from kiva_stream.sync.held_events import HeldEvents
from kiva_stream.sync.held_records import HeldRecords

LAST_TRIES_S = 120.0
TRIED_AT_ONCE = 100  # contacts
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)  # as the moment of a check: an import starts no automations

DeadLetters = dict[Position, Reason]


class Due(NamedTuple):
    """The contacts that are due for another try."""

    checks: set[ContactId]  # those with a held record that is tried now
    left: dict[ContactId, DeadLetters]  # those whose parked entries are, with the dead letters left of each


class HeldContacts:
    """The contacts of one run whose entries are left in the state, since one of their `records` is held."""

    def __init__(
        self,
        parking: Parking,
        records: HeldRecords,
        is_busy: Callable[[ContactId], bool] = lambda _contact: False,
        *,
        is_down: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._parking = parking
        self.records = records
        self.events = HeldEvents(records)
        self._is_busy = is_busy  # whether the sender has a batch of a contact
        self._is_down, self._was_down = is_down, False  # all of ActiveCampaign
        self._clock = clock
        self._left: defaultdict[ContactId, DeadLetters] = defaultdict(dict)  # with the dead letters left
        self.trying: dict[ContactId, anyio.CancelScope | None] = {}  # with the scope of its wait
        self._moved: set[ContactId] = set()  # their entries may be other contacts' now
        self._ends_at = math.inf  # the last tries

    async def hold(self, lanes: Lanes, contact: Contact, *, position: Position, error: RecordsHeld) -> bool:
        """Hold a contact whose batch is at the sender; False: there is no room for its parked entries.

        An event that gets no answer, at a position, is recorded here; other records were where they are sent.
        """
        if error.what == EVENTS:
            await self.events.hold(contact.id, position, error)
        left = self._parking.leave(lanes.rest(contact), contact.id)
        if left is None:
            return False
        lanes.remove(contact)
        self.trying.pop(contact.id, None)
        self._left[contact.id].update(left)
        await self.records.postpone(contact.id)
        return True

    def has_room(self, lanes: Lanes, contact: Contact) -> bool:
        """Return whether `hold` finds room."""
        return self._parking.has_room(lanes.rest(contact))

    def leave(self, contact: Contact, delivery: Delivery) -> bool:
        """Park an entry if its contact is held, and leave it to the next try; return whether it was."""
        is_held = contact.id in self._left or self.records.holds(contact.id)
        if not (is_held and delivery.is_entry):
            return False
        if contact.id in self.trying and not self.events.is_in_doubt(contact.id):
            return False
        # It must not overtake what is parked of its contact, so there is always room for it.
        left = self._parking.leave([delivery], contact.id, beyond_max=True)
        self._left[contact.id].update(left or {})
        return True

    def discarded(self, contact: Contact, position: Position) -> str | None:
        """Return the last reply to an event that is held and was discarded, None for any other."""
        return self.events.discarded(contact.id, position) if self.records else None

    async def delivered(self, contact: Contact) -> None:
        """Note that a batch of a contact was delivered: a try that was under way is over."""
        if contact.id in self.trying:
            del self.trying[contact.id]
            await self.records.end_due(contact.id)

    # --- tries ---

    @contextmanager
    def bounded(self, contact: Contact) -> Iterator[None]:
        """End what is waited for when the last tries are over: then RecordsHeld is raised."""
        if contact.id not in self.trying:
            yield
            return
        with anyio.CancelScope(deadline=self._ends_at) as scope:
            self.trying[contact.id] = scope
            yield
        if contact.id in self.trying:
            self.trying[contact.id] = None
        if scope.cancelled_caught:
            raise RecordsHeld("contacts", {contact.id: "the time of the last tries is over"})

    async def poll(self) -> bool:
        """Return whether a contact is due, also by what another process asked for. Raises CheckpointError.

        When ActiveCampaign is down no more, all that is held is due.
        """
        was_down, self._was_down = self._was_down, self._is_down()
        if was_down and not self._was_down:
            self.records.make_due()
        if self.records:
            with suppress(StateBusyError):
                await self.records.refresh()
        return bool(self.due())

    def begin_last_tries(self, *, of_all: bool = True) -> None:
        """Begin the last tries of this run: of all that is held, unless only what is due is to be tried."""
        if of_all:
            self.records.make_due()
        self._ends_at = self._clock() + LAST_TRIES_S
        for scope in self.trying.values():
            if scope is not None:
                scope.deadline = self._ends_at

    def due(self) -> set[ContactId]:
        """Return the contacts that are due for another try, or whose records are held no more."""
        done = {contact for contact in self._left if not self.records.holds(contact)}
        due = (self.records.due() | done | self._moved) - self.trying.keys()
        return {contact for contact in due if not self._is_busy(contact)}

    def has_more_last_tries(self) -> bool:
        """Return whether a contact is due while there is time for the last tries."""
        return self._clock() < self._ends_at and bool(self.due())

    def take_due(self) -> Due:
        """Begin another try of some contacts that are due.

        There are at most `TRIED_AT_ONCE`, and none while much is reopened, so that memory is bounded. Those
        that customers left come besides: new entries of these customers would pass by what is held there.
        """
        due, are_due = self.due(), self.records.due()
        most = TRIED_AT_ONCE if due and self._parking.has_room_in_memory() else 0
        moved = due & self._moved
        contacts = moved.union(islice(due - moved, most))
        entries_of = {
            contact for contact in contacts if contact in self._moved or not self.events.is_in_doubt(contact)
        }
        self._moved -= entries_of
        checks = contacts & are_due
        self.trying |= dict.fromkeys(checks)
        return Due(checks, {contact: self._left.pop(contact, {}) for contact in entries_of})

    def customers_moved(self, left: Collection[ContactId], joined: Collection[ContactId]) -> None:
        """Make due what is held of contacts that customers leave, or join."""
        self.records.try_now({*left, *joined})
        self._moved.update(each for each in left if each in self._left or self.records.holds(each))


class LaneHolds:
    """Implements the port Holds for the contacts that have lanes."""

    def __init__(self, held: HeldContacts, lanes: Lanes) -> None:
        self._held = held
        self._lanes = lanes
        self.bounded = held.bounded
        self.delivered = held.delivered
        self.trying = held.trying
        self.discarded = held.discarded

    def suspects(self) -> list[ContactId]:
        """See ports.stages.Holds.suspects."""
        return self._held.events.contacts()

    def make_due(self) -> None:
        """See ports.stages.Holds.make_due."""
        self._held.events.make_due()

    def sent(self, contact: Contact, position: Position) -> int:
        """See ports.stages.Holds.sent."""
        return self._held.events.sent(contact.id, position)

    async def hold(self, contact: Contact, position: Position, error: RecordsHeld) -> bool:
        """See HeldContacts.hold."""
        return await self._held.hold(self._lanes, contact, position=position, error=error)

    def has_room(self, contact: Contact) -> bool:
        """See HeldContacts.has_room."""
        return self._held.has_room(self._lanes, contact)


class HeldCheck(NamedTuple):
    """A held contact that is due, with those of its orders that are held."""

    contact: Contact
    orders: set[OrderId]
    delivery: Delivery  # for its lane


class DueEntries(NamedTuple):
    """What is tried again: held contacts, and their entries, read again from the log."""

    checks: list[HeldCheck]
    reopened: ReopenedEntries
    page: ClassifiedPage  # with these entries


class HeldEntries:
    """The held contacts that are due for another try, with their entries."""

    def __init__(
        self,
        held: HeldContacts,
        *,
        links: Links,
        parked: ParkedEntries,
        earlier: EarlierRuns,
        entries: Entries,
        classify: Callable[[Entry], Classification],
    ) -> None:
        self._held = held
        self._links = links
        self._parked = parked
        self._earlier = earlier
        self._entries = entries
        self._classify = classify

    def customers_moved(self, left: Collection[ContactId], joined: Collection[ContactId]) -> None:
        """See HeldContacts.customers_moved."""
        self._held.customers_moved(left, joined)

    async def move_events(self, page: ClassifiedPage, contacts: Mapping[CustomerId, Contact]) -> None:
        """Have held events of a page be those of the contacts that their customers have now.

        Raises CheckpointError.
        """
        if self._held.records:
            named = ((entry.position, entry.customer_id) for entry, _ in page.classifications)
            await self._held.events.move(
                {at: contacts[customer].id for at, customer in named if customer and customer in contacts}
            )

    async def due(self) -> DueEntries | None:
        """Return what is tried again now, its entries in log order; None: nothing is due.

        Raises SourceError, CheckpointError.
        """
        due = self._held.take_due()
        if not (due.checks or due.left):
            return None
        parked = await self._parked.parked_of(due.left) if due.left else ()
        to_reopen: dict[Position, Reason | None] = dict.fromkeys(parked)
        for dead_letters in due.left.values():
            to_reopen.update(dead_letters)
        # Those above the start of this run are reopened where the log is read again.
        to_reopen = {at: why for at, why in to_reopen.items() if not self._earlier.will_be_reread(at)}
        entries = await self._entries.entries(to_reopen)
        reopened = ReopenedEntries(to_reopen, entries)
        classifications = [(entry, self._classify(entry)) for entry in entries]
        page = ClassifiedPage(Span(DAY1, 0), classifications, reopened=reopened)
        return DueEntries(await self._checks(due.checks), reopened, page)

    async def _checks(self, contacts: Collection[ContactId]) -> list[HeldCheck]:
        records = self._held.records
        found = await self._links.records(contacts)
        return [
            HeldCheck(
                each.contact,
                records.orders_of(each.contact.id),
                ContactCheck(next(iter(each.customers), CustomerId(0)), LONG_AGO).delivery(DAY1),
            )
            for each in found
        ]
