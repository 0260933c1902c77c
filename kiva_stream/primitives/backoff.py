"""How long to wait before another attempt: a decision without a clock."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_S = 1.0


def ceiling_s(attempt: int, max_s: float) -> float:
    """Return the longest wait after a failed attempt (the first is 1): doubled each time, up to `max_s`."""
    return float(min(max_s, FIRST_S * 2 ** min(attempt - 1, 30)))


def backoff_s(attempt: int, max_s: float, chance: Callable[[], float] = random.random) -> float:
    """Return a wait in seconds after a failed attempt; `chance` gives a number from 0 to 1.

    Full jitter (anything from 0 to the ceiling) keeps those that failed together from coming back together.
    """
    return chance() * ceiling_s(attempt, max_s)
