"""The main job as fast as it goes: a log of 40,000 entries, its contacts first, its events unpaced.

The command as a user runs it, from its start to its end; the account is set up before. The sandbox
answers at once but keeps ActiveCampaign's limits, 5 requests a second and 100 imports a minute. What
arrived is compared with the ground truth. The rate is reported: it is the machine's, which users are
promised nothing of. A full run has 130,000 entries.

Seen to fail, with 20,000 entries: differences (10) with pipeline.duplicate_window_s = 0; breaches (3)
with activecampaign.requests_per_second = 50 and import_poll_s = 0.01. With all 130,000 the memory (155
MB), with pipeline.window = source.range_rows = 1000000, pipeline.queue_chunks = 1000, source.range_bytes
= 1000000000.
"""

from __future__ import annotations

from benchmarks import jobs
from benchmarks.bench import Bench
from benchmarks.figures import Figure

ENTRIES = 40_000
FULL_ENTRIES = 130_000
MOST_MB = 150


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    job = await measured(bench, entries)
    return [
        Figure("unpaced: entries/hour", [job.per_hour]),
        Figure("unpaced: entries/hour, by its own summary", [job.said_per_hour]),
        Figure("unpaced: CPU µs per entry", [job.cpu_us_per_entry]),
        Figure("unpaced: peak MB", [job.peak_mb], most=MOST_MB),
        Figure("unpaced: differences from the ground truth", [job.differences], most=0),
        Figure("unpaced: breaches of limits and contract", [job.breaches], most=0),
        Figure("unpaced: most events in a sliding second", [job.most_events_in_a_second]),
    ]


async def measured(bench: Bench, entries: int | None = None) -> jobs.Job:
    """Return the job, which runs once: others have figures of it too."""
    return await jobs.unpaced(bench, entries or (FULL_ENTRIES if bench.is_full else ENTRIES))
