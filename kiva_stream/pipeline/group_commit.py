"""Group commit: many outcomes share one commit, since each commit costs a round trip to the state."""

from __future__ import annotations

import anyio

from kiva_stream.primitives.clock import Sleep

URGENT_SHARE = 0.5  # of the send permits


class GroupCommit:
    """Tells the checkpoint when its next commit is due: `interval_s` after the first request for it.

    A commit is due at once when half of the send permits wait for it: senders would stand still meanwhile.
    """

    def __init__(self, interval_s: float, sleep: Sleep) -> None:
        self._interval_s = interval_s
        self._sleep = sleep
        self._requested = anyio.Event()
        self._is_urgent = False
        self._interval = anyio.CancelScope()
        self._is_open = True

    def request(self, waiting_share: float = 0.0) -> None:
        """Ask for a commit of what has gathered, for which this share of the send permits waits."""
        self._requested.set()
        if waiting_share >= URGENT_SHARE:
            self._is_urgent = True
            self._interval.cancel()

    def close(self) -> None:
        """Ask for the last commit: nothing gathers any more."""
        self._is_open = False
        self._requested.set()

    async def wait_due(self) -> bool:
        """Return when a commit is due; False: it is the last one."""
        if not self._is_open:
            return False
        await self._requested.wait()
        self._requested = anyio.Event()
        if not self._is_urgent:
            with anyio.CancelScope() as self._interval:
                await self._sleep(self._interval_s)
        self._is_urgent = False
        return True
