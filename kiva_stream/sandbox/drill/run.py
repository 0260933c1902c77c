"""A run: `backfill`, started again as often as it ends before its end, and what happened to it on the way."""

from __future__ import annotations

import signal
import time

import anyio
import anyio.abc

from kiva_stream.sandbox.drill.stage import DrillError, Stage

# What an operator or systemd starts again: source or state out of reach, the site held, and kills.
AGAIN = frozenset({3, 5, 6, -signal.SIGKILL})
AGAIN_AFTER_S = 0.5
REFUSED, TERMINATED = 4, 143  # exit codes of a refused key, and of a drained SIGTERM


class Run:
    """Carries a stage's history. A fault notes here how often it struck and when it was over."""

    def __init__(self, stage: Stage, again: frozenset[int] = AGAIN) -> None:
        self.stage = stage
        self.starts = 0
        self.struck = 0
        self.over_at: list[float] = []  # seconds since 1970
        self._again = again
        self._process: anyio.abc.Process | None = None

    async def carry(self) -> None:
        """Run the backfill until it is done. Raises DrillError when it ends as it never should."""
        while (code := await self._once()) != 0:
            if code not in self._again:
                raise DrillError(f"backfill ended with exit code {code}: {self.stage.last_words()}")
            await anyio.sleep(AGAIN_AFTER_S)

    async def _once(self) -> int:
        self._process = await self.stage.start("backfill", "--since", "day1", "--yes")
        self.starts += 1
        try:
            return await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._process.kill()
                with anyio.CancelScope(shield=True):
                    await self._process.wait()

    def send_signal(self, number: signal.Signals) -> bool:
        """Send the process of now a signal; return whether it got it: one that has just ended does not."""
        is_there = self._process is not None and self._process.returncode is None
        if self._process is not None and is_there:
            self._process.send_signal(number)
        return is_there

    async def restarted(self, starts: int) -> None:
        """Return when there were more starts than so many."""
        while self.starts <= starts:  # noqa: ASYNC110  one of many who look
            await anyio.sleep(AGAIN_AFTER_S / 10)

    async def reached(self, share: float) -> None:
        """Return when so much of what must arrive is there."""
        await self.stage.reached(int(share * self.stage.history.arrivals))

    def strike(self) -> None:
        """Note that a fault strikes."""
        self.struck += 1

    def over(self) -> None:
        """Note that a fault is over by now."""
        self.over_at.append(time.time())
