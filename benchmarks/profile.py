"""Where the processor time goes: µs an entry by stage, while a history is carried.

py-spy looks at the process 500 times a second of its processor time. A sample is of the stage whose frame
is the innermost; what is of none is the loop's and the driver's, most of it in C. Shares of the samples
from the pipeline's first to its last, times the processor time of the same run. py-spy does not stop the
process: it takes no time of it, and may misread a sample.

With an instant sink, of a small history (R1) and of a large one, which shows what grows (R4); and of
events only, over HTTP to a receiver that answers at once (R2). Run on request.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.bench import Bench
from benchmarks.carried import Carried
from benchmarks.figures import Figure
from benchmarks.histories import History
from benchmarks.receiver import receiver
from kiva_stream.sandbox.process import LocalActiveCampaign

PY_SPY = (
    *(str(Path(sys.executable).with_name("py-spy")), "record", "--nonblocking", "--rate", "500"),
    *("--format", "speedscope", "--full-filenames"),
)
SIZES = 100_000, 2_500_000
STAGES = {  # by what is in the path of a file, the first that matches
    "/kiva_stream/source/": "producer",
    "/kiva_stream/pipeline/producer": "producer",
    "/kiva_stream/pipeline/classification": "classifier",
    "/kiva_stream/events/": "classifier",
    "/kiva_stream/pipeline/batcher": "batcher",
    "/kiva_stream/pipeline/duplicates": "batcher",
    "/kiva_stream/pipeline/lanes": "batcher",
    "/kiva_stream/pipeline/sender": "sender",
    "/kiva_stream/pipeline/send_intents": "sender",
    "/kiva_stream/pipeline/checkpoint": "checkpoint",
    "/kiva_stream/pipeline/watermark": "checkpoint",
    "/kiva_stream/pipeline/group_commit": "checkpoint",
    "/kiva_stream/activecampaign/": "body, pace, breaker, request",
    "/aiohttp/": "aiohttp",
    "/kiva_stream/pipeline/": "wiring",
}
REST = "loop and driver"


class _Frame(msgspec.Struct):
    name: str
    file: str | None = None


class _Frames(msgspec.Struct):
    frames: list[_Frame]


class _Thread(msgspec.Struct):
    samples: list[list[int]]  # stacks of frames, the outermost first


class _Seen(msgspec.Struct):
    """What py-spy writes for speedscope, as far as it matters here."""

    shared: _Frames
    profiles: list[_Thread]


async def figures(bench: Bench, entries: int | None = None) -> list[Figure]:
    """Run it."""
    sizes = SIZES if entries is None else (entries // 4, entries)
    histories = [await bench.history(size) for size in sizes]
    events = await bench.history(sizes[0], only="delivered")
    found = [
        figure
        for history in histories
        for figure in _figures(f"instant sink, {history.entries:,} entries", await _profiled(bench, history))
    ]
    async with receiver() as account:
        return found + _figures("events over HTTP", await _profiled(bench, events, account))


async def _profiled(
    bench: Bench, history: History, account: LocalActiveCampaign | None = None
) -> tuple[Carried, Path]:
    """Carry a history under py-spy; return also the file of what that saw, for speedscope."""
    path = bench.folder / f"profile_{history.entries}_{'http' if account else 'instant'}.json"
    return await bench.carried(history, account, within=(*PY_SPY, "--output", str(path), "--")), path


def _figures(what: str, run: tuple[Carried, Path]) -> list[Figure]:
    carried, path = run
    samples = stages(path)
    us = carried.spent.cpu_us / samples.total()
    named = {name: samples[name] * us for name in (*STAGES.values(), REST) if samples[name]}
    return [
        *(Figure(f"profile: µs, {what}: {name}", [value]) for name, value in named.items()),
        Figure(f"profile: µs, {what}: all", [carried.spent.cpu_us]),
    ]


def stages(path: Path) -> Counter[str]:
    """Return how many samples there are of each stage."""
    seen = msgspec.json.decode(path.read_bytes(), type=_Seen)
    frames = seen.shared.frames
    found: Counter[str] = Counter()
    for thread in seen.profiles:
        stacks = [[frames[index] for index in reversed(sample)] for sample in thread.samples]
        found.update(map(_stage, _carrying(stacks)))
    return found


def _carrying(stacks: Sequence[Sequence[_Frame]]) -> Sequence[Sequence[_Frame]]:
    """Return those from the pipeline's first to its last: before are imports and the snapshot."""
    inside = [number for number, stack in enumerate(stacks) if any(map(_is_of_the_pipeline, stack))]
    return stacks[inside[0] : inside[-1] + 1] if inside else []


def _is_of_the_pipeline(frame: _Frame) -> bool:
    return frame.name != "<module>" and (frame.file or "").endswith("/kiva_stream/pipeline/pipeline.py")


def _stage(stack: Sequence[_Frame]) -> str:
    """Return whose a stack is, the innermost frame first."""
    named = (STAGES[part] for frame in stack for part in STAGES if part in (frame.file or ""))
    return next(named, REST)
