"""R1: what the pipeline adds to reading. Its speed with a sink that takes no time ÷ that of read-and-drop.

Both read the same rows of a real PostgreSQL the same way, and make entries of them; the pipeline
classifies, batches, has every event named by a commit, hands it to a sender, and commits its outcome to a
real state schema. So the sender is in it, which the figure need not have. The clock also has the waits
for commits in it.

Reported, without a gate: where reading gets faster, the ratio falls. What guards the pipeline is
`whole_run` and `stage_costs`.
"""

from __future__ import annotations

from functools import partial

from benchmarks.bench import NOWHERE, Bench
from benchmarks.carriage import Spent, carry, instantly, read_and_drop
from benchmarks.comparison import against, interleaved
from benchmarks.figures import Figure, by_arm

ENTRIES = 50_000


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    history = await bench.history(entries or ENTRIES)

    async def read() -> Spent:
        return await read_and_drop(bench.settings(history.dsn, NOWHERE))

    async def carried() -> Spent:
        return await carry(bench.settings(history.dsn, NOWHERE), instantly)

    found = await interleaved({"read": read, "carried": carried}, bench.repetitions)
    found["read"].append(await read())
    share = partial(against, found["carried"], found["read"])
    return [
        Figure("R1: instant sink / read-and-drop, CPU", share(lambda spent: 1 / spent.cpu_us)),
        Figure("R1: the same by the clock", share(lambda spent: spent.per_second)),
        *by_arm("R1: CPU µs per entry", found, lambda spent: spent.cpu_us),
    ]
