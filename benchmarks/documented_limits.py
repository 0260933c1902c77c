"""The main job at the limits a shop has: 80 ms to ActiveCampaign and back, 60 events a second.

5,000 entries with their contacts. What is under test is that the time goes into events alone: they are
about half of the entries, so that 60 a second are about 450,000 entries an hour at the best.

Seen to fail: the rate (125,000) with activecampaign.events_per_second = 20, the events in a second (119)
with 120; the others as in `unpaced`.
"""

from __future__ import annotations

from benchmarks import jobs
from benchmarks.bench import Bench
from benchmarks.figures import Figure

ENTRIES = 5_000
LATENCY_MS = 80
EVENTS_PER_SECOND = 60
MOST_IN_A_SECOND = 66  # as they arrive: on their way they may come a little closer to each other
LEAST_PER_HOUR = 200_000


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    job = await jobs.run(
        bench, entries or ENTRIES, latency_ms=LATENCY_MS, events_per_second=EVENTS_PER_SECOND
    )
    return [
        Figure("limits: entries/hour", [job.per_hour], least=LEAST_PER_HOUR),
        Figure("limits: entries/hour, by its own summary", [job.said_per_hour], least=LEAST_PER_HOUR),
        Figure("limits: CPU µs per entry", [job.cpu_us_per_entry]),
        Figure("limits: differences from the ground truth", [job.differences], most=0),
        Figure("limits: breaches of limits and contract", [job.breaches], most=0),
        Figure(
            "limits: most events in a sliding second", [job.most_events_in_a_second], most=MOST_IN_A_SECOND
        ),
    ]
