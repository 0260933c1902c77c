"""Slows stages down on purpose, to see the gates fail: `python -m benchmarks NAME… --slow STAGE=SHARE`.

A stage that is slowed by 0.25 takes a quarter more processor time: the process spins for a quarter of what
the stage took. The processes that the benchmarks start learn of it from the environment.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

VARIABLE = "BENCHMARKS_SLOW"
MODULES = {  # of each stage, below kiva_stream/
    "classifier": ("events/classifier", "events/matching", "events/payload", "pipeline/classification"),
    "batcher": (
        "pipeline/batcher",
        "pipeline/lanes",
        "pipeline/duplicates",
        "pipeline/revivals",
        "pipeline/contact_checks",
    ),
    "sender": ("pipeline/sender", "pipeline/delivery_lookup"),
    "checkpoint": (
        *("pipeline/checkpoint", "pipeline/send_intents", "pipeline/watermark", "pipeline/group_commit"),
        *("pipeline/earlier_runs", "pipeline/reopened_spans"),
    ),
}
FILES = {f"/kiva_stream/{module}.py": stage for stage, modules in MODULES.items() for module in modules}
TICK_S = 0.002


def shares() -> dict[str, float]:
    """Return by how much each stage is to be slowed; those that are not named are not."""
    named = (each.partition("=") for each in os.environ.get(VARIABLE, "").split(",") if each)
    return {stage: float(share) for stage, _, share in named}


def spin(seconds: float) -> None:
    """Use so much processor time."""
    until_s = time.process_time() + seconds
    while time.process_time() < until_s:
        pass


@contextmanager
def slowed(by: Mapping[str, float]) -> Iterator[None]:
    """Slow stages wherever they run in this block: at each tick, the stage that has the processor.

    That is the one whose file is the innermost in the stack, with all that it calls. Ticks are of the wall
    clock: a timer of processor time makes the kernel count that less finely.
    """
    looked_s = time.process_time()

    def look(_signal: int, frame: FrameType | None) -> None:
        nonlocal looked_s
        if not _is_waiting(frame):  # else the next tick stands for what was done before the wait too
            spin(by.get(_stage(frame), 0.0) * (time.process_time() - looked_s))
            looked_s = time.process_time()
        signal.setitimer(signal.ITIMER_REAL, TICK_S)  # anew, or it would come in the middle of a spin

    if not by:
        yield
        return
    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_waiting(frame: FrameType | None) -> bool:
    """Return whether nothing but the loop runs."""
    return frame is not None and "/asyncio/" in frame.f_code.co_filename and frame.f_code.co_name == "run"


def _stage(frame: FrameType | None) -> str:
    while frame is not None:
        for part, stage in FILES.items():
            if part in frame.f_code.co_filename:
                return stage
        frame = frame.f_back
    return ""
