"""Leftovers: the entries and changes that earlier runs left outside the log's order, read before the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from itertools import islice

from kiva_stream.model.entries import Change, Changes, Entry, ReopenedEntries
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.pipeline.parking import parked_below_log
from kiva_stream.ports.source import Entries, Log

PAGE_ROWS = 1_000


class LeftoversFirst:
    """Implements the port Log: what earlier runs left outside the log's order, then what another log has.

    That is: entries that are `parked`; dead letters to be replayed, with their reasons; and changes of
    customers with dead letters, whose address may have come while no process ran.
    """

    def __init__(
        self,
        log: Log,
        entries: Entries,
        *,
        parked: Collection[Position] = (),
        replays: Mapping[Position, Reason] | None = None,
        changes: Sequence[Change] = (),
    ) -> None:
        self._log = log
        self._entries = entries
        self._parked = parked
        self._replays = replays or {}
        self._changes = changes

    async def pages(
        self, after: Position, mark: HighWaterMark
    ) -> AsyncIterator[list[Entry] | Changes | ReopenedEntries]:
        """Yield what was left, then all pages. Raises SourceError."""
        parked = dict.fromkeys(parked_below_log(self._parked, after))
        for to_reopen in (parked, self._replays):
            async for reopened in reopened_pages(self._entries, to_reopen):
                yield reopened
        for first in range(0, len(self._changes), PAGE_ROWS):
            yield Changes(list(self._changes[first : first + PAGE_ROWS]))
        async for page in self._log.pages(after, mark):
            yield page


async def reopened_pages(
    entries: Entries, to_reopen: Mapping[Position, Reason | None]
) -> AsyncIterator[ReopenedEntries]:
    """Yield the entries at these positions in log order, a page at a time, as they are now.

    `to_reopen` has the reason of each that is a dead letter, else None. Raises SourceError.
    """
    in_order = iter(sorted(to_reopen))
    while page := list(islice(in_order, PAGE_ROWS)):
        yield ReopenedEntries({at: to_reopen[at] for at in page}, await entries.entries(page))
