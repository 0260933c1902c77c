"""Batcher: groups what must be delivered per contact, and keeps log order per contact.

The ordering key is the contact at ActiveCampaign, not the customer: two accounts of one address share a
lane. A lane has at most one batch at the sender; what gathers meanwhile is its next batch. When a customer's
address changes, the lanes are drained before the contact is moved: what was read before goes to the old
address, what comes after to the new one, and where two contacts become one, its order stays log order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from kiva_stream.contacts import moved
from kiva_stream.hops import put
from kiva_stream.model import (
    FOR_WANT_OF_A_CONTACT,
    PARKED,
    SYNCED,
    Asides,
    Batch,
    ClassifiedPage,
    Contact,
    ContactId,
    ContactStatus,
    Customer,
    CustomerId,
    DeadLetter,
    Delivery,
    Email,
    Entry,
    Event,
    Noise,
    OrderId,
    Outcome,
    Position,
    Reason,
    Reject,
    Span,
    SyncOnly,
    Verdict,
)
from kiva_stream.ports import Arrivals, Entries, Letters, Links, Outcomes

FOR_A_CONTACT = (Event, SyncOnly)  # the verdicts
SKIPPED = {reason: Outcome("skipped", reason) for reason in Reason}


class Duplicates:
    """Knows an event that the shop wrote twice: the same customer, action, message and data.

    Compared are the events among the `window` positions before it, `within_s` seconds of `inserted_at`.
    """

    def __init__(self, window: int, within_s: float) -> None:
        self._window = window
        self._within = timedelta(seconds=within_s)
        self._entries = 0
        self._seen: dict[int, list[datetime]] = {}
        self._order: deque[tuple[int, int]] = deque()

    def pass_over(self) -> None:
        """Count an entry that is no event: it takes a place in the window."""
        self._entries += 1

    def is_repeat(self, entry: Entry) -> bool:
        """Take in an event, in log order; return whether an earlier one is the same."""
        self._entries += 1
        self._forget()
        key = hash((entry.customer_id, entry.action, entry.message, entry.data))
        self._order.append((self._entries, key))
        times = self._seen.get(key)
        if times is None:
            self._seen[key] = [entry.inserted_at]
            return False
        repeat = any(abs(entry.inserted_at - time) <= self._within for time in times)
        times.append(entry.inserted_at)
        return repeat

    def _forget(self) -> None:
        oldest = self._entries - self._window
        while self._order and self._order[0][0] < oldest:
            _, key = self._order.popleft()
            times = self._seen[key]
            del times[0]
            if not times:
                del self._seen[key]


class _Look(NamedTuple):
    """A customer whose contact is to be looked at, though no entry asks for it."""

    customer: CustomerId
    at: datetime
    orders: frozenset[OrderId] = frozenset()


class Revived(NamedTuple):
    """A dead entry whose customer may have a contact now: its verdict now, and what it died of."""

    entry: Entry
    verdict: Verdict
    why: Reason


class Revivals:
    """Finds the dead letters of customers who have got a contact, or another one, since."""

    def __init__(
        self, letters: Letters, log: Entries, classify: Callable[[Entry], Verdict], outcomes: Outcomes
    ) -> None:
        self._letters = letters
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
            if not contact.is_refused and await self._outcomes.has_letters(customer)
        ]
        if not customers:
            return []
        letters = {
            position: why
            for position, why in (await self._letters.of(customers)).items()
            if not self._outcomes.comes_again(position)
        }
        entries = await self._log.entries(letters)
        return [Revived(entry, self._classify(entry), letters[entry.position]) for entry in entries]


class _Lane:
    """A contact's batch at the sender, and what gathered since."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.gathered: list[Delivery] = []
        self.parked_at: int | None = None  # how far the batch had come when all of the lane was parked

    @property
    def is_parked(self) -> bool:
        """Whether all of it is parked, and still waits for the same answer."""
        return self.parked_at == self.batch.done


Park = Callable[[Delivery, ContactId], Delivery | None]


