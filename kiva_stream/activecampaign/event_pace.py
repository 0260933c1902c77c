"""The pace of events: so many a second, fewer for a while after throttling. It counts sendings.

ActiveCampaign documents no limit for event tracking; the setting is the operator's choice.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from aiolimiter import AsyncLimiter

from kiva_stream.activecampaign.pause import Clock, Pause
from kiva_stream.activecampaign.rate_limits import SECOND_S

BURST_SHARE = 20  # one in so many events of a second may go at once
RECOVER_EVERY_S = 1.0
RECOVER_STEPS = 20  # from nothing to the ceiling
MEASURED_S = 0.1  # the shortest time over which a rate is measured


class EventPace:
    """Admits `per_second` events a second, fewer for a while after throttling; 0 means no limit.

    Throttling halves the pace, once for all events that were on their way, but not below `minimum`. Each
    second without throttling gives back a twentieth of the ceiling, which is as much as the burst of a new
    limiter. Without a limit the first throttling takes the rate just before it as the ceiling, until the pace
    is back there. `on_change` gets the pace in force and its ceiling.

    `AsyncLimiter(m, p)` admits at most m + m T / p events in any T seconds: a burst of m = n / 20 and n - m
    in the second after it are never more than n in a second. Only one task at a time waits in it: with a
    thousand waiting tasks each admission cost 150 to 300 µs, a hundred times more (measured).
    """

    def __init__(
        self,
        per_second: float,
        pause: Pause,
        *,
        minimum: float = 1,
        clock: Clock = time.monotonic,
        on_change: Callable[[float, float], None] = lambda _rate, _ceiling: None,
    ) -> None:
        self._pause = pause
        self._configured = per_second
        self._minimum = minimum
        self._clock = clock
        self._on_change = on_change
        self._queue = asyncio.Lock()
        self._ceiling = self._rate = per_second  # the rate is the one in force
        self._limiter = _limiter(per_second)
        self._steady_since = -math.inf  # neither throttled nor changed since; may lie in the future
        self._meter = RateMeter(clock)

    async def acquire(self) -> None:
        """Return when the next event may be sent; callers are admitted in the order of their calls."""
        if self._limiter is None:
            await self._pause.wait()
            self._meter.count()
        if self._limiter is not None:  # throttling may have set a pace during the pause
            async with self._queue:
                await self._admitted()

    async def _admitted(self) -> None:
        while True:
            await self._pause.wait()  # before the limiter, or a pause would save up admissions
            self._recover()
            if self._limiter is not None:
                await self._limiter.acquire()
            if self._pause.is_over:
                return

    def slow_down(self, wait_s: float) -> None:
        """Halve the pace for the time after the `wait_s` seconds that ActiveCampaign asked for."""
        now = self._clock()
        if now < self._steady_since:
            return  # this event was sent before the pace was halved
        if not self._rate:
            self._ceiling = self._rate = max(self._meter.per_second(), self._minimum)
        steady_since = now + max(wait_s, SECOND_S)  # events on their way are answered by then
        self._set_rate(max(self._rate / 2, min(self._minimum, self._ceiling)), steady_since)

    def _recover(self) -> None:
        """Raise the pace by a step for each second without throttling."""
        if self._rate >= self._ceiling:
            return
        steps = (self._clock() - self._steady_since) // RECOVER_EVERY_S
        if steps > 0:
            rate = min(self._rate + steps * self._ceiling / RECOVER_STEPS, self._ceiling)
            self._set_rate(rate, self._clock())

    def _set_rate(self, rate: float, steady_since: float) -> None:
        self._rate, self._steady_since = rate, steady_since
        self._on_change(rate, self._ceiling)
        if rate >= self._ceiling:
            self._rate = self._ceiling = self._configured
        self._limiter = _limiter(self._rate)


class RateMeter:
    """Measures how many events a second are sent."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock()
        self._count = 0
        self._last_per_second = 0.0

    def count(self) -> None:
        """Count one event."""
        self._count += 1
        if (lasted_s := self._clock() - self._since) >= 1:
            self._last_per_second = self._count / lasted_s
            self._since += lasted_s
            self._count = 0

    def per_second(self) -> float:
        """Return the rate of the last full second, or the rate since then if that is greater."""
        return max(self._last_per_second, self._count / max(self._clock() - self._since, MEASURED_S))


def _limiter(per_second: float) -> AsyncLimiter | None:
    if not per_second:
        return None
    burst = max(1, per_second // BURST_SHARE)
    return AsyncLimiter(burst, burst / max(per_second - burst, 1))
