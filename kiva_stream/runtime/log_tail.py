"""The log tail: entries as they become readable, and changes without one."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta

import anyio

from kiva_stream.model.entries import Change, Changes, Entry, ReopenedEntries
from kiva_stream.model.positions import HighWaterMark, Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.observability.logs import ThrottledWarning
from kiva_stream.settings.sections import SourceSettings
from kiva_stream.source.changes import ChangeLog
from kiva_stream.source.log import SystemLog

LOOK_BACK_EVERY_S = 30.0  # a shop's hour of changes is too much to read at every poll of a second
HIDES_FOR_S = 120.0  # after its second, a change may still turn out to be two
WARN_EVERY_S = 60.0


class LogTail:
    """Implements the port Log: entries as they become readable, and changes without one, for `for_s` seconds.

    A change is given once: rows are looked at again for a while, since they appear after their `updated_at`.
    `on_poll` hears at every look at the log when the last one was, whose entries are all out by then;
    `asides` gives what comes outside the log's order by now, below a position.
    """

    def __init__(
        self,
        system_log: SystemLog,
        changes: ChangeLog,
        settings: SourceSettings,
        since: datetime,
        for_s: float,
        on_poll: Callable[[datetime | None], Awaitable[None]],
        asides: Callable[[Position], AsyncIterator[ReopenedEntries | Changes]],
        troubles: Incidents,
    ) -> None:
        self._log = system_log
        self._changes = changes
        self._settings = settings
        self._looked_at = since  # at what the shop changed
        self._read_at: datetime | None = None  # all that could be read then was
        self._looked_back_at = -math.inf  # by the monotonic clock
        self._seen: dict[Change, datetime] = {}
        self._for_s = for_s
        self._on_poll = on_poll
        self._asides = asides
        self._troubles = troubles
        self.is_giving = False  # changes that nobody has taken yet
        self._held_up: tuple[Position, float] | None = None  # where, and since when
        self._warn = ThrottledWarning(WARN_EVERY_S)

    async def pages(
        self, after: Position, _mark: HighWaterMark
    ) -> AsyncIterator[list[Entry] | Changes | ReopenedEntries]:
        """Yield what the shop changed, asides, then the entries above `after`, at every poll.

        Raises SourceError, CheckpointError.
        """
        ends_at = time.monotonic() + self._for_s
        while time.monotonic() < ends_at:
            next_at = time.monotonic() + self._settings.poll_interval_s
            await self._on_poll(self._read_at)
            async for changes in self._changed():
                self.is_giving = True
                yield changes
                self.is_giving = False
            async for asides in self._asides(after):
                yield asides
            self._log.forget_customers()
            mark = await self._log.mark()
            async for entries in self._log.pages(after, mark):
                after = entries[-1].position
                yield entries
            self._read_at = self._looked_at
            await self._warn_when_held_up(after)
            await anyio.sleep(max(0.0, next_at - time.monotonic()))

    async def _changed(self) -> AsyncIterator[Changes]:
        """Yield what was changed since the last look, and a while before: rows appear after their moment."""
        now = await self._changes.now()
        look_back, looks_again = self._look_back()
        async for changes in self._changes.since(self._looked_at - look_back):
            if new := [change for change in changes if self._is_new(change, looks_again=looks_again)]:
                yield Changes(new)
                self._seen.update((change, change.changed_at) for change in new)
        self._looked_at = now
        forgotten = now - timedelta(seconds=self._settings.updated_overlap_s)
        self._seen = {change: at for change, at in self._seen.items() if at >= forgotten}

    def _is_new(self, change: Change, *, looks_again: bool) -> bool:
        """Return whether a change was not given yet, or may hide another one.

        Some shops write `updated_at` in whole seconds: two changes of one second look the same.
        """
        is_young = self._looked_at - change.changed_at < timedelta(seconds=HIDES_FOR_S)
        may_hide = looks_again and is_young and not change.changed_at.microsecond
        return may_hide or change not in self._seen

    def _look_back(self) -> tuple[timedelta, bool]:
        """Return how far before the last look to look, and whether that is the whole overlap.

        It is not at every quick poll.
        """
        overlap_s = self._settings.updated_overlap_s
        every_s = min(LOOK_BACK_EVERY_S, overlap_s)
        if time.monotonic() - self._looked_back_at < every_s:
            return timedelta(seconds=every_s), False
        self._looked_back_at = time.monotonic()
        return timedelta(seconds=overlap_s), True

    async def _warn_when_held_up(self, after: Position) -> None:
        """Warn when something keeps the log from being read on, and go on doing so while it does."""
        obstacle = await self._log.obstacle(after)
        if obstacle is None:
            self._held_up = None
            self._troubles.end("horizon")
            return
        if self._held_up is None or self._held_up[0] != after:
            self._held_up = after, time.monotonic()
            self._troubles.end("horizon")
        held_up_s = time.monotonic() - self._held_up[1]
        if held_up_s >= self._settings.horizon_alarm_s:
            self._warn("the log is held up", for_s=round(held_up_s), why=obstacle)
            self._troubles.begin("horizon", f"{obstacle} It has been seen for {held_up_s:.0f} s.")