class Lanes:
    """What waits, by contact, and which contacts have a batch at the sender.

    `park` keeps an entry in the state, None when there are too many.
    """

    def __init__(self, park: Park) -> None:
        self._park = park
        self._ready: dict[ContactId, Batch] = {}
        self._at_sender: dict[ContactId, _Lane] = {}
        self._emptied = anyio.Event()  # replaced each time that a lane became idle

    def add(self, contact: Contact, delivery: Delivery) -> None:
        """Put a delivery at the end of its contact's lane."""
        if lane := self._at_sender.get(contact.id):
            if not delivery.is_entry and lane.gathered and not lane.gathered[-1].is_entry:
                lane.gathered.pop()  # one look does for both, or they would pile up in an outage
            lane.gathered.append(delivery)
            if lane.is_parked and not self._park_all(lane, lane.gathered, len(lane.gathered) - 1):
                lane.parked_at = None
        elif batch := self._ready.get(contact.id):
            batch.deliveries.append(delivery)
        else:
            self._ready[contact.id] = Batch(contact, [delivery])

    def ready(self) -> list[Batch]:
        """Return the batches that may go to the sender; their lanes are busy from now on."""
        batches = list(self._ready.values())
        self._ready.clear()
        for batch in batches:
            self._at_sender[batch.contact.id] = _Lane(batch)
        return batches

    def next(self, contact: Contact) -> Batch | None:
        """Return what gathered while the sender had a contact's batch; None: the lane is idle now."""
        lane = self._at_sender.pop(contact.id)
        if not lane.gathered:
            self._emptied.set()
            self._emptied = anyio.Event()
            return None
        batch = Batch(contact, lane.gathered)
        self._at_sender[contact.id] = _Lane(batch)
        return batch

    async def idle(self, contacts: Collection[ContactId]) -> None:
        """Return when no batch of these contacts is at the sender."""
        while not self._at_sender.keys().isdisjoint(contacts):
            await self._emptied.wait()

    def park_waiting(self, now: float) -> None:
        """Park the lanes whose batch waits longer for one answer than others should wait for it."""
        for lane in self._at_sender.values():
            is_waiting = lane.batch.park_at <= now and not lane.is_parked
            if is_waiting and self._park_all(lane, lane.batch.deliveries, lane.batch.done):
                is_whole = self._park_all(lane, lane.gathered, 0)
                lane.parked_at = lane.batch.done if is_whole else None

    def _park_all(self, lane: _Lane, deliveries: list[Delivery], first: int) -> bool:
        """Park deliveries of a lane from one on; False: there was no room for one, nor for what follows."""
        for index in range(first, len(deliveries)):
            parked = self._park(deliveries[index], lane.batch.contact.id)
            if parked is None:
                return False
            deliveries[index] = parked
        return True


