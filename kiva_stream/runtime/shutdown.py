"""The shutdown on signals: SIGINT and SIGTERM begin a drain."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import anyio

from kiva_stream.errors import DrainTimeoutError
from kiva_stream.observability import logs


class GracefulShutdown:
    """Turns SIGINT and SIGTERM into a drain.

    `drain` makes the work return early. What has not returned `timeout_s` seconds later is cut short, and so
    is all of it by a second signal.
    """

    def __init__(self, drain: Callable[[], None], timeout_s: float) -> None:
        self.signal: int | None = None  # the first one that came
        self.was_cut_short = False  # by a second one
        self._drain = drain
        self._timeout_s = timeout_s
        self._is_late = False

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work. Raises DrainTimeoutError when it did not drain in time, and what the work raises."""
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
