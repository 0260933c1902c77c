"""How the answer of `check` looks."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from kiva_stream.cli.rendering.tables import grid
from kiva_stream.commands.check import CheckReport


def render_check(report: CheckReport) -> RenderableType:
    """Return a row for each thing looked at, with a mark."""
    table = grid()
    for row in report.rows:
        mark = Text("ok", "green") if row.ok else Text("no", "bold red")
        table.add_row(mark, Text(row.subject), Text(row.text))
    return table
