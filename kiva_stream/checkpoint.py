"""The checkpoint: the watermark over what is pending, saved together with the outcomes it stands for.

The watermark passes a span when each of its entries has its outcome. The counts of what it passed are
added to the saved ones; those of what is ahead of it are saved apart, each time anew, since that is read and
counted again after a stop. Events that arrived ahead of it are in the ledger, so that none is sent again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import anyio

from kiva_stream.errors import DrainedError
from kiva_stream.model import (
    DELIVERED,
    FOR_WANT_OF_A_CONTACT,
    Commit,
    ContactId,
    CustomerId,
    DeadLetter,
    Delivered,
    Delivery,
    Outcome,
    Position,
    Reason,
    Span,
    Tally,
)
from kiva_stream.ports import Ledger, Sleep


class Watermark:
    """The highest position at or below which every entry has its outcome. Pure: track, resolve, advance."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self.width = 0  # entries between the watermark and the newest one read
        self._spans: deque[Span] = deque()

    @property
    def pending(self) -> int:
        """How many of the entries that were read have no outcome yet."""
        return sum(span.pending for span in self._spans)

    @property
    def ahead(self) -> Tally:
        """The counts of the entries above the watermark that have their outcome."""
        ahead: Counter[tuple[str, str]] = Counter()
        for span in self._spans:
            ahead.update(span.tally)
        return +ahead

    def above(self, position: Position) -> Span | None:
        """Return the span of an entry that the watermark has not passed, None when it has."""
        return next((span for span in self._spans if position <= span.last), None)

    def track(self, last: Position, size: int) -> Span:
        """Take in the next entries in log order; `last` is the position of the last of them."""
        span = Span(last, size)
        self._spans.append(span)
        self.width += size
        return span

    def advance(self) -> Counter[tuple[str, str]]:
        """Pass the spans whose entries all have their outcome; return their counts."""
        tally: Counter[tuple[str, str]] = Counter()
        while self._spans and self._spans[0].pending == 0:
            span = self._spans.popleft()
            self.position = span.last
            self.width -= span.size
            tally += span.tally
        return tally


class Slots:
    """How many events may be sent and not yet committed. A closed one gives no more."""

    def __init__(self, count: int) -> None:
        self._free = anyio.Semaphore(count, fast_acquire=True)
        self._is_open = True

    async def take(self) -> bool:
        """Wait for a free slot and take it; False when closed."""
        if self._is_open:
            await self._free.acquire()
        return self._is_open

    def free(self, count: int) -> None:
        """Give slots back."""
        for _ in range(count):
            self._free.release()

    def close(self) -> None:
        """Give no more slots, also not to those who wait."""
        self._is_open = False
        self.free(self._free.statistics().tasks_waiting)


class CheckpointStatistics(NamedTuple):
    """How far a run has come; counts are of this run."""

    watermark: Position
    read: int
    outcomes: int  # entries that have theirs
    events: int  # that ActiveCampaign has, or refused


class Revival(NamedTuple):
    """A dead entry that is on its way to another outcome."""

    span: Span  # its own, besides that of its page
    position: Position
    why: Reason  # it was dead


