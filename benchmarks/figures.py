"""Figures: what a benchmark measured, with the gate it must pass, as a Markdown table and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

OUT = Path(__file__).parent / "out" / "bench.json"
COMMITTED = Path(__file__).parent / "figures.json"
SHARE_OF_COMMITTED = 0.8  # what a ratio must reach of the committed one: the rest is left to noise
COST_OF_COMMITTED = 1.25  # what a cost may reach of the committed one


class Figure(msgspec.Struct, frozen=True):
    """One figure, measured once or more often.

    A lower gate is for the median, since a busy machine only ever makes things slower; an upper gate is for
    every repetition, since it bounds what must never happen.
    """

    name: str
    values: Sequence[float]
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the gate is passed; a figure without one is only reported."""
        enough = self.least is None or median(self.values) >= self.least
        return enough and (self.most is None or max(self.values) <= self.most)

    @property
    def gate(self) -> str:
        """The gate in words."""
        bounds = (("≥", self.least), ("≤", self.most))
        return " and ".join(f"{sign} {shown(bound)}" for sign, bound in bounds if bound is not None)

    def row(self) -> str:
        """Return the figure as a row of `table`."""
        low, middle, high = map(shown, (min(self.values), median(self.values), max(self.values)))
        spread = f"{low} | {middle} | {high}" if len(self.values) > 1 else f"| {middle} |"
        verdict = "" if not self.gate else "yes" if self.holds else "**no**"
        return f"| {self.name} | {spread} | {self.gate} | {verdict} |"


def shown(value: float) -> str:
    """Write a figure with as many digits as say something."""
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4f}" if abs(value) < 0.1 else f"{value:.2f}"


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as one Markdown table."""
    head = ["| figure | min | median | max | gate | passed |", "|---|---:|---:|---:|---|---|"]
    return "\n".join(head + [figure.row() for figure in figures])


def committed(ratio: str) -> float:
    """Return the least that a ratio may be, given the one in figures.json."""
    return SHARE_OF_COMMITTED * _known()[ratio]


def committed_cost(cost: str) -> float:
    """Return the most that a cost may be, given the one in figures.json."""
    return COST_OF_COMMITTED * _known()[cost]


def _known() -> dict[str, float]:
    return msgspec.json.decode(COMMITTED.read_bytes(), type=dict[str, float])


def save(figures: Iterable[Figure]) -> None:
    """Write bench.json: when, on what kind of machine, and the figures."""
    rows = [{**msgspec.structs.asdict(figure), "holds": figure.holds} for figure in figures]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_bytes(msgspec.json.format(msgspec.json.encode({**machine(), "figures": rows})))


def machine() -> dict[str, Any]:
    """Return what the figures depend on beside the code."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_at_end": round(os.getloadavg()[0], 2),
    }
