"""The account's limits, kept so that ActiveCampaign never has to answer that they were passed.

`Budget` counts at the receiver, whatever lies between: a request arrives after it was sent and before its
answer came, so a slot that is free again only a full window after the answer leaves at least a window
between two arrivals that used it. Of slots + 1 arrivals two used the same slot: never do more than `slots`
fall into one window. (A limiter that counts sendings fails here: jitter pushes six of five into a second.)

- REST and GraphQL: 5 slots of a second. At 80 ms a round trip that uses 5 / 1.09 = 4.6 of 5 a second.
- Bulk imports: n a minute are 1 slot of 60 / n s, so that n + 1 arrivals span more than a minute. (A limiter
  that counts sendings needs `AsyncLimiter(1, 60 / (n - 1))` for that.) Evenly spread, not n at once, they
  let a new process wait 60 / n s, not a minute, to be sure of what the one before it did.

`Pace` is for events, which have no published limit: it counts sendings.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from types import TracebackType

from aiolimiter import AsyncLimiter

from kiva_stream.primitives.clock import Sleep

Clock = Callable[[], float]

SECOND_S = 1.01  # a timer may fire a millisecond early, and two clocks never quite agree
MINUTE_S = 60.6
BURST_SHARE = 20  # one in so many events of a second may go at once
RECOVER_EVERY_S = 1.0
FLOW_S = 0.1  # over less than this no rate is measured
RECOVER_STEPS = 20  # from nothing to the ceiling


class Pause:
    """A wait that all calls to a host keep: since ActiveCampaign asked for it, or does not answer there."""

    def __init__(self, sleep: Sleep = asyncio.sleep, clock: Clock = time.monotonic) -> None:
        self._sleep = sleep
        self._clock = clock
        self._until = 0.0
        self._opened: asyncio.Event | None = None  # None: it is not shut

    @property
    def is_over(self) -> bool:
        """Whether anything passes."""
        return self._opened is None and self._clock() >= self._until

    def shut(self) -> None:
        """Let nothing pass until it is opened: one request is out whose answer tells what is next."""
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Let pass again, when the wait that was asked for is over."""
        if self._opened is not None:
            self._opened.set()
            self._opened = None

    def ask(self, seconds: float) -> None:
        """Let nothing pass for that long, or as long as was asked before."""
        self._until = max(self._until, self._clock() + seconds)

    async def back_off(self, seconds: float) -> None:
        """Wait so long; only who asks."""
        await self._sleep(seconds)

    async def over(self, ready_at: float = 0.0) -> None:
        """Return when the pause is over and `ready_at` has come."""
        while True:
            if self._opened is not None:
                await self._opened.wait()
            elif (left_s := max(ready_at, self._until) - self._clock()) > 0:
                await self._sleep(left_s)
            else:
                return


class Budget:
    """So many slots, each taken for one request and free again `refill_s` after its answer or failure.

    `async with budget:` around a request; who waits is served first come first served. `async with
    budget.behind():` gets what is left: as long as anybody of the first kind waits, it is not served; among
    themselves they keep their order too. It starts spent: the process before this one may have used it just
    now.
    """

    def __init__(self, slots: int, refill_s: float, pause: Pause, clock: Clock = time.monotonic) -> None:
        self._refill_s = refill_s
        self._pause = pause
        self._clock = clock
        self._ready_at = [clock() + refill_s] * slots  # when each slot that nobody took may be; a heap
        self._some_free = asyncio.Event()
        self._some_free.set()
        self._queue = asyncio.Lock()
        self._queue_behind = asyncio.Lock()
        self._waiting = 0  # in the first queue
        self._none_waits = asyncio.Event()
        self._none_waits.set()

    async def __aenter__(self) -> None:
        self._waiting += 1
        self._none_waits.clear()
        try:
            async with self._queue:
                await self._ready()
                self._take()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._none_waits.set()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    @asynccontextmanager
    async def behind(self) -> AsyncIterator[None]:
        """Wait, and make one request, behind all who wait for the budget itself."""
        async with self._queue_behind:
            await self._left_over()
            self._take()
        try:
            yield
        finally:
            self._give_back()

    async def _left_over(self) -> None:
        """Return when a slot may be taken that nobody of the first queue waits for."""
        while True:
            await self._none_waits.wait()
            await self._ready()
            if not self._waiting:
                return

    async def _ready(self) -> None:
        """Return when a slot may be taken: before the next await, since nobody holds it meanwhile."""
        while True:
            while not self._ready_at:
                await self._some_free.wait()
            ready_at = self._ready_at[0]
            await self._pause.over(ready_at)
            if self._ready_at and self._ready_at[0] <= ready_at:
                return

    def _take(self) -> None:
        heappop(self._ready_at)
        if not self._ready_at:
            self._some_free.clear()

    def _give_back(self) -> None:
        heappush(self._ready_at, self._clock() + self._refill_s)
        self._some_free.set()


