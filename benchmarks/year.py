"""The year: a medium company's first one, planned and then carried at the documented limits.

5 requests a second, 100 imports a minute, 80 ms there and back; events unpaced, since no limit of theirs
is published. (At the vendor's stated 200,000 entries an hour a year of 2,500,000 entries takes 12.5
hours.) `make bench-year` runs the year itself, CI half a hundredth of it; a part of it that has many
contacts has its part of the hour. A second backfill after it must change nothing.

Seen to fail, with 12,500 entries: differences (5) with pipeline.duplicate_window_s = 0; breaches (14)
with activecampaign.requests_per_second = 50 and import_poll_s = 0.01; changes by a second backfill (1)
without comparing what a contact is with what it was; contacts in two requests (104) with each import sent
twice; two tags at once (172) with an import that has all three. With 130,000 the memory (155 MB) with the
settings named in unpaced.py. With 600,000 the minutes (20.5 of 14.4), contacts a write (99) and a call
(25), and orders a call (30), with activecampaign.requests_per_second = 2, contacts_per_import = 100 and
orders_per_batch = 30.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import anyio
import msgspec

from benchmarks.accounts import ready
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.jobs import Job, job_of
from benchmarks.requests import by_purpose

YEAR = 2_500_000
ENTRIES = YEAR // 200
LATENCY_MS = 80
MOST_MINUTES = 60  # of the year
MANY_CONTACTS = 5_000
LEAST = {"write": 200, "call": 30, "order call": 45}  # R7 of performance.md


class Year(NamedTuple):
    """A backfill that was planned before, and run again after."""

    job: Job
    planned_hours: float
    phases: dict[str, float]  # seconds of each
    state: dict[str, Any]  # of the account, at the end
    changing_again: int  # requests of the second backfill that could change something


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    year = await _year(bench, entries or ENTRIES)
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


async def _year(bench: Bench, entries: int) -> Year:
    """Plan a backfill, run it at the documented limits, its events unpaced, and run it again."""
    history = await bench.history(entries, "year")
    async with ready(bench, history.dsn, latency_ms=LATENCY_MS) as (environ, activecampaign):
        before = await activecampaign.state()
        plan = await _said(bench, ["plan", "--since", "day1", "--json"], environ)
        run = await bench.backfill(environ)
        job = await job_of(history, run, activecampaign, before=before)
        state = await activecampaign.state()
        await _said(bench, ["backfill"], environ)
        changing = (await activecampaign.state())["changing_requests"] - state["changing_requests"]
        return Year(job, msgspec.json.decode(plan)["hours"], phases(run.output), state, changing)


async def _said(bench: Bench, arguments: list[str], environ: dict[str, str]) -> bytes:
    """Run a command to its end; return what it wrote to stdout."""
    command = bench.command(*arguments)
    return (await anyio.run_process(command, cwd=bench.folder, env=environ, stderr=None)).stdout


def phases(output: str) -> dict[str, float]:
    """Return the seconds of each phase of a backfill, by its progress lines; a short one may be missed."""
    began: dict[str, datetime] = {}
    for line in output.splitlines():
        if line.startswith("{") and '"event": "progress"' in line:
            progress = msgspec.json.decode(line)
            began.setdefault(progress["phase"], datetime.fromisoformat(progress["timestamp"]))
    moments = list(began.items())
    return {
        phase: (ended_at - began_at).total_seconds() for (phase, began_at), (_, ended_at) in pairwise(moments)
    }
