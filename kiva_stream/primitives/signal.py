"""Signal: wakes every task that waits for the next notification."""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Signal:
    """A repeatable event.

    A notification wakes the tasks that wait at that moment. It is not remembered: a task that begins to wait
    afterwards waits for the next one.
    """

    def __init__(self) -> None:
        self._next = anyio.Event()

    def notify(self) -> None:
        """Wake every task that waits."""
        self._next.set()
        self._next = anyio.Event()

    async def wait(self) -> None:
        """Return at the next notification."""
        await self._next.wait()

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Return when the condition is true; it is tested at once and after each notification."""
        while not condition():
            await self.wait()
