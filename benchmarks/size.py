"""R4 and R5: what an entry costs does not grow with the log, nor does the memory.

Processor time per entry ÷ calibration of a process that carries a large history to an instant sink, ÷ the
least of those of a small one; and the most memory held. In CI the small ones are those of `whole_run`.
Caches and streams are bounded, but a log of 2,500,000 entries has 25 times the contacts of one of
100,000, whose few leave the caches all but empty: docs/performance.md says what that takes.

R4 was seen to fail (1.36) when telling duplicates took longer by each entry before, R5 (222 MB) with
pipeline.window = source.range_rows = 1000000, pipeline.queue_chunks = 1000, source.range_bytes =
1000000000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

from benchmarks import whole_run
from benchmarks.bench import Bench
from benchmarks.carried import Carried
from benchmarks.comparison import interleaved
from benchmarks.figures import Figure, Line, Plot, by_arm

SIZES = whole_run.ENTRIES, 200_000
FULL_SIZES = 100_000, 500_000, 2_500_000
MOST_GROWTH = 1.15
MOST_MB = 150

Found = Mapping[int, Sequence[Carried]]  # by entries


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    sizes = (FULL_SIZES if bench.is_full else SIZES) if entries is None else (entries // 4, entries)
    found = await _measured(bench, sizes)
    bench.plots += [
        _plot("cpu_per_entry", "µs of processor time per entry", found, value=_cpu_us),
        _plot("memory", "MB of memory at the most", found, value=_peak_mb),
    ]
    by_size = {f"{size:,} entries": runs for size, runs in found.items()}
    small, *_, large = found.values()
    least = min(run.spent.ratio for run in small)
    most = None if bench.is_full else MOST_GROWTH  # of 25 times the contacts it is reported, with what grows
    growth = [run.spent.ratio / least for run in large]
    memory = [run.peak_mb / median(map(_peak_mb, small)) for run in large]
    return [
        Figure("R4: CPU per entry, large / small", growth, most=most, gated="lowest"),
        *by_arm("R4: CPU / calibration", by_size, lambda run: run.spent.ratio),
        *by_arm("R4: CPU µs per entry", by_size, _cpu_us),
        Figure("R5: peak memory, large / small", memory),
        *by_arm("R5: peak MB", by_size, _peak_mb, most=MOST_MB),
    ]


async def _measured(bench: Bench, sizes: Sequence[int]) -> Found:
    if not bench.is_full:  # the small runs are there already; each has its own calibration
        small, large = sizes
        history = await bench.history(large)
        runs = [await bench.carried(history) for _ in range(bench.repetitions)]
        return {small: await whole_run.carried(bench, small), large: runs}
    histories = {size: await bench.history(size) for size in sizes}
    arms = {str(size): partial(bench.carried, history) for size, history in histories.items()}
    return {int(size): runs for size, runs in (await interleaved(arms, bench.repetitions)).items()}


def _cpu_us(run: Carried) -> float:
    return run.spent.cpu_us


def _peak_mb(run: Carried) -> float:
    return run.peak_mb


def _plot(name: str, what: str, found: Found, *, value: Callable[[Carried], float]) -> Plot:
    points = [(float(size), median(map(value, runs))) for size, runs in found.items()]
    title = f"{what} against the size of the log"
    return Plot(name, title, "entries", what, [Line("instant sink", points)], is_log=True)
