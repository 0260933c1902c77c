"""Late arrivals: entries that appear below where the log has been read.

They appear only where the log is read by id, since the transaction ids of the shop's database mean nothing
(`source.horizon = false`): the shop takes an id when it inserts an entry, and the entry appears when that
transaction commits. So the ids that are missing are recorded as gaps before the entries behind them are sent
on, and are read again for a while. An entry that appears in a gap is late: it gets its outcome outside the
log's order, and is parked in the state until then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec.structs import replace

from kiva_stream.model.entries import Changes, Entry, ReopenedEntries
from kiva_stream.model.positions import HighWaterMark, IdGap, Position
from kiva_stream.ports.source import GapEntries, Log
from kiva_stream.ports.state import IdGaps

PAGE_GAPS, PAGE_ROWS = 1_000, 1_000
LATE = "late"  # the note


class LateArrivals:
    """Finds entries in the gaps of the log, each once, for `keep_s` seconds since the gap was seen."""

    def __init__(self, log: GapEntries, gaps: IdGaps, keep_s: float) -> None:
        self._log = log
        self._gaps = gaps
        self._keep_s = keep_s

    async def pages(self, until: Position) -> AsyncIterator[ReopenedEntries]:
        """Yield the entries that have appeared in the gaps up to a position, a page at a time.

        Gaps above `until` are left out, though an earlier run may have recorded some: the log is read there
        later, and has what has appeared in them. Raises SourceError, CheckpointError.
        """
        after = 0
        while gaps := await self._gaps.page(after, until.id, PAGE_GAPS):
            entries = await self._log.in_id_gaps(gaps, PAGE_ROWS)
            if entries:
                positions = [entry.position for entry in entries]
                await self._gaps.record_found(*_before_and_after(gaps, positions), positions)
                late = [_late(entry) for entry in entries]
                yield ReopenedEntries(dict.fromkeys(positions), late, are_late=True)
            # After a full page the same gaps are looked at again, since there may be more in them. What was
            # found is no part of them any more.
            if len(entries) < PAGE_ROWS:
                after = gaps[-1].last
        await self._gaps.expire(self._keep_s)


class LogWithLateArrivals:
    """Implements the port Log for a backfill: another log, with late arrivals before and after it."""

    def __init__(self, log: Log, late: LateArrivals) -> None:
        self._log = log
        self._late = late

    async def pages(
        self, after: Position, mark: HighWaterMark
    ) -> AsyncIterator[list[Entry] | Changes | ReopenedEntries]:
        """Yield late arrivals below `after`, then the log, then late arrivals below what was read by then.

        The second look finds what appeared while the log was read. Raises SourceError, CheckpointError.
        """
        async for reopened in self._late.pages(after):
            yield reopened
        async for page in self._log.pages(after, mark):
            yield page
            if isinstance(page, list):
                after = page[-1].position
        async for reopened in self._late.pages(after):
            yield reopened


def _before_and_after(gaps: list[IdGap], positions: list[Position]) -> tuple[list[IdGap], list[IdGap]]:
    """Return the gaps in which something was found, and what is left of them."""
    found = {gap: [each.id for each in positions if gap.first <= each.id <= gap.last] for gap in gaps}
    filled = [gap for gap, ids in found.items() if ids]
    return filled, [left for gap in filled for left in gap.without(found[gap])]


def _late(entry: Entry) -> Entry:
    return replace(entry, notes=(*entry.notes, LATE))
