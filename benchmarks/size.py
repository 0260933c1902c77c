"""R4 and R5: what an entry costs does not grow with the log, nor does the memory.

Processor time per entry and the most memory held, of a process that carries a large history to an instant
sink, ÷ those of a small one, the mean of the run before it and the one after it. Caches and streams are
bounded, but a log of 2,500,000 entries has 25 times the contacts of one of 100,000, whose few leave the
caches all but empty: docs/performance.md says what that takes.

R4 was seen to fail (1.36) when telling duplicates took longer by each entry before, R5 (2.3, 222 MB) with
pipeline.window = source.range_rows = 1000000, pipeline.queue_chunks = 1000, source.range_bytes = 1000000000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

from benchmarks.bench import Bench, History, against, interleaved
from benchmarks.carried import Carried
from benchmarks.figures import Figure, Line, Plot, by_arm

SIZES = 50_000, 200_000
FULL_SIZES = 100_000, 500_000, 2_500_000
LEAST_REPETITIONS = 4  # of three, one alone may be the median
MOST_GROWTH = 1.15
MOST_MB = 150


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    sizes = (FULL_SIZES if bench.is_full else SIZES) if entries is None else (entries // 4, entries)
    histories = [await bench.history(size) for size in sizes]
    arms = {f"{each.entries:,} entries": partial(bench.carried, each) for each in histories}
    found = await interleaved(arms, max(bench.repetitions, LEAST_REPETITIONS))
    small, *_, large = found.values()
    small.append(await bench.carried(histories[0]))
    bench.plots += [
        _plot("cpu_per_entry", "µs of processor time per entry", histories, found, _cpu_us),
        _plot("memory", "MB of memory at the most", histories, found, _peak_mb),
    ]
    growth = partial(against, large, small)
    return [
        Figure("R4: CPU per entry, large / small", growth(_cpu_us), most=MOST_GROWTH, is_typical=True),
        *by_arm("R4: CPU µs per entry", found, _cpu_us),
        Figure("R5: peak memory, large / small", growth(_peak_mb), most=MOST_GROWTH, is_typical=True),
        *by_arm("R5: peak MB", found, _peak_mb, most=MOST_MB),
    ]


def _cpu_us(run: Carried) -> float:
    return run.spent.cpu_us


def _peak_mb(run: Carried) -> float:
    return run.peak_mb


def _plot(
    name: str,
    what: str,
    histories: Sequence[History],
    found: Mapping[str, Sequence[Carried]],
    value: Callable[[Carried], float],
) -> Plot:
    medians = [median(map(value, runs)) for runs in found.values()]
    points = [(float(each.entries), y) for each, y in zip(histories, medians, strict=True)]
    title = f"{what} against the size of the log"
    return Plot(name, title, "entries", what, [Line("instant sink", points)], is_log=True)