def request_budget(per_second: int, pause: Pause, clock: Clock = time.monotonic) -> Budget:
    """Return the budget of REST and GraphQL together."""
    return Budget(per_second, SECOND_S, pause, clock)


def import_budget(per_minute: int, pause: Pause, clock: Clock = time.monotonic) -> Budget:
    """Return the budget of bulk imports, evenly spread."""
    return Budget(1, MINUTE_S / per_minute, pause, clock)


class Pace:
    """Hands out turns to send an event: `per_second`, fewer for a while after throttling; 0 = no limit.

    Throttling halves the pace, down to `minimum`, once for all that were on their way; each second without it
    gives back a twentieth of the ceiling, which is as much as a new limiter's burst. Where there is none, the
    first throttling makes a ceiling of how fast it went just before, until the pace is back there.
    `on_change` hears of the pace in force and its ceiling.

    `AsyncLimiter(m, p)` lets through at most m + m T / p in any T seconds: a burst of m = n / 20 and n - m a
    second after it are never more than n in a second. One at a time asks it, since a thousand tasks waiting
    on it cost a hundred times more than one (150 to 300 µs each).
    """

    def __init__(
        self,
        per_second: float,
        pause: Pause,
        minimum: float = 1,
        clock: Clock = time.monotonic,
        on_change: Callable[[float, float], None] = lambda _rate, _ceiling: None,
    ) -> None:
        self._pause = pause
        self._set = per_second
        self._minimum = minimum
        self._clock = clock
        self._on_change = on_change
        self._queue = asyncio.Lock()
        self._ceiling = self._rate = per_second  # in force
        self._limiter = _limiter(per_second)
        self._calm_from = -math.inf  # since then it was not throttled, and the pace not changed
        self._flow = Flow(clock)

    async def turn(self) -> None:
        """Return when the next event may be sent; turns are handed out in the order they were asked for."""
        if self._limiter is None:
            await self._pause.over()
            self._flow.count()
        if self._limiter is not None:  # perhaps only since the pause
            async with self._queue:
                await self._paced()

    async def _paced(self) -> None:
        while True:
            await self._pause.over()  # first: after a pause, turns are paced like before it
            self._recover()
            if self._limiter is not None:
                await self._limiter.acquire()
            if self._pause.is_over:
                return

    def throttled(self, wait_s: float) -> None:
        """Go slower once the `wait_s` seconds that were asked for are over."""
        now = self._clock()
        if now < self._calm_from:
            return  # sent before it went slower
        if not self._rate:
            self._ceiling = self._rate = max(self._flow.per_second(), self._minimum)
        calm_from = now + max(wait_s, SECOND_S)  # what is on its way is answered by then
        self._go(max(self._rate / 2, min(self._minimum, self._ceiling)), calm_from)

    def _recover(self) -> None:
        """Go faster, by how long it was not throttled."""
        if self._rate >= self._ceiling:
            return
        steps = (self._clock() - self._calm_from) // RECOVER_EVERY_S
        if steps > 0:
            rate = min(self._rate + steps * self._ceiling / RECOVER_STEPS, self._ceiling)
            self._go(rate, self._clock())

    def _go(self, rate: float, calm_from: float) -> None:
        self._rate, self._calm_from = rate, calm_from
        self._on_change(rate, self._ceiling)
        if rate >= self._ceiling:
            self._rate = self._ceiling = self._set
        self._limiter = _limiter(self._rate)


class Flow:
    """How many events a second went out lately."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock()
        self._count = 0
        self._last = 0.0

    def count(self) -> None:
        """Take in one more."""
        self._count += 1
        if (lasted_s := self._clock() - self._since) >= 1:
            self._last = self._count / lasted_s
            self._since += lasted_s
            self._count = 0

    def per_second(self) -> float:
        """Return the rate of the last second or more, or of what came since, if that is greater."""
        return max(self._last, self._count / max(self._clock() - self._since, FLOW_S))


def _limiter(per_second: float) -> AsyncLimiter | None:
    if not per_second:
        return None
    burst = max(1, per_second // BURST_SHARE)
    return AsyncLimiter(burst, burst / max(per_second - burst, 1))
