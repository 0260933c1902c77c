"""The checkpoint: the watermark over what is pending, saved together with the outcomes it stands for.

The watermark passes a span when each of its entries has its outcome or is parked. The counts of what it
passed are added to the saved ones; those of what is ahead of it are saved apart, each time anew, since that
is read and counted again after a stop. Events that arrived ahead of it are in the ledger, so that none is
sent again; those that may arrive are named by a commit before they are sent: a crash leaves few doubts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import anyio
from msgspec.structs import replace

from kiva_stream.errors import DrainedError
from kiva_stream.model.checkpoint import Commit, Delivered, Leftovers
from kiva_stream.model.dead_letters import DeadLetter
from kiva_stream.model.deliveries import Delivery
from kiva_stream.model.ids import ContactId, CustomerId
from kiva_stream.model.outcomes import CONTACT_REASONS, DELIVERED, Counted, Outcome, Reason, Span, tally_of
from kiva_stream.model.positions import Position
from kiva_stream.pipeline.send_intents import Lookahead, PendingIntent, SendIntents, no_lookahead
from kiva_stream.pipeline.watermark import Watermark
from kiva_stream.ports.state import Ledger
from kiva_stream.primitives.clock import Sleep
from kiva_stream.primitives.signal import Signal

NOTHING_LEFT = Leftovers()


class CheckpointStatistics(NamedTuple):
    """How far a run has come; counts are of this run."""

    watermark: Position
    read: int
    outcomes: int  # entries that have theirs, or are parked
    events: int  # that ActiveCampaign has, or refused


class ReopenedEntry(NamedTuple):
    """An entry that gets its outcome outside the log's order: dead or parked before, or found late."""

    span: Span  # its own, besides that of its page
    position: Position
    was_dead: Reason | None = None
    is_parked: bool = False


