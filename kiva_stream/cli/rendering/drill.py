"""How the report of a drill looks."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from kiva_stream.sandbox.drill import DrillReport, Row

HEADINGS = (
    *("entries", "times", "starts", "lost", "repeated", "out of order", "others kept"),
    *("dead letters", "recovered after (s)"),
)


def render_drill(report: DrillReport) -> RenderableType:
    """Return a Markdown row for each scenario and seed, then what the table does not show."""
    figures = (Column(heading, justify="right") for heading in HEADINGS)
    table = Table(Column("fault"), *figures, box=box.MARKDOWN)
    several = len({row.seed for row in report.rows}) > 1
    for row in report.rows:
        name = f"{row.fault} (seed {row.seed})" if several else row.fault
        table.add_row(name, *_cells(row), style="" if row.ok else "bold red")
    complaints = [f"{row.fault}, seed {row.seed}: {text}" for row in report.rows if (text := row.complaint())]
    verdict = "All is there, once and in order." if report.ok else "Not all is as it should be."
    return Group(table, *map(Text, complaints), Text(verdict, "green" if report.ok else "bold red"))


def _cells(row: Row) -> list[str]:
    allowed = f" (≤ {row.repeats_allowed:,})" if row.repeats_allowed else ""
    recovered = "" if row.recovered_after_s is None else f"{row.recovered_after_s:.1f}"
    return [
        *(f"{count:,}" for count in (row.entries, row.times, row.starts, row.lost)),
        f"{row.repeated:,}{allowed}",
        f"{row.out_of_order:,}",
        "" if row.kept is None else f"{row.kept:,}",
        f"{row.dead_letters:,}",
        recovered,
    ]
