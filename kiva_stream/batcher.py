"""Batcher: groups what must be delivered per contact, and keeps log order per contact.

The ordering key is the contact at ActiveCampaign, not the customer: two accounts of one address share a
lane. A lane has at most one batch at the sender; what gathers meanwhile is its next batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from kiva_stream.model import (
    SYNCED,
    Batch,
    ClassifiedPage,
    Contact,
    ContactId,
    ContactStatus,
    CustomerId,
    DeadLetter,
    Delivery,
    Email,
    Entry,
    Event,
    Noise,
    Outcome,
    Reason,
    Reject,
    Span,
    SyncOnly,
    Verdict,
)
from kiva_stream.ports import Links, Outcomes

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
        times = self._seen.setdefault(key, [])
        repeat = any(abs(entry.inserted_at - time) <= self._within for time in times)
        times.append(entry.inserted_at)
        self._order.append((self._entries, key))
        return repeat

    def _forget(self) -> None:
        oldest = self._entries - self._window
        while self._order and self._order[0][0] < oldest:
            _, key = self._order.popleft()
            times = self._seen[key]
            del times[0]
            if not times:
                del self._seen[key]


class Lanes:
    """Pure: what waits, by contact, and which contacts have a batch at the sender."""

    def __init__(self) -> None:
        self._ready: dict[ContactId, Batch] = {}
        self._at_sender: dict[ContactId, list[Delivery]] = {}  # and what gathered since

    def add(self, contact: Contact, delivery: Delivery) -> None:
        """Put a delivery at the end of its contact's lane."""
        waiting = self._at_sender.get(contact.id)
        if waiting is not None:
            waiting.append(delivery)
        elif batch := self._ready.get(contact.id):
            batch.deliveries.append(delivery)
        else:
            self._ready[contact.id] = Batch(contact, [delivery])

    def ready(self) -> list[Batch]:
        """Return the batches that may go to the sender; their lanes are busy from now on."""
        batches = list(self._ready.values())
        self._ready.clear()
        for batch in batches:
            self._at_sender[batch.contact.id] = []
        return batches

    def next(self, contact: Contact) -> Batch | None:
        """Return what gathered while the sender had a contact's batch; None: the lane is idle now."""
        waiting = self._at_sender.pop(contact.id)
        if not waiting:
            return None
        self._at_sender[contact.id] = []
        return Batch(contact, waiting)


class Batcher:
    """Gives each classified entry its outcome, or a place in its contact's lane."""

    def __init__(self, links: Links, outcomes: Outcomes, duplicates: Duplicates, lanes: Lanes) -> None:
        self._links = links
        self._outcomes = outcomes
        self._duplicates = duplicates
        self._lanes = lanes

    def remember(self, verdicts: Iterable[tuple[Entry, Verdict]]) -> None:
        """Take in the entries before the checkpoint, for duplicates only."""
        for entry, verdict in verdicts:
            self._is_repeat(entry, verdict)

    async def run(
        self, pages: MemoryObjectReceiveStream[ClassifiedPage], batches: MemoryObjectSendStream[Batch]
    ) -> None:
        """Send on the batches of each page, then close the stream. Raises CheckpointError."""
        async with pages, batches:
            async for page in pages:
                contacts = await self._links.link(_addresses(page))
                for entry, verdict in page.verdicts:
                    self._place(page.span, entry, verdict, contacts)
                self._outcomes.commit_soon()
                for batch in self._lanes.ready():
                    await batches.send(batch)

    def _place(self, span: Span, entry: Entry, verdict: Verdict, contacts: dict[CustomerId, Contact]) -> None:
        repeat = self._is_repeat(entry, verdict)
        notes = (*entry.notes, *verdict.notes) if entry.notes else verdict.notes
        if outcome := self._outcomes.settled(entry.position):
            span.resolve(outcome, line=_line(verdict) if outcome.kind == "delivered" else None, notes=notes)
        elif isinstance(verdict, Noise):
            span.resolve(SKIPPED[verdict.why], notes=notes)
        elif isinstance(verdict, Reject):
            self._outcomes.buried(span, DeadLetter(entry.position, verdict.why, entry.customer_id), notes)
        elif repeat:
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
        assert entry.customer_id is not None  # noqa: S101  an event or sync-only entry has a customer
        contact = contacts[entry.customer_id]
        if isinstance(verdict, Event):
            delivery = Delivery(
                entry.position,
                entry.inserted_at,
                span,
                entry.customer_id,
                verdict.line,
                verdict.eventdata,
                notes,
            )
            self._lanes.add(contact, delivery)
        elif contact.status is ContactStatus.LINKED:
            span.resolve(SYNCED, notes=notes)
        else:
            delivery = Delivery(entry.position, entry.inserted_at, span, entry.customer_id, None, notes=notes)
            self._lanes.add(contact, delivery)

    def _is_repeat(self, entry: Entry, verdict: Verdict) -> bool:
        if isinstance(verdict, Event):
            return self._duplicates.is_repeat(entry)
        self._duplicates.pass_over()
        return False


def _line(verdict: Verdict) -> int | None:
    return verdict.line.line if isinstance(verdict, Event) else None


def _addresses(page: ClassifiedPage) -> dict[CustomerId, Email]:
    """Return the customers of a page whose contact is needed, with their addresses."""
    return {
        entry.customer.id: entry.customer.email
        for entry, verdict in page.verdicts
        if isinstance(verdict, Event | SyncOnly) and entry.customer and entry.customer.email
    }
