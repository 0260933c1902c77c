"""The year: a medium company's first one, planned and then carried at the documented limits.

5 requests a second, 100 imports a minute, 80 ms there and back; events unpaced, since no limit of theirs is
published. (At the vendor's stated 200,000 entries an hour a year of 2,500,000 entries takes 12.5 hours.)
`make bench-year` runs the year itself, CI half a hundredth of it; a part of it that has many contacts has its
part of the hour. A second backfill after it must change nothing.

Seen to fail, with 12,500 entries: differences (5) with pipeline.duplicate_window_s = 0; breaches (14) with
activecampaign.requests_per_second = 50 and import_poll_s = 0.01; changes by a second backfill (1) without
comparing what a contact is with what it was; contacts in two requests (104) with each import sent twice; two
tags at once (172) with an import that has all three. With 130,000 the memory (155 MB) with the settings named
in unpaced.py. With 600,000 the minutes (20.5 of 14.4), contacts a write (99) and a call (25), and orders a
call (30), with activecampaign.requests_per_second = 2, contacts_per_import = 100 and orders_per_batch = 30.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.requests import by_purpose

YEAR = 2_500_000
ENTRIES = YEAR // 200
LATENCY_MS = 80
MOST_MINUTES = 60  # of the year
MANY_CONTACTS = 5_000
LEAST = {"write": 200, "call": 30, "order call": 45}  # R7 of performance.md


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    year = await bench.year(entries or ENTRIES, latency_ms=LATENCY_MS)
    job, comparison = year.job, year.job.comparison
    many = comparison.contacts >= MANY_CONTACTS
    writes, calls, order_calls = by_purpose(job.requests)
    per = {
        "write": comparison.contacts / writes,
        "call": comparison.contacts / calls,
        "order call": comparison.orders_arrived / max(order_calls, 1),
    }
    return [
        Figure("year: entries", [job.entries]),
        Figure("year: contacts", [comparison.contacts]),
        Figure("year: orders", [comparison.orders_arrived]),
        Figure("year: minutes planned", [year.planned_hours * 60]),
        Figure(
            "year: minutes",
            [job.measured.seconds / 60],
            most=MOST_MINUTES * job.entries / YEAR if many else None,
        ),
        Figure("year: entries/hour, events unpaced", [job.per_hour]),
        *(Figure(f"year: seconds of {phase}", [seconds]) for phase, seconds in year.phases.items()),
        Figure("year: CPU µs per entry", [job.cpu_us_per_entry]),
        Figure("year: peak MB", [job.peak_mb], most=150),
        *(
            Figure(f"year: requests per 1,000 entries, {name}", [count / job.entries * 1_000])
            for name, count in sorted(job.requests.items())
        ),
        *(
            Figure(
                f"year: {'orders' if name == 'order call' else 'contacts'} per {name}",
                [share],
                least=LEAST[name] if many else None,
            )
            for name, share in per.items()
        ),
        Figure("year: differences from the ground truth", [job.differences], most=0),
        Figure("year: breaches of limits and contract", [job.breaches], most=0),
        Figure("year: moments with two of the three week tags", [year.state["tag_overlaps"]], most=0),
        Figure("year: contacts in two requests at once", [year.state["contacts_in_two_requests"]], most=0),
        Figure("year: requests of a second backfill that change anything", [year.changing_again], most=0),
    ]
