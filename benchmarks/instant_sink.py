"""R1: what the pipeline adds to reading. Its speed with a sink that takes no time ÷ that of read-and-drop.

Both read the same rows of a real PostgreSQL the same way, and make entries of them; the pipeline classifies,
batches, has every event named by a commit, hands it to a sender, and commits its outcome to a real state
schema. So the sender is in it, which the figure need not have. The nearer gate is on processor time, which
is steadier; the clock also has the waits for commits in it.

Seen to fail: by processor time (0.18, the gate is 0.22) with a classifier that classifies every entry five
times; by the clock (0.087) with state.commit_interval_ms = 1000 and activecampaign.max_in_flight = 20.
"""

from __future__ import annotations

from functools import partial

from benchmarks.bench import NOWHERE, Bench, against, interleaved
from benchmarks.carriage import Spent, carry, instantly, read_and_drop
from benchmarks.figures import NOISE, Figure, by_arm, committed

ENTRIES = 50_000
REPETITIONS = 5  # of 3 s each: single ones were 0.17 to 0.33 within an hour
LEAST_BY_CLOCK = 0.18


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    history = await bench.history(entries or ENTRIES)

    async def read() -> Spent:
        return await read_and_drop(bench.settings(history.dsn, NOWHERE))

    async def carried() -> Spent:
        return await carry(bench.settings(history.dsn, NOWHERE), instantly)

    found = await interleaved({"read": read, "carried": carried}, REPETITIONS)
    found["read"].append(await read())
    share = partial(against, found["carried"], found["read"])
    least = (1 - NOISE) * committed("R1")
    return [
        Figure("R1: instant sink / read-and-drop, CPU", share(lambda spent: 1 / spent.cpu_us), least=least),
        Figure("R1: the same by the clock", share(lambda spent: spent.per_second), least=LEAST_BY_CLOCK),
        *by_arm("R1: CPU µs per entry", found, lambda spent: spent.cpu_us),
    ]
