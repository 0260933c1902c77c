"""The shutdown on signals: SIGINT and SIGTERM begin a drain, which lets the work return early."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio

from kiva_stream.errors import DrainTimeoutError
from kiva_stream.observability import logs

T = TypeVar("T")


class Drain:
    """Ends work early, each part of it in its own way: `begin` stops the innermost part that runs."""

    def __init__(self) -> None:
        self.has_begun = False
        self._stops: list[Callable[[], None]] = []  # of the parts that run, the innermost last

    def begin(self) -> None:
        """Stop what runs, and let nothing begin that a drain would interrupt."""
        self.has_begun = True
        if self._stops:
            self._stops[-1]()

    @contextmanager
    def stops_by(self, stop: Callable[[], None]) -> Iterator[None]:
        """Have a drain call `stop` while the block lasts."""
        self._stops.append(stop)
        try:
            yield
        finally:
            self._stops.pop()

    async def interrupt(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do some work that a drain cancels. Return None after a drain, also after one that began before."""
        result: T | None = None
        with anyio.CancelScope() as scope, self.stops_by(scope.cancel):
            if not self.has_begun:
                result = await work()
        return None if self.has_begun else result


class GracefulShutdown:
    """Begins a drain at SIGINT or SIGTERM.

    Work that has not returned `timeout_s` seconds later is cancelled. A second signal cancels it at once.
    """

    def __init__(self, drain: Callable[[], None], timeout_s: float) -> None:
        self.signal: int | None = None  # the first that was received
        self.was_cut_short = False  # by a second signal
        self._drain = drain
        self._timeout_s = timeout_s
        self._is_late = False

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work. Raises DrainTimeoutError if it did not return in time, and what the work raises."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen, group.cancel_scope)
            await work()
            group.cancel_scope.cancel()
        if self._is_late:
            raise DrainTimeoutError(
                f"What was in flight did not finish within {self._timeout_s:g} s. Nothing is lost: "
                "run the same command again."
            )

    async def _listen(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            self.signal = await anext(signals)
            logs.log.info(
                "draining; a second signal cuts it short",
                signal=signal.Signals(self.signal).name,
                at_most_s=self._timeout_s,
            )
            self._drain()
            with anyio.move_on_after(self._timeout_s) as patience:
                await anext(signals)
                self.was_cut_short = True
            self._is_late = patience.cancelled_caught
            scope.cancel()
