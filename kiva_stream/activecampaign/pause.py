"""The wait that all requests to one host of the account keep."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from kiva_stream.primitives.clock import Sleep

Clock = Callable[[], float]


class Pause:
    """A wait for all requests to a host: ActiveCampaign asked for it, or the circuit breaker is open."""

    def __init__(self, sleep: Sleep = asyncio.sleep, clock: Clock = time.monotonic) -> None:
        self._sleep = sleep
        self._clock = clock
        self._until = -math.inf
        self._unblocked = asyncio.Event()
        self._unblocked.set()

    @property
    def is_over(self) -> bool:
        """Whether a request may be sent now."""
        return self._unblocked.is_set() and self._clock() >= self._until

    def block(self) -> None:
        """Hold all requests until `unblock`: the answer to one that is out decides what happens next."""
        self._unblocked.clear()

    def unblock(self) -> None:
        """Let requests pass again once the wait is over."""
        self._unblocked.set()

    def extend(self, seconds: float) -> None:
        """Hold all requests for this time from now, or for what is left of a longer wait."""
        self._until = max(self._until, self._clock() + seconds)

    async def sleep(self, seconds: float) -> None:
        """Hold the calling request alone."""
        await self._sleep(seconds)

    async def wait(self, ready_at: float = -math.inf) -> None:
        """Return when the pause is over and `ready_at` has come."""
        while True:
            if not self._unblocked.is_set():
                await self._unblocked.wait()
            elif (left_s := max(ready_at, self._until) - self._clock()) > 0:
                await self._sleep(left_s)
            else:
                return
