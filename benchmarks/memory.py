"""Memory: the most that the process of a backfill holds does not grow with the log.

The gate is on the size. The ratio is reported: a short history has few customers, so that the caches, which
are bounded, are not yet full.

Seen to fail (263 MB) with a window of 1,000,000 and the whole log in one range of pages: pipeline.window =
source.range_rows = 1000000, pipeline.queue_chunks = 1000, source.range_bytes = 1000000000.

`python -m benchmarks memory --entries 500000` compares with that many; the smaller run is always the same.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.unpaced import ENTRIES

SMALL = 20_000
MOST_MB = 150


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    small, large = await bench.unpaced(SMALL), await bench.unpaced(entries or ENTRIES)
    return [
        *(
            Figure(f"memory: peak MB, {job.entries:,} entries", [job.peak_mb], most=MOST_MB)
            for job in (small, large)
        ),
        Figure("memory: larger / smaller", [large.peak_mb / small.peak_mb]),
    ]
