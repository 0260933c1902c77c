"""A shop in which things happen at their second, in virtual time: for the log tail and for the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from kiva_stream.model.customers import Customer
from kiva_stream.model.entries import Change, Entry
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.settings.sections import SourceSettings
from tests.fakes.source import FakeLog
from tests.support.entries import SITE, moment
from tests.support.virtual_time import now

POLL_S = 20.0
VIRTUAL_TIME = SimpleNamespace(monotonic=now)  # for a module's `time`


def second() -> float:
    """Return how long the story has lasted."""
    return round(now() - 1_000, 1)


def second_of(when: datetime) -> float:
    """Return at which second of the story a moment is."""
    return round((when - moment(0)).total_seconds(), 1)


def source_settings(**changes: object) -> SourceSettings:
    required = SourceSettings(dsn="postgresql://shop", site_id=SITE.id, poll_interval_s=POLL_S)
    return replace(required, **changes)


class GrowingLog(FakeLog):
    """Stands for SystemLog, two entries a page, and its Horizon. Caches the customers it has read."""

    def __init__(self, *entries: Entry) -> None:
        super().__init__(entries, page_rows=2)
        self.why: str | None = None  # it cannot be read on
        self.restarts: str | None = None  # its ids have begun anew
        self.is_used = True  # the horizon
        self.read_by: list[
            datetime
        ] = []  # by when what was read had been inserted, at each look for a restart
        self.hangs = False  # before it says how far it may be read
        self._cache: dict[Any, Any] = {}

    def forget_customers(self) -> None:
        self._cache.clear()

    async def high_water_mark(self) -> HighWaterMark:
        await (anyio.sleep_forever() if self.hangs else anyio.lowlevel.checkpoint())
        return HighWaterMark(self.entries[-1].position if self.entries else DAY1, moment(0))

    async def restart(self, _after: Position, read_by: datetime) -> str | None:
        self.read_by.append(read_by)
        await anyio.lowlevel.checkpoint()
        return self.restarts

    async def inserted_later(self, _after: Position, _read_by: datetime) -> str | None:
        await anyio.lowlevel.checkpoint()
        return None

    async def obstacle(self, _after: Position) -> str | None:
        await anyio.lowlevel.checkpoint()
        return self.why

    def as_now(self, row: Entry) -> Entry:
        fresh = super().as_now(row).customer
        return replace(row, customer=self._cache.setdefault(row.customer_id, fresh))


class GrowingChanges:
    """Stands for ChangeLog: a list for each change. `asked` is since which second, at each look."""

    def __init__(self) -> None:
        self.rows: list[Change] = []
        self.asked: list[float] = []

    async def now(self) -> datetime:
        await anyio.lowlevel.checkpoint()
        return moment(now() - 1_000)

    async def since(self, when: datetime) -> AsyncIterator[list[Change]]:
        self.asked.append(second_of(when))
        for each in [each for each in self.rows if each.changed_at >= when]:
            await anyio.lowlevel.checkpoint()
            yield [each]


class Story:
    """A shop in which things happen, each at its second, while somebody works."""

    def __init__(self, *entries: Entry) -> None:
        self.log, self.changes = GrowingLog(*entries), GrowingChanges()
        self.source: tuple[Any, Any, Any] = self.log, self.log, self.changes
        self.ended_at = 0.0
        self._planned: list[tuple[float, Callable[..., object], tuple[Any, ...]]] = []

    def at(self, when_s: float, what: Callable[..., object], *arguments: object) -> None:
        self._planned.append((when_s, what, arguments))

    def change_at(self, when_s: float, who: Customer, updated_s: float) -> None:
        self.at(when_s, self.changes.rows.append, Change(who, moment(updated_s)))

    async def play(self, work: Awaitable[None]) -> None:
        for when_s, what, arguments in self._planned:
            asyncio.get_running_loop().call_later(when_s, what, *arguments)
        try:
            with anyio.fail_after(10_000):
                await work
        finally:
            self.ended_at = second()
