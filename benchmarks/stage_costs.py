"""Each stage alone: processor time ÷ calibration of classifier, batcher, sender and checkpoint.

Each is driven in memory on prepared input (`stages`), in a process of its own with a fixed seed of hashes
and without a search for cycles. After each step of a few milliseconds comes a piece of the calibration, so
that a machine that slows down for a moment slows both. Seven runs of each stage, by turns, since such a
moment may be longer than a run.

Beside two processes that keep both cores busy, each was seen to fail, alone, with `--slow STAGE=0.25`:
classifier 3.51 (gate 3.29), batcher 1.31 (1.14), sender 0.41 (0.36), checkpoint 1.17 (1.06). Not slowed they
were at most 2.89, 1.07, 0.34 and 0.95 there, and 2.92, 1.06, 0.33 and 0.93 in five runs on an idle machine.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from statistics import mean

import anyio
import msgspec

from benchmarks import ratios
from benchmarks.bench import Bench
from benchmarks.calibration import Calibration, Piece
from benchmarks.figures import Figure
from benchmarks.slowing import shares, spin
from benchmarks.stages import ENTRIES, STAGES

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
            await calibration.piece()
    gc.collect()
    gc.freeze()
    gc.disable()
    found: dict[str, list[Cost]] = {name: [] for name in STAGES}
    for _ in range(RUNS):
        for name in STAGES:
            found[name].append(await _cost(name, calibration, slow.get(name, 0.0)))
    return found


async def _cost(name: str, calibration: Calibration, slowed_by: float) -> Cost:
    pieces, cpu_s = [await calibration.piece()], 0.0
    async for step in STAGES[name]():
        began_s = time.process_time()
        await step()
        spin(slowed_by * (time.process_time() - began_s))
        cpu_s += time.process_time() - began_s
        pieces.append(await calibration.piece())
    gc.collect()
    return Cost(cpu_s, mean(_comparable_s(name, piece) for piece in pieces))


def _comparable_s(name: str, piece: Piece) -> float:
    """Return the processor seconds of that of a piece which is like the work of a stage."""
    return piece.decoding_s if name == "classifier" else piece.cpu_s  # the classifier has no tasks


if __name__ == "__main__":
    found = anyio.run(_costs, backend_options={"use_uvloop": True})
    print(msgspec.json.encode(found).decode())
