"""Reopened spans: entries that get their outcome outside the log's order, each in a span of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from msgspec.structs import replace

from kiva_stream.model.deliveries import Delivery
from kiva_stream.model.ids import ContactId
from kiva_stream.model.outcomes import Counted, Outcome, Reason, Span
from kiva_stream.model.positions import Position
from kiva_stream.pipeline.group_commit import GroupCommit
from kiva_stream.pipeline.watermark import Watermark

NO_CONTACT = ContactId(0)  # of the row of a late arrival, and of a row of which the contact is not known
MOST_IN_MEMORY = 10_000  # reopened entries, before no more of them are taken from the state


class ReopenedSpan(NamedTuple):
    """An entry that gets its outcome in a span of its own: it is parked, was dead, or was found late."""

    span: Span  # its own, besides that of its page
    position: Position
    was_dead: Reason | None = None
    # Whose row it has, which is deleted when it is resolved; None: it is not parked.
    parked_for: ContactId | None = None


class ReopenedSpans:
    """The reopened entries whose outcome no commit has taken yet; the rows of those that are parked.

    Earlier runs parked `parked_count` entries: they have their rows, and are reopened one by one. So are
    those that this run parked and left. They lie in the state alone, since there may be very many. `in_doubt`
    are the events in doubt, as they are at any time.
    """

    def __init__(self, parked_count: int, commits: GroupCommit, in_doubt: Collection[Position] = ()) -> None:
        self._commits = commits
        self._in_doubt = in_doubt
        self._open: dict[Position, ReopenedSpan] = {}
        self._left_in_doubt: set[Position] = set()  # those that were left to a later try
        self._new_rows: dict[Position, ContactId] = {}  # parked since the last commit
        self._moved_rows: dict[Position, ContactId] = {}  # left, perhaps for another contact, since then
        self.parked_count = parked_count

    def __contains__(self, position: Position) -> bool:
        """Return whether an entry is reopened, and no commit has taken its outcome."""
        return position in self._open

    @property
    def positions(self) -> Collection[Position]:
        """Where the reopened entries stand in the log."""
        return self._open.keys()

    def will_be_decided(self, position: Position) -> bool:
        """Return whether an event in doubt gets its outcome outside the log's order, now or later."""
        return position in self._open or position in self._left_in_doubt

    @property
    def has_new_rows(self) -> bool:
        """Whether an entry was parked, or left for another contact, since the last commit."""
        return bool(self._new_rows or self._moved_rows)

    @property
    def has_resolved(self) -> bool:
        """Whether one of them has its outcome, which is to be committed."""
        return any(each.span.pending == 0 for each in self._open.values())

    def park(self, delivery: Delivery, contact: ContactId) -> Delivery:
        """Have an entry leave the span of its page; return its delivery, with a span of its own."""
        delivery.span.detach()
        self._new_rows[delivery.position] = contact
        self.parked_count += 1
        self._commits.request()
        span = self._add(ReopenedSpan(Span(delivery.position, 1), delivery.position, parked_for=contact))
        return replace(delivery, span=span, is_reopened=True)

    def reopen(
        self, position: Position, was_dead: Reason | None = None, *, is_late: bool = False
    ) -> Span | None:
        """Return a span for an entry that gets its outcome outside the log's order; None: it has one already.

        `was_dead` is the reason of a dead letter. `is_late`: this run found the entry late, and parked it.
        """
        if position in self._open:
            return None
        self._left_in_doubt.discard(position)
        self.parked_count += is_late  # the others are counted from the start
        parked_for = NO_CONTACT if was_dead is None else None
        return self._add(ReopenedSpan(Span(position, 1), position, was_dead=was_dead, parked_for=parked_for))

    def leave(self, position: Position, contact: ContactId) -> Reason | None:
        """Leave a reopened entry to a later try: as a parked row, or as the dead letter that it was.

        `contact` is whose it is now. Return the reason of a dead letter. No-op for an entry that is not
        reopened.
        """
        if (left := self._open.pop(position, None)) is None:
            return None
        if position in self._in_doubt:
            self._left_in_doubt.add(position)
        if left.parked_for not in {None, contact}:
            self._set_row(position, contact)
        return left.was_dead

    def note_in_doubt(self, position: Position) -> None:
        """Note that an event is in doubt, which may have been left already."""
        if position not in self._open:
            self._left_in_doubt.add(position)

    def _set_row(self, position: Position, contact: ContactId) -> None:
        rows = self._new_rows if position in self._new_rows else self._moved_rows
        rows[position] = contact
        self._commits.request()

    def _add(self, reopened: ReopenedSpan) -> Span:
        self._open[reopened.position] = reopened
        return reopened.span

    def take_resolved(self) -> list[ReopenedSpan]:
        """Return those that have their outcome, and forget them."""
        resolved = [each for each in self._open.values() if each.span.pending == 0]
        for each in resolved:
            del self._open[each.position]
            self.parked_count -= each.parked_for is not None
        return resolved

    def take_rows(
        self, resolved: Collection[ReopenedSpan]
    ) -> tuple[tuple[tuple[Position, ContactId], ...], tuple[Position, ...]]:
        """Return the parked rows that a commit adds or changes, then those that it deletes.

        An entry that was parked and resolved since the last commit has no row, and gets none.
        """
        done = {each.position for each in resolved}
        rows = {**self._moved_rows, **self._new_rows}
        new = tuple(row for row in rows.items() if row[0] not in done)
        gone = tuple(
            each.position
            for each in resolved
            if each.parked_for is not None and each.position not in self._new_rows
        )
        self._new_rows, self._moved_rows = {}, {}
        return new, gone


def count_reopened(
    reopened: ReopenedSpan, *, watermark: Watermark, passed: Counter[Counted], counted_from: Position
) -> None:
    """Have the counts show the new outcome of a reopened entry instead of the old one.

    Entries at or below `counted_from` are not counted. Only a dead letter has an old outcome. With each
    commit the ledger adds `passed` to the saved counts, and subtracts from them the old outcome of every
    resolved entry that was dead. If the saved counts do not have that old outcome, it is added to `passed`:
    this cancels the subtraction.

    | the entry is               | the old outcome is      | what is done about the old | the new outcome is |
    |                            | counted                 | outcome                    | added to           |
    |----------------------------|-------------------------|----------------------------|--------------------|
    | at or below `counted_from` | nowhere                 | `passed` + 1               | nothing            |
    | passed by the watermark    | in the saved counts     | nothing                    | `passed`           |
    | above the watermark        | in the span of its page | span - 1, `passed` + 1     | that span          |
    """
    page_span, is_counted = watermark.span_of(reopened.position), reopened.position > counted_from
    if reopened.was_dead:
        old = Outcome("dead", reopened.was_dead)
        if page_span or not is_counted:
            passed[old] += 1
        if page_span:
            page_span.counts[old] -= 1
    if is_counted:
        (page_span.counts if page_span else passed).update(reopened.span.counts)
