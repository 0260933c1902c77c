"""Exponential backoff with full jitter: decides how long to wait before another attempt."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_S = 1.0


def ceiling_s(attempt: int, max_s: float) -> float:
    """Return the longest wait after a failed attempt: FIRST_S, doubled each time up to `max_s`."""
    return float(min(max_s, FIRST_S * 2 ** min(attempt - 1, 30)))


def backoff_s(attempt: int, max_s: float, chance: Callable[[], float] = random.random) -> float:
    """Return a wait in seconds after a failed attempt; `chance` returns a number from 0 to 1.

    Full jitter (anything from 0 to the ceiling) spreads the repetitions of attempts that failed together.
    """
    return chance() * ceiling_s(attempt, max_s)
