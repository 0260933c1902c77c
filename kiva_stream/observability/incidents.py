"""Incidents: what is wrong just now, since when and why. They are logged, and persisted for `status`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import anyio

from kiva_stream.errors import CheckpointError
from kiva_stream.model.incidents import Incident, IncidentKind
from kiva_stream.observability.logs import ThrottledWarning, log
from kiva_stream.ports.state import IncidentStore
from kiva_stream.primitives.clock import Sleep
from kiva_stream.primitives.signal import Signal

PERSIST_EVERY_S = 1.0
WARN_EVERY_S = 60.0
LAST_S = 2.0  # how long the end of a run waits for a state database that is away


class Incidents:
    """The incidents of one process, at most one of each kind.

    Several reporters may open an incident of one kind, each with a reason of its own. It lasts until each of
    them has resolved it. Neither call waits: `persisted_in` writes what changed in the background, since the
    state may be what is wrong.
    """

    def __init__(
        self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), sleep: Sleep = anyio.sleep
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._whys: defaultdict[IncidentKind, dict[str, str]] = defaultdict(dict)  # by reporter
        self._since: dict[IncidentKind, datetime] = {}
        self._warn: defaultdict[IncidentKind, ThrottledWarning] = defaultdict(
            lambda: ThrottledWarning(WARN_EVERY_S)
        )
        self._is_persisted = True
        self._changes = Signal()

    def open(self, kind: IncidentKind, why: str, reporter: str = "") -> None:
        """Open an incident, or update the reason of one that is open."""
        whys = self._whys[kind]
        if not whys:
            self._since[kind] = self._now()
            self._warn[kind]("trouble", kind=kind, why=why)
        if whys.get(reporter) != why:
            whys[reporter] = why
            self._note_change()

    def resolve(self, kind: IncidentKind, reporter: str = "") -> None:
        """Mark the incident resolved. No-op if it was not active."""
        whys = self._whys[kind]
        if whys.pop(reporter, None) is not None:
            self._note_change()
            if not whys:
                lasted = self._now() - self._since[kind]
                log.info("trouble is over", kind=kind, lasted_s=round(lasted.total_seconds(), 1))

    def all(self) -> list[Incident]:
        """Return the incidents that are open."""
        return [
            Incident(kind, self._since[kind], "; ".join(dict.fromkeys(whys.values())))
            for kind, whys in self._whys.items()
            if whys
        ]

    @asynccontextmanager
    async def persisted_in(self, store: IncidentStore) -> AsyncIterator[None]:
        """Keep the stored incidents up to date while the block lasts.

        A block that returns leaves none; one that raises leaves those that were open, which say why. A block
        that is cancelled writes nothing more: another process may have written its own by then.
        Raises CheckpointError when the state is away at the beginning. Later it tries again.
        """
        await store.persist(self.all())
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._persist_changes, store)
                yield
                group.cancel_scope.cancel()
        except Exception:
            await _persist_last(store, self.all())
            raise
        await _persist_last(store, [])

    def _note_change(self) -> None:
        self._is_persisted = False
        self._changes.notify()

    async def _persist_changes(self, store: IncidentStore) -> None:
        """Persist what changed, at most once in PERSIST_EVERY_S, for ever."""
        while True:
            await self._changes.wait_until(lambda: not self._is_persisted)
            self._is_persisted = True
            try:
                await store.persist(self.all())
            except CheckpointError:
                self._is_persisted = False
            await self._sleep(PERSIST_EVERY_S)


async def _persist_last(store: IncidentStore, left: list[Incident]) -> None:
    """Persist what is left at the end of a run, if the state database answers within LAST_S."""
    with anyio.move_on_after(LAST_S, shield=True), suppress(CheckpointError):
        await store.persist(left)