class Batcher:
    """Gives each classified entry its outcome, or a place in its contact's lane."""

    def __init__(
        self,
        links: Links,
        arrivals: Arrivals,
        outcomes: Outcomes,
        revivals: Revivals,
        duplicates: Duplicates,
        lanes: Lanes,
    ) -> None:
        self._links = links
        self._arrivals = arrivals
        self._outcomes = outcomes
        self._revivals = revivals
        self._duplicates = duplicates
        self._lanes = lanes

    def remember(self, verdicts: Iterable[tuple[Entry, Verdict]]) -> None:
        """Take in the entries before the checkpoint, for duplicates only."""
        for entry, verdict in verdicts:
            self._is_repeat(entry, verdict)

    async def run(
        self, pages: MemoryObjectReceiveStream[ClassifiedPage], batches: MemoryObjectSendStream[Batch]
    ) -> None:
        """Send on the batches of each page, then close the stream.

        Raises AccountRefused, SourceError, CheckpointError.
        """
        async with pages, batches:
            async for page in pages:
                contacts = await self._contacts(_addresses(page))
                for revived in await self._revivals.of(contacts):
                    self._place_revived(revived, contacts)
                await self._place_looks(page, contacts)
                if page.asides is not None:
                    await self._place_asides(page.asides, page.verdicts, contacts)
                else:
                    for entry, verdict in page.verdicts:
                        self._place(page.span, entry, verdict, contacts)
                self._outcomes.commit_soon()
                for batch in self._lanes.ready():
                    await put(batches, batch)

    async def _contacts(self, addresses: Mapping[CustomerId, Email]) -> dict[CustomerId, Contact]:
        """Return the customers' contacts, after those whose address changed have moved.

        Before, their lanes run empty: a contact may be on its way to ActiveCampaign under the old address.
        """
        places = await self._links.of(addresses)
        movers = {customer for customer, place in places.items() if place.email != addresses[customer]}
        if movers:
            found = [await self._links.at(addresses[customer]) for customer in movers]
            joined = {linked.contact.id for linked in found if linked}
            await self._lanes.idle({places[customer].id for customer in movers} | joined)
        contacts = await self._links.link(addresses)
        leaving = moved(contacts, addresses)
        if not leaving:
            return contacts
        await self._arrivals.move(leaving)
        return await self._links.link(addresses)

    def _place(self, span: Span, entry: Entry, verdict: Verdict, contacts: dict[CustomerId, Contact]) -> None:
        repeat = self._is_repeat(entry, verdict)
        notes = (*entry.notes, *verdict.notes) if entry.notes else verdict.notes
        outcome = self._outcomes.settled(entry.position)
        if outcome is None:
            self._decide(span, entry, verdict, notes, contacts, is_repeat=repeat)
        elif outcome == PARKED:
            span.part_with()
            self._resume(entry, verdict, None, contacts)
        else:
            span.resolve(outcome, line=_line(verdict) if outcome.kind == "delivered" else None, notes=notes)
            if outcome.why in FOR_WANT_OF_A_CONTACT and self._outcomes.may_revive(entry.position):
                self._place_revived(Revived(entry, verdict, Reason(outcome.why)), contacts)

    def _decide(
        self,
        span: Span,
        entry: Entry,
        verdict: Verdict,
        notes: tuple[str, ...],
        contacts: dict[CustomerId, Contact],
        *,
        is_repeat: bool = False,
    ) -> None:
        """Give an entry its outcome, or a place in its contact's lane."""
        if isinstance(verdict, Noise):
            span.resolve(SKIPPED[verdict.why], notes=notes)
        elif isinstance(verdict, Reject):
            self._outcomes.buried(span, DeadLetter(entry.position, verdict.why, entry.customer_id), notes)
        elif is_repeat:
            span.resolve(SKIPPED[Reason.DUPLICATE], notes=notes)
        else:
            self._deliver(span, entry, verdict, notes, contacts)

    def _deliver(
        self,
        span: Span,
        entry: Entry,
        verdict: Event | SyncOnly,
        notes: tuple[str, ...],
        contacts: dict[CustomerId, Contact],
    ) -> None:
        delivery = _delivery(span, entry, verdict, notes)
        contact = contacts[delivery.customer]
        is_linked = contact.status is ContactStatus.LINKED
        if delivery.line is None and is_linked and self._arrivals.need(Batch(contact, [delivery])) is None:
            span.resolve(SYNCED, notes=notes)
        else:
            self._lanes.add(contact, delivery)

    def _place_revived(self, revived: Revived, contacts: dict[CustomerId, Contact]) -> None:
        """Give a dead entry whose customer has a contact now another outcome, before newer entries."""
        entry, verdict, why = revived
        contact = contacts.get(entry.customer_id) if entry.customer_id else None
        if contact and not contact.is_refused and isinstance(verdict, FOR_A_CONTACT):
            self._resume(entry, verdict, why, contacts)

    async def _place_asides(
        self,
        asides: Asides,
        verdicts: Iterable[tuple[Entry, Verdict]],
        contacts: dict[CustomerId, Contact],
    ) -> None:
        """Give entries outside the log's order their outcome; those that the log lost are no customer's."""
        left = set(await self._outcomes.unresolved(asides.positions, asides.letters))
        for entry, verdict in verdicts:
            if entry.position in left:
                why = asides.letters.get(entry.position)
                self._resume(entry, verdict, why, contacts, is_parked=asides.are_parked)
        for position in left - {entry.position for entry, _ in verdicts}:
            if span := self._outcomes.resume(position, asides.letters.get(position)):
                span.resolve(SKIPPED[Reason.ERASED])

    def _resume(
        self,
        entry: Entry,
        verdict: Verdict,
        was_dead: Reason | None,
        contacts: dict[CustomerId, Contact],
        *,
        is_parked: bool = False,
    ) -> None:
        """Give an entry outside the log's order its outcome, or a place in its contact's lane."""
        contact = contacts.get(entry.customer_id) if entry.customer_id else None
        span = self._outcomes.resume(entry.position, was_dead, is_parked=is_parked)
        if span is None:
            return
        if contact and isinstance(verdict, FOR_A_CONTACT):
            self._arrivals.doubt(contact, [verdict.order] if verdict.order else [])
        notes = () if was_dead else (*entry.notes, *verdict.notes)  # they were counted when it died
        self._decide(span, entry, verdict, notes, contacts)

    async def _place_looks(self, page: ClassifiedPage, contacts: Mapping[CustomerId, Contact]) -> None:
        """Have the contacts of changed customers looked at, and those that the erased may have had."""
        looks = [*_erased(page), *(_Look(each.customer.id, *each[1:]) for each in page.changes)]
        without = {look.customer for look in looks} - contacts.keys()
        found = {**contacts, **(await self._links.of(without) if without else {})}
        for look in looks:
            if contact := found.get(look.customer):
                self._arrivals.doubt(contact, look.orders)
                self._lanes.add(contact, _delivery_of(look, page.span.last))

    def _is_repeat(self, entry: Entry, verdict: Verdict) -> bool:
        if isinstance(verdict, Event):
            return self._duplicates.is_repeat(entry)
        self._duplicates.pass_over()
        return False


