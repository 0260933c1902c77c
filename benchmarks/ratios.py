"""Committed ratios: processor time ÷ calibration, by the minor version of Python, and their gates.

A ratio falls when the code gets faster and rises when it gets slower, on whatever machine. It is another
one with another Python, which makes one kind of work faster and another not: so each has its own, and a
version without one is only reported. `python -m benchmarks calibrate --commit` measures and writes those
of the Python that runs it, on a machine that does nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.figures import Figure

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
COMMITTED = Path(__file__).with_name("ratios.json")
MOST_OF_COMMITTED = 1.15
DIGITS = 4


def committed(path: Path = COMMITTED, python: str = PYTHON) -> dict[str, float]:
    """Return the committed ratios of a version of Python, by name; none for one without."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, float]]).get(python, {})


def figure(
    name: str,
    title: str,
    values: Sequence[float],
    *,
    most_of_committed: float = MOST_OF_COMMITTED,
    known: Mapping[str, float] | None = None,
) -> Figure:
    """Return the ratios of some runs as a figure, with its gate on the least of them where one is committed.

    Whatever else a machine does makes a run slower; what the code does makes every run slower. `known` are
    the committed ratios, those of this Python unless given.
    """
    ratio = (committed() if known is None else known).get(name)
    most = None if ratio is None else ratio * most_of_committed
    return Figure(title, values, most=most, gated="lowest", ratio_of=name)


def without_gate(figures: Iterable[Figure]) -> str:
    """Return a sentence on the ratios that have no committed one, and what to do about it; "" without any."""
    names = [figure.ratio_of for figure in figures if figure.ratio_of and figure.most is None]
    if not names:
        return ""
    return (
        f"No ratio of Python {PYTHON} is committed for {', '.join(names)}: reported, without a gate."
        " `python -m benchmarks calibrate --commit`, on a machine that does nothing else, measures them and"
        f" writes them into benchmarks/{COMMITTED.name}."
    )


def commit(ratios: Mapping[str, float], path: Path = COMMITTED, python: str = PYTHON) -> None:
    """Write ratios in the place of those of the same names and version."""
    known = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, float]])
    rounded = {name: float(f"{ratio:.{DIGITS}g}") for name, ratio in ratios.items()}
    known[python] = known.get(python, {}) | rounded
    in_order = dict(sorted(known.items(), key=lambda each: tuple(map(int, each[0].split(".")))))
    path.write_bytes(msgspec.json.format(msgspec.json.encode(in_order)) + b"\n")
