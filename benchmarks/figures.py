"""Figures and plots: what a benchmark measured, with the gate it must pass, as Markdown, JSON and SVG."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeVar

import msgspec

T = TypeVar("T")

OUT = Path(__file__).parent / "out"


class Figure(msgspec.Struct, frozen=True):
    """One figure, measured once or more often.

    A lower gate is for the median, since a busy machine only ever makes things slower. An upper gate is for
    the highest, since it bounds what must never happen, unless `gated` says that it is for the lowest: that
    of a time by its calibration.
    """

    name: str
    values: Sequence[float]
    least: float | None = None
    most: float | None = None
    gated: Literal["highest", "lowest"] = "highest"  # by the upper gate
    ratio_of: str = ""  # the name of its committed ratio, where it has one

    @property
    def holds(self) -> bool:
        """Whether the gate is passed; a figure without one is only reported."""
        at_most = max(self.values) if self.gated == "highest" else min(self.values)
        enough = self.least is None or median(self.values) >= self.least
        return enough and (self.most is None or at_most <= self.most)

    @property
    def gate(self) -> str:
        """The gate in words."""
        bounds = (("≥", self.least), ("≤" if self.gated == "highest" else "min ≤", self.most))
        return " and ".join(f"{sign} {shown(bound)}" for sign, bound in bounds if bound is not None)

    def row(self) -> str:
        """Return the figure as a row of `table`."""
        low, middle, high = map(shown, (min(self.values), median(self.values), max(self.values)))
        spread = f"{low} | {middle} | {high}" if len(self.values) > 1 else f"| {middle} |"
        verdict = "" if not self.gate else "yes" if self.holds else "**no**"
        return f"| {self.name} | {spread} | {self.gate} | {verdict} |"


class Line(msgspec.Struct, frozen=True):
    """A line of a plot: points of (x, y)."""

    label: str
    points: Sequence[tuple[float, float]]


class Plot(msgspec.Struct, frozen=True):
    """A plot, to be drawn into a file of its name; `limit` is what the lines must not, or should, reach."""

    name: str
    title: str
    x: str
    y: str
    lines: Sequence[Line]
    limit: float | None = None
    is_log: bool = False  # the x axis


def by_arm(
    name: str,
    found: Mapping[str, Sequence[T]],
    value: Callable[[T], float],
    *,
    most: float | None = None,
) -> list[Figure]:
    """Return a figure for each arm of a comparison, made of what each of its runs found."""
    return [
        Figure(f"{name}, {arm}", [value(each) for each in runs], most=most) for arm, runs in found.items()
    ]


def shown(value: float) -> str:
    """Write a figure with as many digits as say something."""
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4f}" if abs(value) < 0.1 else f"{value:.2f}"


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as one Markdown table."""
    head = ["| figure | min | median | max | gate | passed |", "|---|---:|---:|---:|---|---|"]
    return "\n".join(head + [figure.row() for figure in figures])


def save(figures: Sequence[Figure], plots: Sequence[Plot]) -> None:
    """Write what was measured, when, and on what kind of machine: bench.json and bench.md."""
    rows = [{**msgspec.structs.asdict(figure), "holds": figure.holds} for figure in figures]
    found = {**machine(), "figures": rows, "plots": plots}
    OUT.mkdir(exist_ok=True)
    (OUT / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    about = ", ".join(f"{name}: {value}" for name, value in machine().items())
    (OUT / "bench.md").write_text(f"{about}\n\n{table(figures)}\n")


def machine() -> dict[str, Any]:
    """Return what the figures depend on beside the code."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "load_at_end": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")
