"""Calibrate: `python -m benchmarks calibrate [--commit]` measures the ratios that the gates compare with.

Each is measured as its gate measures it, several times; the median of these is it. `--commit` writes them
into ratios.json, as those of the Python that runs this. Wanted is a machine that does nothing else.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from statistics import median

from benchmarks import one_core, ratios, shop_load, stage_costs, whole_run
from benchmarks.bench import Bench
from benchmarks.figures import Figure

TIMES = 3
MEASURED = (stage_costs.figures, whole_run.figures, one_core.figures, shop_load.figures)


async def calibrate(*, is_committed: bool) -> None:
    """Measure all ratios, show them, and write them if asked to."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(TIMES):
        async with Bench.open() as bench:
            for measure in MEASURED:
                _gather(found, await measure(bench))
        print(f"{number + 1} of {TIMES}", file=sys.stderr)
    before = ratios.committed()
    for name, values in found.items():
        was = f", committed {before[name]:.4g}" if name in before else ""
        print(f"{name}: {median(values):.4g} ({min(values):.4g} to {max(values):.4g}{was})")
    if is_committed:
        ratios.commit({name: median(values) for name, values in found.items()})
        print(f"Written to {ratios.COMMITTED} for Python {ratios.PYTHON}.")


def _gather(found: defaultdict[str, list[float]], figures: Iterable[Figure]) -> None:
    for figure in figures:
        if figure.ratio_of:
            found[figure.ratio_of].append(min(figure.values))
