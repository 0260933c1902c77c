"""The cost model: what an entry costs by its class, and how long a log takes at the account's limits.

Processor time of the backfill's process, on logs of one class each; PostgreSQL's own is figure R8. The
hours are for a shop with as many contacts, orders and events per entry as the unpaced job has: those of
`plan`, but that unpaced events go as fast as they did here, over HTTP to a receiver that answers at once.
"""

from __future__ import annotations

from functools import partial
from statistics import median

import msgspec

from benchmarks import unpaced
from benchmarks.bench import NOWHERE, Bench
from benchmarks.comparison import interleaved
from benchmarks.figures import Figure, by_arm
from benchmarks.jobs import HOUR_S, Job
from benchmarks.receiver import receiver
from kiva_stream.commands.estimates import Work, seconds

ENTRIES = 100_000
CLASSES = {"event": "delivered", "sync-only entry": "synced", "skipped entry": "skipped"}
SIZES = 1_000_000, 2_500_000, 25_000_000
PACE = 60


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    size = entries or ENTRIES
    histories = {name: await bench.history(size, only=outcome) for name, outcome in CLASSES.items()}
    async with receiver() as account:
        arms = {name: partial(bench.carried, each) for name, each in histories.items()}
        arms["event over HTTP"] = partial(bench.carried, histories["event"], account)
        found = await interleaved(arms, bench.repetitions)
    job = await unpaced.measured(bench)
    per_second = round(median(run.spent.per_second for run in found["event over HTTP"]))
    paces = {f"{PACE} events/s": PACE, "events unpaced": per_second}
    return [
        *by_arm("cost: CPU µs", found, lambda run: run.spent.cpu_us),
        Figure("cost: events a second, unpaced", [per_second]),
        *(
            Figure(
                f"cost: hours for {size:,} entries, {name}",
                [_hours(bench, job, entries=size, events_per_second=pace)],
            )
            for name, pace in paces.items()
            for size in SIZES
        ),
    ]


def _hours(bench: Bench, job: Job, *, entries: int, events_per_second: int) -> float:
    per_entry = entries / job.entries
    work = Work(
        contacts=round(job.comparison.contacts * per_entry),
        orders=round(job.comparison.orders_arrived * per_entry),
        events=round(job.comparison.arrived * per_entry),
    )
    limits = bench.settings("postgresql:///unused", NOWHERE).activecampaign
    paced = msgspec.structs.replace(limits, events_per_second=events_per_second)
    return sum(seconds(work, paced).values()) / HOUR_S
