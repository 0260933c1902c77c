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
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from types import TracebackType

from aiolimiter import AsyncLimiter

from kiva_stream.ports import Sleep

Clock = Callable[[], float]

SECOND_S = 1.01  # a timer may fire a millisecond early, and two clocks never quite agree
MINUTE_S = 60.6


class Pause:
    """A wait that all calls of an account keep, since ActiveCampaign asked for it."""

    def __init__(self, sleep: Sleep = asyncio.sleep, clock: Clock = time.monotonic) -> None:
        self._sleep = sleep
        self._clock = clock
        self._until = 0.0

    def ask(self, seconds: float) -> None:
        """Let nothing pass for that long, or as long as was asked before."""
        self._until = max(self._until, self._clock() + seconds)

    async def back_off(self, seconds: float) -> None:
        """Wait so long; only who asks."""
        await self._sleep(seconds)

    async def over(self, ready_at: float = 0.0) -> None:
        """Return when the pause is over and `ready_at` has come."""
        while (left_s := max(ready_at, self._until) - self._clock()) > 0:
            await self._sleep(left_s)


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
    """Hands out turns to send an event, `per_second` of them; 0 = as fast as it goes.

    `AsyncLimiter(m, p)` lets through at most m + m T / p in any T seconds: a burst of m = n / 20 and n - m a
    second after it are never more than n in a second. One at a time asks it, since a thousand tasks waiting
    on it cost a hundred times more than one (150 to 300 µs each).
    """

    def __init__(self, per_second: int, pause: Pause) -> None:
        self._pause = pause
        self._queue = asyncio.Lock()
        burst = max(1, per_second // 20)
        self._limiter = AsyncLimiter(burst, burst / max(per_second - burst, 1)) if per_second else None

    async def turn(self) -> None:
        """Return when the next event may be sent; turns are handed out in the order they were asked for."""
        if self._limiter is None:
            await self._pause.over()
        else:
            async with self._queue:
                await self._pause.over()  # first: after a pause, turns are paced like before it
                await self._limiter.acquire()
