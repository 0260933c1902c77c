"""How many moments fall into a sliding window of time."""

from __future__ import annotations

from collections.abc import Sequence


def most_in(window_s: float, times: Sequence[float]) -> int:
    """Return the most moments in any window of this length; only one of its two ends counts."""
    ordered = sorted(times)
    return max(
        (sum(start <= time < start + window_s - 1e-6 for time in ordered) for start in ordered), default=0
    )
