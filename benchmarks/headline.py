"""The headline in one line: `python -m benchmarks.headline`.

The main job with the account's documented limits on, then with its events unpaced, each compared with the
ground truth. Exit code 1 when a gate of either falls short.
"""

from __future__ import annotations

import sys

import anyio

from benchmarks import documented_limits, unpaced
from benchmarks.bench import Bench
from benchmarks.figures import shown


async def headline() -> tuple[str, bool]:
    """Return the line, and whether all that it says holds."""
    async with Bench.open() as bench:
        limited = await documented_limits.figures(bench)
        free = await unpaced.figures(bench, unpaced.FULL_ENTRIES)
    holds = all(figure.holds for figure in (*limited, *free))
    line = (
        f"{shown(limited[0].values[0])} log entries/hour at the documented limits (5 requests/s,"
        f" {documented_limits.LATENCY_MS} ms, events paced at {documented_limits.EVENTS_PER_SECOND}/s);"
        f" {shown(free[0].values[0])} with events unpaced, at no latency;"
        f" {'all there, in order, no limit passed' if holds else 'but not all as it should be'}"
    )
    return line, holds


if __name__ == "__main__":
    said, is_well = anyio.run(headline)
    print(said)
    sys.exit(not is_well)
