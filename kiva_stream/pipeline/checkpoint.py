"""The checkpoint: the watermark over what was read, saved together with the outcomes since the last commit.

The watermark passes a span when each of its entries has its outcome or is parked. The counts of what it
passed are added to the saved ones. The counts of what is ahead of it are saved apart, each time anew,
since that is read and counted again after a stop. Events that arrived ahead of it are in the ledger, so
that none is sent again; events that may be sent are recorded by a commit before (`send_intents.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

import anyio
import msgspec

from kiva_stream.model.checkpoint import Commit, Delivered, Leftovers
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Delivery
from kiva_stream.model.ids import ContactId, CustomerId
from kiva_stream.model.outcomes import CONTACT_REASONS, DELIVERED, Counted, Outcome, Span, tally_of
from kiva_stream.model.positions import Position
from kiva_stream.pipeline.draining import Draining
from kiva_stream.pipeline.earlier_runs import EarlierRuns
from kiva_stream.pipeline.group_commit import GroupCommit
from kiva_stream.pipeline.reopened_spans import MOST_IN_MEMORY, ReopenedSpans, count_reopened
from kiva_stream.pipeline.send_intents import PendingIntent, SendIntents
from kiva_stream.pipeline.watermark import Watermark
from kiva_stream.ports.state import Ledger
from kiva_stream.primitives.clock import Sleep
from kiva_stream.primitives.signal import Signal

NOTHING_LEFT = Leftovers()


class CheckpointStatistics(NamedTuple):
    """How far a run has come; counts are of this run."""

    watermark: Position
    read: int = 0
    outcomes: int = 0  # entries that have theirs, or are parked
    events: int = 0  # that ActiveCampaign has, or refused


class Gathered(msgspec.Struct):
    """What the next commit saves beside the watermark."""

    delivered: list[Delivered] = []
    dead: list[DeadLetter] = []
    tags_due: set[ContactId] = set()
    notes: Counter[Counted] = msgspec.field(default_factory=Counter)


class Checkpoint:
    """Implements the ports Tracking, EntryOutcomes, EventOutcomes, DeadLetterOutcomes and ParkedEntries.

    Outcomes are committed to the ledger in groups: every `commit_interval_s`, or sooner if `group_commit.py`
    finds it urgent. `left` is what earlier runs left above `position`, and outside the log's order.
    """

    def __init__(
        self,
        ledger: Ledger,
        position: Position,
        left: Leftovers = NOTHING_LEFT,
        *,
        window: int,
        max_in_flight: int,
        parked_max: int,
        commit_interval_s: float,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self._ledger = ledger
        self._window = window
        self._parked_max = parked_max
        self._counted_from = left.counted_from
        self._watermark = Watermark(position)
        self.earlier = EarlierRuns(ledger, self._watermark, left)
        self._dead_letter_customers = set(left.dead_letter_customers)
        self._gathered = Gathered()
        self._commits = GroupCommit(commit_interval_s, sleep)
        self._committed = Signal()
        self._is_committing = False
        self._read = self._events = 0
        self._committed_outcomes = 0  # how many outcomes there were at the last commit
        self.reopened = ReopenedSpans(left.parked, self._commits, self.earlier.in_doubt)
        self.draining = Draining(sleep)
        self.intents = SendIntents(max_in_flight, self._commits)

    @property
    def position(self) -> Position:
        """The watermark."""
        return self._watermark.position

    @property
    def is_pending(self) -> bool:
        """Whether an entry that was read has no outcome yet, and is not parked."""
        return self._watermark.pending > 0

    def statistics(self) -> CheckpointStatistics:
        """Return how far this run has come."""
        outcomes = self._read - self._watermark.pending
        return CheckpointStatistics(self._watermark.position, self._read, outcomes, events=self._events)

    # --- the producer: what was read ---

    async def track(self, last: Position, size: int) -> Span:
        """Return the span of the next entries; a page larger than the window is tracked alone."""
        while self.is_full or (self._watermark.width and self._watermark.width + size > self._window):
            await self._committed.wait()
        # This comes before `Watermark.track`, which moves `newest`: earlier outcomes are read from there on.
        await self.earlier.read(last)
        self._read += size
        return self._watermark.track(last, size)

    @property
    def is_full(self) -> bool:
        """Whether so many entries are parked that reading pauses.

        What earlier runs had read is read again all the same, since parked entries are tried from there on.
        """
        return self.reopened.parked_count >= self._parked_max and not self.earlier.is_reread

    async def room_to_reopen(self) -> None:
        """See Tracking.room_to_reopen."""
        await self._committed.wait_until(lambda: len(self.reopened.positions) < MOST_IN_MEMORY)

    # --- the batcher and the sender: outcomes ---

    def is_in_doubt(self, position: Position) -> bool:
        """Return whether an earlier run, or an earlier try of this one, may have sent this event."""
        return position in self.earlier.in_doubt

    def keep_in_doubt(self, position: Position) -> None:
        """Leave an event in doubt: the commit that frees its permit has it still recorded."""
        self.earlier.in_doubt.add(position)
        self.reopened.note_in_doubt(position)
        self.intents.resolve(position)

    def record_delivered(self, delivery: Delivery, contact: ContactId, attempts: int) -> None:
        """Record that ActiveCampaign has an event; its permit is free with the next commit."""
        assert delivery.event_line is not None  # noqa: S101  what has no event is not sent
        line = delivery.event_line.number
        self._gathered.delivered.append(Delivered(delivery.position, contact, line, attempts))
        delivery.span.resolve(DELIVERED, event_line=line, notes=delivery.notes)
        self._resolve_intent(delivery.position)

    def record_rejected(self, delivery: Delivery, dead_letter: DeadLetter) -> None:
        """Record that ActiveCampaign refuses an event; its permit is free with the next commit."""
        self.record_dead(delivery.span, dead_letter, delivery.notes)
        self._resolve_intent(delivery.position)

    def _resolve_intent(self, position: Position) -> None:
        self.earlier.in_doubt.discard(position)
        self.intents.resolve(position)  # which requests a commit

    def record_dead(self, span: Span, dead_letter: DeadLetter, notes: Iterable[str] = ()) -> None:
        """Record a dead letter of an entry of this span."""
        self._gathered.dead.append(dead_letter)
        if dead_letter.customer is not None and dead_letter.why in CONTACT_REASONS:
            self._dead_letter_customers.add(dead_letter.customer)
        span.resolve(Outcome("dead", dead_letter.why), notes=notes)
        self._commits.request()

    def count_note(self, what: str) -> None:
        """Count something odd that was done about an entry. It is no reason for a commit of its own."""
        self._gathered.notes[what] += 1

    def mark_tag_due(self, contact: ContactId) -> None:
        """Note that a contact's week tag may differ now."""
        self._gathered.tags_due.add(contact)
        self._commits.request()

    def request_commit(self) -> None:
        """Have a commit follow, since spans were resolved directly."""
        self._commits.request()

    async def reopenable(
        self, positions: Collection[Position], dead_letters: Collection[Position]
    ) -> Collection[Position]:
        """Return those of these entries that may be reopened. Raises CheckpointError."""
        asked = set(positions).difference(self.reopened.positions)
        # A commit takes an entry out of `reopened` before it is kept. So the outcome of one that is not there
        # any more may be in the commit under way, which the ledger shows only when it is kept.
        await self._committed.wait_until(lambda: not self._is_committing)
        return await self._ledger.reopenable(asked, dead_letters)

    async def take_dead_letter_customer(self, customer: CustomerId) -> bool:
        """Forget that a customer has dead letters, and wait until all are committed; False: has none."""
        if customer not in self._dead_letter_customers:
            return False
        await self._committed.wait_until(lambda: not (self._gathered.dead or self._is_committing))
        self._dead_letter_customers.discard(customer)
        return True

    async def all_resolved(self) -> None:
        """Return when every entry that was read has its outcome or is parked."""
        await self._committed.wait_until(lambda: not self.is_pending)

    async def parked_of(self, contacts: Collection[ContactId]) -> list[Position]:
        """Return the parked entries of contacts, in log order, also those that this run parked."""
        await self._committed.wait_until(lambda: not (self.reopened.has_new_rows or self._is_committing))
        return await self._ledger.parked_of(contacts)

    # --- commits ---

    async def run(self) -> None:
        """Commit what gathers, until closed; then once more. Raises CheckpointError."""
        while await self._commits.wait_due():
            await self._commit()
        await self._commit()

    def drain(self) -> None:
        """Let no more event be sent; those in flight still get their outcome."""
        self.intents.close()
        self.draining.begin()

    def close(self) -> None:
        """Have `run` commit what there is and return: nothing gets an outcome any more."""
        self._commits.close()

    async def _commit(self) -> None:
        if not self._has_changes():
            return
        commit, granted = self._next()
        self._is_committing = True
        await self._ledger.commit(commit)
        self._is_committing = False
        self._events += len(commit.delivered) + sum(each.attempts > 0 for each in commit.dead)
        self.intents.wake(granted)
        self._committed.notify()

    def _has_changes(self) -> bool:
        # What is delivered or dead shows in the number of outcomes, or as a resolved reopened span.
        return (
            self._read - self._watermark.pending != self._committed_outcomes
            or bool(self._gathered.tags_due)
            or bool(self._gathered.notes)
            or self.reopened.has_resolved
            or self.reopened.has_new_rows
            or self.intents.has_changes
        )

    def _next(self) -> tuple[Commit, list[PendingIntent]]:
        """Return the next commit, and the intents to grant when it is kept."""
        # 1. What is gathered from here on belongs to the commit after this one.
        gathered, self._gathered = self._gathered, Gathered()
        # 2. Intents: outcomes that are in this commit free permits, which go to pending intents.
        recorded, granted = self.intents.next_commit()
        # 3. The watermark passes the spans in which no entry is pending, and their counts are added to the
        #    saved ones. So are the notes of `count_note`, which belong to no span.
        passed = self._watermark.advance() + gathered.notes
        pending = self._watermark.pending
        # 4. Resolved entries outside the log's order are counted with their pages. This changes the counts
        #    ahead of the watermark, which the commit takes below. `parked` are new rows, `unparked` those to
        #    be deleted; an entry that was parked and resolved since the last commit is in neither.
        resolved = self.reopened.take_resolved()
        for each in resolved:
            count_reopened(each, watermark=self._watermark, passed=passed, counted_from=self._counted_from)
        parked, unparked = self.reopened.take_rows(resolved)
        # 5. What has its outcome by now, sent or not, is in doubt no longer; what still is, stays recorded.
        done = [each.position for each in resolved]
        self.earlier.forget_in_doubt(done, self.reopened.will_be_decided)
        self._committed_outcomes = self._read - pending
        commit = Commit(
            watermark=self.position,
            pending=pending,
            delivered=gathered.delivered,
            dead=gathered.dead,
            passed=tally_of(passed),
            ahead=tally_of(self._watermark.ahead),
            tags_due=frozenset(gathered.tags_due),
            superseded=tuple((each.position, each.was_dead) for each in resolved if each.was_dead),
            intents=recorded | self.earlier.in_doubt,
            parked=parked,
            unparked=unparked,
        )
        return commit, granted
