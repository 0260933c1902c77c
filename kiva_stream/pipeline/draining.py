"""Draining: waits that are given up at once when a drain begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from kiva_stream.errors import DrainedError
from kiva_stream.primitives.clock import Sleep


class Draining:
    """The waits of one run that a drain gives up; what they waited for is left to the next run."""

    def __init__(self, sleep: Sleep = anyio.sleep) -> None:
        self._sleep = sleep
        self._has_begun = False
        self._waits: set[anyio.CancelScope] = set()

    def begin(self) -> None:
        """Give up all waits, and those that begin from now on."""
        self._has_begun = True
        for scope in self._waits:
            scope.cancel()

    @contextmanager
    def unless_drained(self) -> Iterator[None]:
        """Do in this block what may be given up at any moment. Raises DrainedError when a drain begins."""
        scope = anyio.CancelScope()
        self._waits.add(scope)
        try:
            with scope:
                if self._has_begun:
                    scope.cancel()
                yield
        finally:
            self._waits.discard(scope)
        if scope.cancel_called:
            raise DrainedError("what was waited for is left to the next run")

    async def sleep(self, seconds: float, /) -> None:
        """Implement the port Sleep. Raises DrainedError when a drain begins."""
        with self.unless_drained():
            await self._sleep(seconds)
