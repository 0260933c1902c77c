"""Troubles: what is wrong just now, since when and why; for the log, and for `status` by way of the state."""

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

SAVE_EVERY_S = 1.0
WARN_EVERY_S = 60.0
LAST_S = 2.0  # how long the end of a run waits for a state database that is away


class Incidents:
    """Implements the port Troubles.

    A kind of trouble lasts from the first word of it until every place that told of it takes it back.
    Nothing waits here: what began and ended is saved behind the work, once `kept_in` says where.
    """

    def __init__(
        self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), sleep: Sleep = anyio.sleep
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._whys: defaultdict[IncidentKind, dict[str, str]] = defaultdict(dict)  # by place
        self._since: dict[IncidentKind, datetime] = {}
        self._warn: defaultdict[IncidentKind, ThrottledWarning] = defaultdict(
            lambda: ThrottledWarning(WARN_EVERY_S)
        )
        self._changed = anyio.Event()

    def begin(self, kind: IncidentKind, why: str, place: str = "") -> None:
        """Take in that something is wrong, or that it still is and why by now."""
        whys = self._whys[kind]
        if not whys:
            self._since[kind] = self._now()
            self._warn[kind]("trouble", kind=kind, why=why)
        if whys.get(place) != why:
            whys[place] = why
            self._changed.set()

    def end(self, kind: IncidentKind, place: str = "") -> None:
        """Take in that it is well again, or was all the time."""
        whys = self._whys[kind]
        if whys.pop(place, None) is not None:
            self._changed.set()
            if not whys:
                lasted = self._now() - self._since[kind]
                log.info("trouble is over", kind=kind, lasted_s=round(lasted.total_seconds(), 1))

    def all(self) -> list[Incident]:
        """Return what is wrong just now."""
        return [
            Incident(kind, self._since[kind], "; ".join(whys.values()))
            for kind, whys in self._whys.items()
            if whys
        ]

    @asynccontextmanager
    async def kept_in(self, rows: IncidentStore) -> AsyncIterator[None]:
        """Have the state say what is wrong while this lasts; and afterwards why, if it ends by an error.

        Raises CheckpointError when the state is away at the beginning; later on it waits for it.
        """
        await rows.keep(self.all())
        left: list[Incident] | None = []
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._save, rows)
                yield
                group.cancel_scope.cancel()
        except Exception:
            left = self.all()  # says why it ended
            raise
        except BaseException:  # it was cancelled: another process may tell its own by now
            left = None
            raise
        finally:
            if left is not None:
                with anyio.move_on_after(LAST_S, shield=True), suppress(CheckpointError):
                    await rows.keep(left)

    async def _save(self, rows: IncidentStore) -> None:
        """Save what changed, at most once a second, for ever."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            try:
                await rows.keep(self.all())
            except CheckpointError:
                self._changed.set()  # to be said when the state is there again
            await self._sleep(SAVE_EVERY_S)