class Checkpoint:
    """Implements the port Outcomes by group commits to a ledger, `commit_interval_s` apart or more.

    `settled` are the outcomes that an earlier run kept of entries above `position`; `letters` the customers
    whose entries died for want of a contact.
    """

    def __init__(
        self,
        ledger: Ledger,
        position: Position,
        settled: Mapping[Position, Outcome],
        *,
        window: int,
        max_in_flight: int,
        commit_interval_s: float,
        letters: Collection[CustomerId] = (),
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self._ledger = ledger
        self._watermark = Watermark(position)
        self._settled = dict(settled)
        self._window = window
        self._interval_s = commit_interval_s
        self._sleep = sleep
        self._slots = Slots(max_in_flight)
        self._committed = anyio.Event()  # the next commit
        self._is_committing = False
        self._delivered: list[Delivered] = []
        self._dead: list[DeadLetter] = []
        self._touched: set[ContactId] = set()
        self._letters = set(letters)
        self._revivals: list[Revival] = []
        self._slots_used = 0
        self._read = self._events = 0
        self._outcomes = 0  # at the last commit
        self._is_open = True
        self._is_draining = False
        self._given_up_by_drain: set[anyio.CancelScope] = set()
        self._gathered = anyio.Event()

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

    async def track(self, last: Position, size: int) -> Span:
        """Take in the next entries in log order, when the window has room for them.

        A page larger than the window passes alone.
        """
        while self._watermark.width and self._watermark.width + size > self._window:
            await self._committed.wait()
        self._read += size
        return self._watermark.track(last, size)

    def settled(self, position: Position) -> Outcome | None:
        """Return the outcome that an earlier run kept of an entry above the watermark, once."""
        return self._settled.pop(position, None) if self._settled else None

    def comes_again(self, position: Position) -> bool:
        """Return whether an earlier run kept an outcome of an entry that is still to be read again."""
        return position in self._settled

    async def slot(self) -> bool:
        """Wait until one more event may be in flight; False: none may any more, this is a drain."""
        return await self._slots.take()

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

    def delivered(self, delivery: Delivery, contact: ContactId, attempts: int) -> None:
        """Take in an event that ActiveCampaign has; its slot is free when that is committed."""
        assert delivery.line is not None  # noqa: S101  what has no event takes no slot
        line = delivery.line.line
        self._delivered.append(Delivered(delivery.position, contact, line, attempts))
        delivery.span.resolve(DELIVERED, line=line, notes=delivery.notes)
        self._slots_used += 1
        self.commit_soon()

    def rejected(self, delivery: Delivery, letter: DeadLetter) -> None:
        """Take in an event that ActiveCampaign refuses; its slot is free when that is committed."""
        self._slots_used += 1
        self.buried(delivery.span, letter, delivery.notes)

    def buried(self, span: Span, letter: DeadLetter, notes: Iterable[str] = ()) -> None:
        """Take in a dead entry that was never sent."""
        self._dead.append(letter)
        if letter.customer is not None and letter.why in FOR_WANT_OF_A_CONTACT:
            self._letters.add(letter.customer)
        span.resolve(Outcome("dead", letter.why), notes=notes)
        self.commit_soon()

    def touch(self, contact: ContactId) -> None:
        """Note that a contact's week tag may differ now."""
        self._touched.add(contact)
        self.commit_soon()

    async def has_letters(self, customer: CustomerId) -> bool:
        """Return whether entries of a customer died for want of a contact; asked once, it is forgotten.

        All of them are in the state by then.
        """
        if customer not in self._letters:
            return False
        while self._dead or self._is_committing:
            await self._committed.wait()
        self._letters.discard(customer)
        return True

    def revive(self, position: Position, why: Reason) -> Span:
        """Take in a dead entry that is to get another outcome, outside the log's order."""
        revival = Revival(Span(position, 1), position, why)
        self._revivals.append(revival)
        return revival.span

    def commit_soon(self) -> None:
        """See to it that a commit follows, where spans were resolved directly."""
        self._gathered.set()

    async def run(self) -> None:
        """Commit what gathers, until closed; then once more. Raises CheckpointError."""
        while self._is_open:
            await self._gathered.wait()
            self._gathered = anyio.Event()
            await self._sleep(self._interval_s)
            await self._commit()
        await self._commit()

    def drain(self) -> None:
        """Let no more event be sent; those in flight still get their outcome."""
        self._is_draining = True
        self._slots.close()
        for scope in self._given_up_by_drain:
            scope.cancel()

    def close(self) -> None:
        """Nothing gets an outcome any more: `run` commits what there is, and returns."""
        self._is_open = False
        self._gathered.set()

    async def _commit(self) -> None:
        delivered, self._delivered = self._delivered, []
        dead, self._dead = self._dead, []
        slots, self._slots_used = self._slots_used, 0
        touched, self._touched = frozenset(self._touched), set()
        revived = self._take_revived()
        watermark = self._watermark
        passed, pending = watermark.advance(), watermark.pending
        if self._read - pending == self._outcomes and not touched and not revived:
            return
        self._outcomes = self._read - pending
        for revival in revived:
            self._count(revival, passed)
        letters = tuple((revival.position, revival.why) for revival in revived)
        self._is_committing = True
        await self._ledger.commit(
            Commit(watermark.position, pending, delivered, dead, passed, watermark.ahead, touched, letters)
        )
        self._is_committing = False
        self._events += slots
        self._slots.free(slots)
        self._committed.set()
        self._committed = anyio.Event()

    def _count(self, revival: Revival, passed: Counter[tuple[str, str]]) -> None:
        """Count a revival where its death is counted; the ledger takes that from what was passed."""
        dead = "outcome", str(Outcome("dead", revival.why))
        if revival.position > self._watermark.position and (span := self._watermark.above(revival.position)):
            passed[dead] += 1
            span.tally[dead] -= 1
            span.tally.update(revival.span.tally)
        else:
            passed.update(revival.span.tally)

    def _take_revived(self) -> list[Revival]:
        """Return those that have their new outcome."""
        revived = [each for each in self._revivals if each.span.pending == 0]
        if revived:
            self._revivals = [each for each in self._revivals if each.span.pending]
        return revived
