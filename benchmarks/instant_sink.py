"""R1: what the pipeline adds to reading. Its speed with a sink that takes no time ÷ that of read-and-drop.

Both read the same rows of a real PostgreSQL the same way, and make entries of them; the pipeline classifies,
batches, has every event named by a commit, hands it to a sender, and commits its outcome to a real state
schema. So the sender is in it, which the figure need not have. The nearer gate is on processor time, which
is steadier; the clock also has the waits for commits in it.

Seen to fail: by processor time (0.18, the gate is 0.22) with a classifier that classifies every entry five
times; by the clock (0.087) with state.commit_interval_ms = 1000 and activecampaign.max_in_flight = 20.
"""

from __future__ import annotations

from benchmarks.bench import NOWHERE, Bench, interleaved
from benchmarks.carriage import carry, instantly, read_and_drop
from benchmarks.figures import NOISE, Figure, by_arm, committed

ENTRIES = 50_000
LEAST_BY_CLOCK = 0.18


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    history = await bench.history(entries or ENTRIES)
    found = await interleaved(
        {
            "read": lambda: read_and_drop(bench.settings(history.dsn, NOWHERE)),
            "carried": lambda: carry(bench.settings(history.dsn, NOWHERE), instantly),
        },
        bench.repetitions,
    )
    pairs = list(zip(found["carried"], found["read"], strict=True))
    by_cpu = [part.cpu_us / whole.cpu_us for whole, part in pairs]
    by_clock = [whole.per_second / part.per_second for whole, part in pairs]
    return [
        Figure("R1: instant sink / read-and-drop, CPU", by_cpu, least=(1 - NOISE) * committed("R1")),
        Figure("R1: the same by the clock", by_clock, least=LEAST_BY_CLOCK),
        *by_arm("R1: CPU µs per entry", found, lambda spent: spent.cpu_us),
    ]