def _line(verdict: Verdict) -> int | None:
    return verdict.line.line if isinstance(verdict, Event) else None


def _addresses(page: ClassifiedPage) -> dict[CustomerId, Email]:
    """Return the customers of a page whose contact is needed, with their addresses."""
    changed = {
        change.customer.id: change.customer.email for change in page.changes if _has_contact(change.customer)
    }
    named = {
        entry.customer.id: entry.customer.email
        for entry, verdict in page.verdicts
        if isinstance(verdict, FOR_A_CONTACT) and entry.customer
    }
    return {customer: email for customer, email in {**changed, **named}.items() if email}


def _has_contact(customer: Customer) -> bool:
    return not customer.erased and not customer.is_test


def _erased(page: ClassifiedPage) -> list[_Look]:
    """Return the customers who, as entries say, are erased by now: a row that is gone shows no change."""
    moments = {
        entry.customer_id: entry.inserted_at
        for entry, verdict in page.verdicts
        if isinstance(verdict, Noise) and verdict.why is Reason.ERASED and entry.customer_id
    }
    return [_Look(customer, at) for customer, at in moments.items()]


def _delivery_of(look: _Look, position: Position) -> Delivery:
    """Return what has a contact looked at, which no outcome is counted of."""
    return Delivery(position, look.at, Span(position, 1), look.customer, line=None, is_entry=False)


def _delivery(span: Span, entry: Entry, verdict: Event | SyncOnly, notes: tuple[str, ...]) -> Delivery:
    assert entry.customer_id is not None  # noqa: S101  an event or sync-only entry has a customer
    line, eventdata = (verdict.line, verdict.eventdata) if isinstance(verdict, Event) else (None, "")
    place = entry.position, entry.inserted_at, span, entry.customer_id
    return Delivery(*place, line, eventdata, notes, verdict.order)
