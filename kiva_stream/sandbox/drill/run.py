"""A run of `backfill`, which is started again whenever it ends early, and the faults that struck it."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVarTuple

import anyio
import anyio.abc

from kiva_stream.sandbox.drill.site import DrillError, DrillSite

# The exit codes after which systemd starts it again: source or state out of reach, the site held, a kill.
RESTARTED_CODES = frozenset({3, 5, 6, -signal.SIGKILL})
RESTART_AFTER_S = 0.5
AT = 1 / 3  # of what must arrive is there when an outage begins
# Exit codes: of an account that is not set up, of one that refuses, and of a drained SIGTERM.
NOT_SET_UP, REFUSED, TERMINATED = 2, 4, 143


class Run:
    """Runs the backfill of a site. Faults note here how often they struck and when they ended."""

    def __init__(self, site: DrillSite, restarted_codes: frozenset[int] = RESTARTED_CODES) -> None:
        self.site = site
        self.starts = 0
        self.struck = 0
        self.kept: int | None = None  # of others; None: the fault was not about one contact or order
        self.ended_at: list[float] = []  # seconds since 1970
        self._restarted_codes = restarted_codes
        self._process: anyio.abc.Process | None = None

    async def complete(self) -> None:
        """Run the backfill until it is done. Raises DrillError for any other exit code."""
        while (code := await self._once()) != 0:
            if code not in self._restarted_codes:
                raise DrillError(f"backfill ended with exit code {code}: {self.site.last_error_line()}")
            await anyio.sleep(RESTART_AFTER_S)

    async def _once(self) -> int:
        self._process = await self.site.start("backfill", "--since", "day1", "--yes")
        self.starts += 1
        try:
            return await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._process.kill()
                with anyio.CancelScope(shield=True):
                    await self._process.wait()

    def send_signal(self, number: signal.Signals) -> bool:
        """Send a signal to the process. Return False if it has just ended."""
        is_running = self._process is not None and self._process.returncode is None
        if self._process is not None and is_running:
            self._process.send_signal(number)
        return is_running

    async def wait_for_start(self, starts: int) -> None:
        """Wait until there were more starts than this number."""
        while self.starts <= starts:  # noqa: ASYNC110  many tasks poll it
            await anyio.sleep(RESTART_AFTER_S / 10)

    async def wait_for_share(self, share: float) -> None:
        """Wait until this share of all that must arrive is there."""
        await self.site.wait_for_arrivals(int(share * self.site.history.arrivals))

    def add_starts(self, starts: int) -> None:
        """Add the starts of a run that took this one's place for a while."""
        self.starts += starts

    def note_strike(self) -> None:
        """Note that a fault strikes."""
        self.struck += 1

    def note_end(self) -> None:
        """Note that a fault has ended."""
        self.ended_at.append(time.time())

    def note_kept(self, count: int) -> None:
        """Note that so many contacts, orders and events of others had not arrived while a fault lasted."""
        self.kept = (self.kept or 0) + count

    @asynccontextmanager
    async def outage(self, outage_s: float, end: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
        """Begin an outage by the block when a share has arrived, let it last, then end it."""
        await self.wait_for_share(AT)
        self.note_strike()
        yield
        await anyio.sleep(outage_s)
        await end()
        self.note_end()


_Arguments = TypeVarTuple("_Arguments")
Play: TypeAlias = Callable[[Run], Coroutine[Any, Any, None]]


def beside(disturb: Callable[[*_Arguments, Run], Coroutine[Any, Any, None]], *arguments: *_Arguments) -> Play:
    """Return a course in which one run is disturbed until it is complete."""

    async def play(run: Run) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(disturb, *arguments, run)
            await run.complete()
            group.cancel_scope.cancel()

    return play
