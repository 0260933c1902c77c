"""R1: what the pipeline adds to reading. Its speed with a sink that takes no time ÷ that of read-and-drop.

Both read the same rows of a real PostgreSQL the same way, and make entries of them; the pipeline classifies,
batches, hands every event to a sender, and commits its outcomes to a real state schema.

The gate is on processor time. By the clock, 200 events in flight and a commit every 20 ms bound the pipeline
to 10,000 events a second whatever the processor does: medians of four runs on a busy machine lay between
0.12 and 0.26 by the clock, between 0.24 and 0.26 by processor time. The 0.40 that was hoped for would need
15 µs an entry; it takes 23 to 26, reading 6 of them (PostgreSQL's own not counted).

Seen to fail (0.16) with a classifier that classifies every entry five times.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.carriage import carry, read_and_drop
from benchmarks.figures import Figure, committed
from kiva_stream.model import Email
from kiva_stream.sandbox.process import Keys, LocalActiveCampaign

ENTRIES = 50_000
REPETITIONS = 3
NOWHERE = LocalActiveCampaign(
    "http://127.0.0.1:9", "http://127.0.0.1:9", [Keys("nowhere", "token", "1", "key")]
)


class InstantEvents:
    """Implements `ports.Events`: takes every event at once."""

    async def send(self, email: Email, name: str, eventdata: str) -> None:
        """Take one."""


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    history = await bench.history(entries or ENTRIES)
    read, carried = [], []
    for _ in range(REPETITIONS):
        read.append(await read_and_drop(bench, history, NOWHERE))
        carried.append(await carry(bench, history, NOWHERE, InstantEvents()))
    pairs = list(zip(carried, read, strict=True))
    by_cpu = [part.cpu_us / whole.cpu_us for whole, part in pairs]
    by_clock = [whole.per_second / part.per_second for whole, part in pairs]
    return [
        Figure("R1: instant sink / read-and-drop, CPU", by_cpu, least=committed("R1")),
        Figure("R1: the same by the clock", by_clock),
        Figure("R1: CPU µs per entry, instant sink", [each.cpu_us for each in carried]),
        Figure("R1: CPU µs per entry, read-and-drop", [each.cpu_us for each in read]),
    ]
