"""An event loop whose clock jumps to the next timer, so that waiting takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TICK_S = 1e-6  # a round of the loop takes some time, so that a loop that polls the clock ends


class _JumpingSelector(selectors.DefaultSelector):
    """Advances its clock instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if timeout is None and not ready:
            raise RuntimeError("all tasks wait, and there is no timer")
        self.now += max(0.0 if ready else timeout or 0.0, TICK_S)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its clock starts at 1,000 s; only timers move it."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return 1_000.0 + self._jumping.now


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(story)


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()
