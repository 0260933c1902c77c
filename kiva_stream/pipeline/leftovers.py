"""Leftovers: the entries and changes that earlier runs left outside the log's order, read before the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import islice

from kiva_stream.model.entries import Change, Changes, Entry, ReopenedEntries
from kiva_stream.model.outcomes import Reason
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.ports.source import Entries, Log
from kiva_stream.ports.state import Ledger

PAGE_ROWS = 1_000


class LeftoversFirst:
    """Implements the port Log: what earlier runs left outside the log's order, then what another log has.

    That is: entries that are parked, as the ledger has them; dead letters to be replayed, with their reasons;
    and changes of customers with dead letters, whose address may have come while no process ran.
    """

    def __init__(
        self,
        log: Log,
        entries: Entries,
        *,
        parked: Ledger,
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
        """Yield what was left, then all pages. Raises SourceError, CheckpointError."""
        # Parked entries above the watermark are read again with the log.
        last = DAY1
        while parked := await self._parked.parked_page(last, after, PAGE_ROWS):
            last = parked[-1]
            yield ReopenedEntries(dict.fromkeys(parked), await self._entries.entries(parked))
        async for reopened in reopened_pages(self._entries, self._replays):
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
