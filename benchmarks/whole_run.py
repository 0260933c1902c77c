"""The whole run: processor time of the pipeline from end to end ÷ calibration.

A real PostgreSQL is read and written, events go to an instant sink. Each of seven runs is a process of its
own, on one core, whose processor time is counted alone. All the while it does a piece of the calibration
every 15 ms.

Beside two processes that keep both cores busy, it was seen to fail (18.4, the gate is 16.3) with all four
stages slowed: `--slow classifier=0.25 --slow batcher=0.25 --slow sender=0.25 --slow checkpoint=0.25`. Not
slowed it was 15.3 there.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import ratios
from benchmarks.bench import Bench
from benchmarks.carried import Carried
from benchmarks.figures import Figure

ENTRIES = 50_000
RUNS = 7
WHOLE = "whole"


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    runs = await carried(bench, entries or ENTRIES)
    return [
        ratios.figure(WHOLE, f"whole run / calibration, of {RUNS} runs", [run.spent.ratio for run in runs]),
        Figure("whole run: CPU µs per entry", [run.spent.cpu_us for run in runs]),
    ]


async def carried(bench: Bench, entries: int) -> Sequence[Carried]:
    """Return the runs, which are made once: others have figures of them too."""
    return await bench.once(f"whole {entries}", lambda: _carried(bench, entries))


async def _carried(bench: Bench, entries: int) -> Sequence[Carried]:
    history = await bench.history(entries)
    return [await bench.carried(history) for _ in range(RUNS)]
