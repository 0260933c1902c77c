"""Comparisons within one run: arms that are measured by turns, since the speed of a machine drifts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import pairwise
from statistics import mean
from typing import TypeVar

T = TypeVar("T")


async def interleaved(arms: Mapping[str, Callable[[], Awaitable[T]]], repetitions: int) -> dict[str, list[T]]:
    """Run each arm in turn, so often; return what each found. What the machine does meanwhile meets all."""
    found: dict[str, list[T]] = {name: [] for name in arms}
    for _ in range(repetitions):
        for name, arm in arms.items():
            found[name].append(await arm())
    return found


def against(runs: Sequence[T], others: Sequence[T], value: Callable[[T], float]) -> list[float]:
    """Return the value of each run ÷ the mean of those of the other arm before and after it.

    The other arm has run once more, at the end.
    """
    return [value(run) / mean(map(value, around)) for run, around in zip(runs, pairwise(others), strict=True)]
