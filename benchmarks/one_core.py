"""The pipeline on one core: the standard mix of entries to a receiver that answers at once, over HTTP.

A full run also against the events that may be in flight. The memory is that with 1,000 of them, of which
some wait for the commit that names them: a contact has at most one, so it takes many customers, who come
by turns. PostgreSQL and the receiver run where the system puts them.

Gated is processor time ÷ calibration, which guards the way over HTTP too; it has more of the system's own
time in it than an instant sink, so its gate is wider. Entries an hour are the machine's, and reported.

Seen to fail: the events in flight (108) with the log of the standard mix, in which few contacts have
events at a time; the memory (190 MB, 192 with 1,000 in flight) with 200,000 entries and the settings
named in unpaced.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median

from benchmarks import ratios
from benchmarks.bench import Bench
from benchmarks.carried import Carried
from benchmarks.comparison import interleaved
from benchmarks.crowds import by_turns
from benchmarks.figures import Figure, Line, Plot, by_arm
from benchmarks.jobs import HOUR_S
from benchmarks.receiver import receiver

ENTRIES = 30_000
DEFAULT = 200
FULL_IN_FLIGHT = 10, 50, 100, DEFAULT
HTTP, MOST_OF_COMMITTED = "http", 1.25
MOST_MB = 150
MANY, LEAST_AT_ONCE, CUSTOMERS, TIMES = 1_000, 500, 5_000, 5


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    history = await bench.history(entries or ENTRIES)
    places = FULL_IN_FLIGHT if bench.is_full else (DEFAULT,)
    crowd = await by_turns(bench, CUSTOMERS, TIMES if entries is None else entries // CUSTOMERS)
    async with receiver() as account:
        crowded = await bench.carried(crowd, account, max_in_flight=MANY)
        arms = {
            f"{each} in flight": partial(bench.carried, history, account, max_in_flight=each)
            for each in places
        }
        found = await interleaved(arms, bench.repetitions)
    bench.plots.append(_plot(places, [median(map(_per_hour, runs)) / 1e6 for runs in found.values()]))
    usual = found[f"{DEFAULT} in flight"]
    of_processor = [HOUR_S * 1e6 / run.spent.cpu_us for run in usual]
    others = {name: runs for name, runs in found.items() if runs is not usual}
    return [
        ratios.figure(
            HTTP,
            "one core: CPU / calibration",
            [run.spent.ratio for run in usual],
            most_of_committed=MOST_OF_COMMITTED,
        ),
        Figure("one core: entries per hour of its processor time, standard mix", of_processor),
        Figure("one core: entries/hour, standard mix", list(map(_per_hour, usual))),
        *by_arm("one core: entries/hour", others, _per_hour),
        *by_arm("one core: CPU µs per entry", found, lambda run: run.spent.cpu_us),
        *by_arm("one core: peak MB", found, lambda run: run.peak_mb, most=MOST_MB),
        Figure(f"one core: most in flight, of {MANY:,}", [crowded.most_in_flight], least=LEAST_AT_ONCE),
        Figure(f"one core: peak MB, {MANY:,} in flight", [crowded.peak_mb], most=MOST_MB),
    ]


def _per_hour(run: Carried) -> float:
    return run.spent.per_second * HOUR_S


def _plot(places: Sequence[int], millions: Sequence[float]) -> Plot:
    line = Line("kiva_stream", list(zip(map(float, places), millions, strict=True)))
    title = "Throughput against events in flight, on one core"
    return Plot("in_flight", title, "events in flight", "million entries an hour", [line], is_log=True)
