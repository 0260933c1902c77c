"""Plots as SVG files, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl

from benchmarks.figures import Plot

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "kiva_stream"  # the same figures make the same file

from matplotlib import pyplot as plt  # noqa: E402  it asks for a backend first

MANY = 50  # points, which would hide the line


def draw(plots: Iterable[Plot], folder: Path) -> None:
    """Draw each plot into `<its name>.svg` of a folder."""
    folder.mkdir(exist_ok=True)
    for plot in plots:
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        for line in plot.lines:
            marker = "o" if len(line.points) < MANY else ""
            axes.plot(*zip(*line.points, strict=True), marker=marker, label=line.label)
        if plot.limit is not None:
            axes.axhline(plot.limit, color="0.4", linestyle="--", label="limit")
        axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y, xscale="log" if plot.is_log else "linear")
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        if plot.is_log:
            places = sorted({x for line in plot.lines for x, _ in line.points})
            axes.set_xticks(places, [f"{x:,.0f}" for x in places], minor=False)
            axes.minorticks_off()
        axes.grid(visible=True, alpha=0.3)
        axes.legend(loc="lower right")  # where no line is: the axis begins at 0
        figure.savefig(folder / f"{plot.name}.svg", metadata={"Date": None})
        plt.close(figure)
