"""The seam through which time passes."""

from __future__ import annotations

from typing import Protocol


class Sleep(Protocol):
    """The seam through which time passes, so that tests of waiting take no time."""

    async def __call__(self, seconds: float, /) -> None:
        """Return after that long."""