class Checkpoint:
    """Implements the port Outcomes by group commits to a ledger, `commit_interval_s` apart or more.

    `left` is what earlier runs left above `position`, and aside of it. Of entries that wait long, at most
    `parked_max` are parked.
    """

    def __init__(
        self,
        ledger: Ledger,
        position: Position,
        left: Leftovers = NOTHING_LEFT,
        *,
        window: int,
        max_in_flight: int,
        commit_interval_s: float,
        parked_max: int = 10_000,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self._ledger = ledger
        self._watermark = Watermark(position)
        self._start = position
        self._settled_to = left.earlier_outcomes_to
        self._settled: dict[Position, Outcome] = {}  # of entries that were read
        self._left_parked = set(left.parked)
        self._doubts = set(left.in_doubt)
        self._dead_letters = set(left.dead_letter_customers)
        self._discarded = left.discarded
        self._counted_from = left.counted_from
        self._window = window
        self._interval_s = commit_interval_s
        self._parked_max = parked_max
        self._sleep = sleep
        self._out = SendIntents(max_in_flight)
        self._committed = Signal()
        self._is_committing = False
        self._delivered: list[Delivered] = []
        self._dead: list[DeadLetter] = []
        self._touched: set[ContactId] = set()
        self._notes: Counter[Counted] = Counter()
        self._asides: dict[Position, ReopenedEntry] = {}  # without an outcome yet
        self._parked: dict[Position, ContactId] = {}  # since the last commit
        self._parked_count = len(left.parked)
        self._read = self._events = self._answers = 0
        self._outcomes = 0  # at the last commit
        self._is_open = True
        self._is_draining = False
        self._given_up_by_drain: set[anyio.CancelScope] = set()
        self._gathered = anyio.Event()
        self._gathering = anyio.CancelScope()

    @property
    def position(self) -> Position:
        """The watermark."""
        return self._watermark.position

    @property
    def is_pending(self) -> bool:
        """Whether an entry that was read has no outcome yet."""
        return self._watermark.pending > 0

    def statistics(self) -> CheckpointStatistics:
        """Return how far this run has come."""
        outcomes = self._read - self._watermark.pending
        return CheckpointStatistics(self._watermark.position, self._read, outcomes, self._events)

    # --- what was read ---

    async def track(self, last: Position, size: int) -> Span:
        """Take in the next entries in log order, when the window has room for them.

        A page larger than the window passes alone. Raises CheckpointError.
        """
        while self._watermark.width and self._watermark.width + size > self._window:
            await self._committed.wait()
        if self._watermark.newest < self._settled_to:
            self._settled |= await self._ledger.earlier_outcomes(self._watermark.newest, last)
        self._read += size
        return self._watermark.track(last, size)

    def earlier_outcome(self, position: Position) -> Outcome | None:
        """Return the outcome that an earlier run kept of an entry above the watermark, once."""
        return self._settled.pop(position, None) if self._settled else None

    async def unresolved(
        self, positions: Collection[Position], dead_letters: Collection[Position]
    ) -> Collection[Position]:
        """Return those of these entries that may be resumed: not on their way, and without an outcome yet.

        Those of the `dead_letters` have none as long as they are dead. Raises CheckpointError.
        """
        asked = set(positions) - self._asides.keys()
        while self._is_committing:  # one of them may be in it
            await self._committed.wait()
        return await self._ledger.unresolved(asked, dead_letters)

    def will_be_reread(self, position: Position) -> bool:
        """Return whether an earlier run kept an outcome of an entry that is still to be read again."""
        return position in self._settled or self._watermark.newest < position <= self._settled_to

    # --- what goes out ---

    def claim_prerecorded(self, position: Position) -> bool:
        """Let an event go out at once if a commit has named it ahead of its turn; return whether it did."""
        return self._out.claim_prerecorded(position)

    async def wait_recorded(self, position: Position, ahead: Lookahead = no_lookahead) -> bool:
        """Wait until a commit has named an event as one that may be out; False: none is sent any more.

        What the sender has `ahead`, up to a number, is named with it, as far as there are places.
        """
        self.request_commit()
        return await self._out.wait_recorded(position, ahead)

    def release_lookahead(self, positions: Iterable[Position]) -> None:
        """Take in that these events are not sent soon, though they lay ahead."""
        self._out.release_lookahead(positions)
        if self._out.has_news:  # somebody may wait for their places
            self.request_commit()

    def withdraw(self, position: Position) -> None:
        """Take in that an event that was named is surely not out, and that this run does not send it."""
        self._out.answered(position)
        self.request_commit()

    def is_in_doubt(self, position: Position) -> bool:
        """Return whether an event may have arrived that an earlier run sent."""
        return position in self._doubts

    @contextmanager
    def unless_drained(self) -> Iterator[None]:
        """Do in this block what may be given up at any moment. Raises DrainedError when a drain begins."""
        scope = anyio.CancelScope()
        self._given_up_by_drain.add(scope)
        try:
            with scope:
                if self._is_draining:
                    scope.cancel()
                yield
        finally:
            self._given_up_by_drain.discard(scope)
        if scope.cancel_called:
            raise DrainedError("what was waited for is left to the next run")

    async def sleep(self, seconds: float, /) -> None:
        """Sleep, unless drained: the port Sleep for those who wait before they send. Raises DrainedError."""
        with self.unless_drained():
            await self._sleep(seconds)

    # --- outcomes ---

    def record_delivered(self, delivery: Delivery, contact: ContactId, attempts: int) -> None:
        """Take in an event that ActiveCampaign has; its place is free when that is committed."""
        assert delivery.line is not None  # noqa: S101  what has no event is not sent
        line = delivery.line.line
        self._delivered.append(Delivered(delivery.position, contact, line, attempts))
        delivery.span.resolve(DELIVERED, line=line, notes=delivery.notes)
        self._answer(delivery.position)

    def record_rejected(self, delivery: Delivery, dead_letter: DeadLetter) -> None:
        """Take in an event that ActiveCampaign refuses; its place is free when that is committed."""
        self._answer(delivery.position)
        self.record_dead(delivery.span, dead_letter, delivery.notes)

    def _answer(self, position: Position) -> None:
        self._out.answered(position)
        self._doubts.discard(position)
        self._answers += 1
        self.request_commit()
        if self._out.is_held_up:
            self._gathering.cancel()

    def record_dead(self, span: Span, dead_letter: DeadLetter, notes: Iterable[str] = ()) -> None:
        """Take in a dead entry that was never sent."""
        self._dead.append(dead_letter)
        if dead_letter.customer is not None and dead_letter.why in CONTACT_REASONS:
            self._dead_letters.add(dead_letter.customer)
        span.resolve(Outcome("dead", dead_letter.why), notes=notes)
        self.request_commit()

    def count_note(self, what: str) -> None:
        """Count something odd that was done about an entry; once, however often it is read again."""
        self._notes[what] += 1

    def mark_tag_due(self, contact: ContactId) -> None:
        """Note that a contact's week tag may differ now."""
        self._touched.add(contact)
        self.request_commit()

    async def has_dead_letters(self, customer: CustomerId) -> bool:
        """Return whether entries of a customer died for want of a contact; asked once, it is forgotten.

        All of them are in the state by then.
        """
        if customer not in self._dead_letters:
            return False
        while self._dead or self._is_committing:
            await self._committed.wait()
        self._dead_letters.discard(customer)
        return True

    # --- outside the log's order ---

    def park(self, delivery: Delivery, contact: ContactId) -> Delivery | None:
        """Keep an entry that waits long in the state, so that the watermark can pass it.

        Return its delivery, which is counted apart from now on; None: too many are parked.
        """
        if not delivery.is_entry or delivery.position in self._asides:
            return delivery
        if self._parked_count >= self._parked_max:
            return None
        self._parked_count += 1
        self._parked[delivery.position] = contact
        delivery.span.detach()
        self.request_commit()
        span = self._aside(ReopenedEntry(Span(delivery.position, 1), delivery.position, is_parked=True))
        return replace(delivery, span=span)

    def reopen(
        self, position: Position, was_dead: Reason | None = None, *, is_parked: bool = False
    ) -> Span | None:
        """Take in an entry that gets its outcome outside the log's order; None: it is on its way to it.

        It is a dead one when `was_dead` says of what, else one that is parked, by an earlier run or just now.
        """
        if position in self._asides:
            return None
        if position in self._left_parked:
            self._left_parked.discard(position)
            is_parked = True
        else:
            self._parked_count += is_parked
        return self._aside(ReopenedEntry(Span(position, 1), position, was_dead, is_parked))

    def may_reopen(self, position: Position) -> bool:
        """Return whether a dead entry that comes again may get another outcome: not a discarded one."""
        return position not in self._discarded

    def _aside(self, aside: ReopenedEntry) -> Span:
        self._asides[aside.position] = aside
        return aside.span

    # --- commits ---

    def request_commit(self) -> None:
        """See to it that a commit follows, where spans were resolved directly."""
        self._gathered.set()

    async def run(self) -> None:
        """Commit what gathers, until closed; then once more. Raises CheckpointError."""
        while self._is_open:
            await self._gathered.wait()
            self._gathered = anyio.Event()
            await self._gather()
            await self._commit()
        await self._commit()

    async def _gather(self) -> None:
        """Wait for more to commit, but not while those who want to send are held up by it."""
        if not self._out.is_held_up:
            self._gathering = anyio.CancelScope()
            with self._gathering:
                await self._sleep(self._interval_s)

    def drain(self) -> None:
        """Let no more event be sent; those in flight still get their outcome."""
        self._is_draining = True
        self._out.close()
        for scope in self._given_up_by_drain:
            scope.cancel()

    def close(self) -> None:
        """Nothing gets an outcome any more: `run` commits what there is, and returns."""
        self._is_open = False
        self._gathered.set()

    async def _commit(self) -> None:
        if not self._has_news():
            return
        commit, named, answers = self._next()
        self._is_committing = True
        await self._ledger.commit(commit)
        self._is_committing = False
        self._events += answers
        for ask in named:
            ask.go()
        self._committed.notify()

    def _has_news(self) -> bool:
        outcomes = self._read - self._watermark.pending
        is_aside_done = any(aside.span.pending == 0 for aside in self._asides.values())
        return outcomes != self._outcomes or bool(self._touched) or is_aside_done or self._out.has_news

    def _next(self) -> tuple[Commit, list[PendingIntent], int]:
        """Return what to commit, who may send when that is done, and how many events got their answer."""
        watermark, named = self._watermark, self._out.next()
        done = [aside for aside in self._asides.values() if aside.span.pending == 0]
        passed, pending = watermark.advance() + self._notes, watermark.pending
        for aside in done:
            del self._asides[aside.position]
            self._parked_count -= aside.is_parked
            self._count(aside, passed)
        self._outcomes = self._read - pending
        self._forget_doubts(done)
        new = {position: contact for position, contact in self._parked.items() if position in self._asides}
        gone = [each.position for each in done if each.is_parked and each.position not in self._parked]
        commit = Commit(
            watermark.position,
            pending,
            self._delivered,
            self._dead,
            tally_of(passed),
            tally_of(watermark.ahead),
            frozenset(self._touched),
            tuple((each.position, each.was_dead) for each in done if each.was_dead),
            self._out.positions | self._doubts,
            tuple(new.items()),
            tuple(gone),
        )
        answers, self._answers = self._answers, 0
        self._delivered, self._dead, self._touched, self._parked = [], [], set(), {}
        self._notes.clear()
        return commit, named, answers

    def _count(self, aside: ReopenedEntry, passed: Counter[Counted]) -> None:
        """Count an aside where its page is counted; the ledger takes a death from what was passed."""
        span, is_counted = self._watermark.above(aside.position), aside.position > self._counted_from
        dead = Outcome("dead", aside.was_dead or "")
        if aside.was_dead and (span or not is_counted):
            passed[dead] += 1
        if aside.was_dead and span:
            span.counts[dead] -= 1
        if is_counted:
            (span.counts if span else passed).update(aside.span.counts)

    def _forget_doubts(self, done: Iterable[ReopenedEntry]) -> None:
        """Doubt no longer what has its outcome, though it was not sent again."""
        if self._doubts:
            self._doubts.difference_update(aside.position for aside in done)
            passed = {each for each in self._doubts if self._start < each <= self.position}
            self._doubts -= passed - self._asides.keys()
