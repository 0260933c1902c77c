"""The log tail: entries as they become readable, and changes without an entry."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import anyio

from kiva_stream.model.entries import Change, Changes, Entry, ReopenedEntries
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.observability.logs import ThrottledWarning
from kiva_stream.pipeline.dead_letter_replay import DeadLetterReplay
from kiva_stream.pipeline.late_arrivals import LateArrivals
from kiva_stream.runtime.id_order import IdOrder
from kiva_stream.settings.sections import SourceSettings
from kiva_stream.source.changes import ChangeLog
from kiva_stream.source.horizon import Horizon
from kiva_stream.source.log import SystemLog

LOOK_BACK_EVERY_S = 30.0  # a shop's hour of changes is too much to read at every poll of a second
HIDES_FOR_S = 120.0  # so long after its second, a change may hide another one of that second
WARN_EVERY_S = 60.0


class ChangeTail:
    """What the shop changed since the last look, each change once.

    A row becomes visible some time after its `updated_at`. So each look goes back beyond the last one, and
    the changes of the overlap that were yielded are remembered.
    """

    def __init__(self, changes: ChangeLog, since: datetime, overlap_s: float) -> None:
        self.looked_at = since  # by the shop's clock
        self._changes = changes
        self._overlap_s = overlap_s
        self._looked_back_at = -math.inf  # by the monotonic clock
        self._seen: dict[Change, datetime] = {}

    @property
    def remembered(self) -> int:
        """The number of changes that are known to have been yielded."""
        return len(self._seen)

    async def look(self) -> AsyncIterator[Changes]:
        """Yield what was changed since the last look. Raises SourceError."""
        now = await self._changes.now()
        look_back, is_full = self._look_back()
        async for changes in self._changes.since(self.looked_at - look_back):
            if new := [change for change in changes if self._is_new(change, is_full=is_full)]:
                yield Changes(new)
                self._seen.update((change, change.changed_at) for change in new)
        self.looked_at = now
        forgotten = now - timedelta(seconds=self._overlap_s)
        self._seen = {change: at for change, at in self._seen.items() if at >= forgotten}

    def _is_new(self, change: Change, *, is_full: bool) -> bool:
        """Return whether a change was not yielded yet, or may hide another one.

        Some shops write `updated_at` in whole seconds: two changes of one second look the same.
        """
        is_young = self.looked_at - change.changed_at < timedelta(seconds=HIDES_FOR_S)
        may_hide = is_full and is_young and not change.changed_at.microsecond
        return may_hide or change not in self._seen

    def _look_back(self) -> tuple[timedelta, bool]:
        """Return how far before the last look to look, and whether that is the full overlap.

        The full overlap is read every LOOK_BACK_EVERY_S at most; between, as far back as that interval.
        """
        every_s = min(LOOK_BACK_EVERY_S, self._overlap_s)
        if time.monotonic() - self._looked_back_at < every_s:
            return timedelta(seconds=every_s), False
        self._looked_back_at = time.monotonic()
        return timedelta(seconds=self._overlap_s), True


class LogTail:
    """Implements the port Log for `for_s` seconds: at every poll changes, reopened entries, then new entries.

    `on_poll` is called at the beginning of every poll with the moment up to which everything that the shop
    had then was yielded. `reopened` yields what lies outside the log's order below a position. While so many
    entries are parked that `is_full`, no new ones are yielded; changes are.
    """

    def __init__(
        self,
        system_log: SystemLog,
        *,
        horizon: Horizon,
        changes: ChangeTail,
        settings: SourceSettings,
        for_s: float,
        on_poll: Callable[[datetime | None], Awaitable[None]],
        reopened: Sequence[DeadLetterReplay | LateArrivals],
        id_order: IdOrder,
        incidents: Incidents,
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        self.is_yielding = False  # whether the pipeline works on a page of changes
        self._log = system_log
        self._horizon = horizon
        self._changes = changes
        self._settings = settings
        self._for_s = for_s
        self._on_poll = on_poll
        self._reopened = reopened
        self._id_order = id_order
        self._is_full = is_full
        self._standstill = Standstill(settings.horizon_alarm_s, incidents)

    async def pages(
        self, after: Position, _mark: HighWaterMark
    ) -> AsyncIterator[list[Entry] | Changes | ReopenedEntries]:
        """Yield pages until the time is over; the mark is not used.

        Raises SourceError, CheckpointError.
        """
        ends_at = time.monotonic() + self._for_s
        read_at: datetime | None = None
        while time.monotonic() < ends_at:
            next_at = time.monotonic() + self._settings.poll_interval_s
            await self._on_poll(read_at)
            async for changes in self._changes.look():
                self.is_yielding = True
                yield changes
                self.is_yielding = False
            # When ids have begun anew, a position may name another entry than before.
            if not await self._id_order.has_restarted(after):
                async for page in self._pages(after):
                    if isinstance(page, list):
                        after = page[-1].position
                    yield page
                read_at = read_at if self._is_full() else self._changes.looked_at
            self._standstill.check(after, await self._horizon.obstacle(after))
            await anyio.sleep(max(0.0, next_at - time.monotonic()))

    async def _pages(self, after: Position) -> AsyncIterator[list[Entry] | Changes | ReopenedEntries]:
        """Yield reopened entries, then the entries above a position that have become readable."""
        for source in self._reopened:
            async for reopened in source.pages(after):
                yield reopened
        self._log.forget_customers()
        mark = await self._horizon.high_water_mark()
        async for entries in self._log.pages(after, mark):
            if self._is_full():
                return
            self._id_order.note_read(entries)
            yield entries


class Standstill:
    """Opens the incident `horizon` when reading stands still at one position for `alarm_s` seconds."""

    def __init__(self, alarm_s: float, incidents: Incidents) -> None:
        self._alarm_s = alarm_s
        self._incidents = incidents
        self._warn = ThrottledWarning(WARN_EVERY_S)
        self._held_at: Position | None = None
        self._since = -math.inf  # by the monotonic clock

    def check(self, after: Position, obstacle: str | None) -> None:
        """Note how far the log was read, and what keeps it from being read on, if anything does."""
        held_at = None if obstacle is None else after
        if held_at != self._held_at:
            self._held_at, self._since = held_at, time.monotonic()
            self._incidents.resolve("horizon")
        held_up_s = time.monotonic() - self._since
        if obstacle is not None and held_up_s >= self._alarm_s:
            self._warn("the log is held up", for_s=round(held_up_s), why=obstacle)
            self._incidents.open("horizon", f"{obstacle} It has been seen for {held_up_s:.0f} s.")
