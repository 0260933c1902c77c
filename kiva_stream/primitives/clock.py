"""Sleeping, as a parameter."""

from __future__ import annotations

from typing import Protocol


class Sleep(Protocol):
    """A function that sleeps, such as anyio.sleep. Tests pass one that takes no time."""

    async def __call__(self, seconds: float, /) -> None:
        """Return after this many seconds."""
