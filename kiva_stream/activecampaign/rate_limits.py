"""The documented limits of the account, kept so that ActiveCampaign never has to throttle.

Source: "Rate limits" and "Bulk import contacts" in ActiveCampaign's API reference: 5 requests a second for
REST and GraphQL, 100 bulk imports a minute, 20 of one contact. Whether GraphQL and the imports draw on the 5
a second is not documented; it is assumed.

A `Budget` counts at the receiver, however long requests take on the way. A request arrives after it was sent
and before its answer. If its slot is free again a full window after the answer, two arrivals that use the
same slot are more than a window apart. Of `slots + 1` arrivals two use the same slot, so that no window holds
more than `slots`. A limiter that counts sendings cannot promise that: five sent in one second and five in the
next can arrive as six in one.

- REST and GraphQL: 5 slots of one second. With a round trip of 80 ms they allow 5 / 1.09 = 4.6 a second.
- Bulk imports: n a minute are 1 slot of 60 / n seconds, so that n + 1 arrivals span more than a minute. Since
  they are evenly spread, a new process waits 60 / n seconds, not a minute, for what an earlier one may have
  sent.

Events have no documented limit; `event_pace` spreads them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from types import TracebackType

from kiva_stream.activecampaign.pause import Clock, Pause
from kiva_stream.primitives.signal import Signal

SECOND_S = 1.01  # a timer may fire a millisecond early, and two clocks never quite agree
MINUTE_S = 60.6


class Budget:
    """A number of slots; a request takes one, and it is free again `refill_s` after the answer or failure.

    `async with budget:` waits for a slot and keeps it while the block runs, first come first served. `async
    with budget.low_priority():` takes a slot only while no request waits in `async with budget:`; such
    requests keep their order among themselves. All slots start taken, since an earlier process may have used
    them just now.
    """

    def __init__(self, slots: int, refill_s: float, pause: Pause, *, clock: Clock = time.monotonic) -> None:
        self._refill_s = refill_s
        self._pause = pause
        self._clock = clock
        self._free_at = [clock() + refill_s] * slots  # a heap: when each slot that no request holds is free
        self._slot_returned = Signal()
        self._queue = asyncio.Lock()
        self._low_priority_queue = asyncio.Lock()
        self._waiting = 0  # requests in `_queue`
        self._stopped_waiting = Signal()

    async def __aenter__(self) -> None:
        self._waiting += 1
        try:
            async with self._queue:
                await self._wait_for_slot()
                heappop(self._free_at)
        finally:
            self._waiting -= 1
            self._stopped_waiting.notify()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._return_slot()

    @asynccontextmanager
    async def low_priority(self) -> AsyncIterator[None]:
        """Wait for a slot behind all requests that enter the budget itself, and keep it in the block."""
        async with self._low_priority_queue:
            await self._wait_for_unwanted_slot()
            heappop(self._free_at)
        try:
            yield
        finally:
            self._return_slot()

    async def _wait_for_unwanted_slot(self) -> None:
        """Return when a slot can be taken and no request of normal priority waits for it."""
        while True:
            await self._stopped_waiting.wait_until(lambda: not self._waiting)
            await self._wait_for_slot()
            if not self._waiting:  # one may have come during the wait for the slot
                return

    async def _wait_for_slot(self) -> None:
        """Return when a slot can be taken. The caller takes it before its next await: it is not reserved."""
        while True:
            # 1. Wait until a slot is returned, if requests hold all of them.
            await self._slot_returned.wait_until(lambda: self._free_at)
            # 2. Wait until the earliest slot is free and the pause is over.
            free_at = self._free_at[0]
            await self._pause.wait(free_at)
            # 3. Begin again if a request of the other queue took that slot during the wait.
            if self._free_at and self._free_at[0] <= free_at:
                return

    def _return_slot(self) -> None:
        heappush(self._free_at, self._clock() + self._refill_s)
        self._slot_returned.notify()


def request_budget(per_second: int, pause: Pause, clock: Clock = time.monotonic) -> Budget:
    """Return the budget of REST and GraphQL together."""
    return Budget(per_second, SECOND_S, pause, clock=clock)


def import_budget(per_minute: int, pause: Pause, clock: Clock = time.monotonic) -> Budget:
    """Return the budget of bulk imports, evenly spread."""
    return Budget(1, MINUTE_S / per_minute, pause, clock=clock)
