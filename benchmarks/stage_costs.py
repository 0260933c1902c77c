"""Each stage alone: processor time ÷ calibration of classifier, batcher, sender and checkpoint.

Each is driven in memory on prepared input (`stages`), in a process of its own with a fixed seed of hashes
and without a search for cycles. After each step of a few milliseconds comes a piece of the calibration, so
that a machine that slows down for a moment slows both. Seven runs of each stage, by turns, since such a
moment may be longer than a run.

Beside two processes that keep both cores busy, each was seen to fail, alone, with `--slow STAGE=0.25`:
classifier 1.13 (gate 1.08), batcher 0.88 (0.81), sender 0.27 (0.25), checkpoint 0.81 (0.75). Not slowed they
were 0.88, 0.70, 0.21 and 0.68 there.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Callable

import anyio
import msgspec

from benchmarks import ratios
from benchmarks.bench import Bench
from benchmarks.calibration import Calibration
from benchmarks.figures import Figure
from benchmarks.slowing import shares, spin
from benchmarks.stages import ENTRIES, STAGES, Step

RUNS = 7

_Costs = dict[str, list[float]]


class Cost(msgspec.Struct, frozen=True):
    """What one run of a stage took."""

    cpu_s: float
    piece_cpu_s: float  # of a piece of the calibration, on average

    @property
    def ratio(self) -> float:
        """How many pieces of the calibration take as long as a thousand entries."""
        return self.cpu_s / self.piece_cpu_s / ENTRIES * 1_000


async def figures(_bench: Bench, _entries: int | None = None) -> list[Figure]:
    """Run it; its entries are always the same."""
    costs = await measured()
    return [
        *(
            ratios.figure(
                name, f"stage: {name} / calibration, of {len(runs)} runs", [run.ratio for run in runs]
            )
            for name, runs in costs.items()
        ),
        *(
            Figure(f"stage: {name}, CPU µs per entry", [run.cpu_s / ENTRIES * 1e6 for run in runs])
            for name, runs in costs.items()
        ),
    ]


async def measured() -> dict[str, list[Cost]]:
    """Return what the runs of each stage took, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.stage_costs"]
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    said = await anyio.run_process(command, env=environ, stderr=None)
    return msgspec.json.decode(said.stdout, type=dict[str, list[Cost]])


async def _costs() -> dict[str, list[Cost]]:
    """Measure all stages in this process."""
    calibration, slow = Calibration(), shares()
    for steps in STAGES.values():  # what is prepared once, and what Python learns of the code
        async for step in steps():
            await step()
            await calibration.cpu_s()
    gc.collect()
    gc.freeze()
    gc.disable()
    found: dict[str, list[Cost]] = {name: [] for name in STAGES}
    for _ in range(RUNS):
        for name, steps in STAGES.items():
            found[name].append(await _cost(steps, calibration, slow.get(name, 0.0)))
    return found


async def _cost(steps: Callable[[], AsyncIterator[Step]], calibration: Calibration, slowed_by: float) -> Cost:
    pieces, cpu_s = [await calibration.cpu_s()], 0.0
    async for step in steps():
        began_s = time.process_time()
        await step()
        spin(slowed_by * (time.process_time() - began_s))
        cpu_s += time.process_time() - began_s
        pieces.append(await calibration.cpu_s())
    gc.collect()
    return Cost(cpu_s, sum(pieces) / len(pieces))


if __name__ == "__main__":
    found = anyio.run(_costs, backend_options={"use_uvloop": True})
    print(msgspec.json.encode(found).decode())
