"""Progress on stderr: bars on a terminal, log lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from kiva_stream.observability.progress import OnProgress, Progress, ProgressLog

TAGS = "tags"  # the phase whose amount of work is not known before it ends
PHASES = ("contacts", "orders", "events", TAGS)


@contextmanager
def backfill_progress() -> Iterator[OnProgress]:
    """Give a hook that shows the phases of a backfill: as bars on a terminal, as log lines elsewhere."""
    if not sys.stderr.isatty():
        yield ProgressLog()
        return
    columns = (TextColumn("{task.description:8}"), BarColumn(), TextColumn("{task.fields[far]}"))
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {phase: bars.add_task(phase, total=None, far="", visible=False) for phase in PHASES}

        def show(progress: Progress) -> None:
            for phase in _phases_before(progress.phase):  # their totals were estimates
                bars.update(tasks[phase], total=1, completed=1)
            is_counted = progress.phase != TAGS
            if progress.phase in tasks:
                bars.update(
                    tasks[progress.phase],
                    completed=progress.done if is_counted else 0,
                    total=progress.total if is_counted else None,
                    far=_words(progress) if is_counted else "those that differ",
                    visible=True,
                )

        yield show


def _phases_before(phase: str) -> tuple[str, ...]:
    return PHASES[: PHASES.index(phase)] if phase in PHASES else PHASES


def _words(progress: Progress) -> str:
    """Return in words how far a phase is: done, in all, rate, time left."""
    total = f" of {progress.total:,}" if progress.total is not None else ""
    left = f", {timedelta(seconds=round(progress.left_s))} left" if progress.left_s else ""
    return f"{progress.done:,}{total}, {progress.per_second:,.0f}/s{left}"


@contextmanager
def count_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that shows a count: as a bar on a terminal, not at all elsewhere."""
    with Bars(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task(what, total=total)
        yield lambda count: bars.update(task, completed=count)
