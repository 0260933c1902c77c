"""How the answer of `probe` looks."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from kiva_stream.cli.rendering.tables import grid
from kiva_stream.commands.probe.report import Finding, ProbeReport


def render_probe(report: ProbeReport) -> RenderableType:
    """Return a row for each question, what was not removed, and the number of calls."""
    table = grid()
    for finding in report.findings:
        table.add_row(_mark(finding), Text(finding.question), Text(_words(finding)))
    left = [Text(f"not removed: {what}", "bold red") for what in report.left]
    return Group(table, *left, Text(f"{report.calls} calls"))


def _mark(finding: Finding) -> Text:
    if finding.ok is None:
        return Text("?", "yellow")
    return Text("ok", "green") if finding.ok else Text("no", "bold red")


def _words(finding: Finding) -> str:
    change = f" Change: {finding.change}." if finding.change else ""
    return f"{finding.found}. Assumed: {finding.assumed}.{change}"
