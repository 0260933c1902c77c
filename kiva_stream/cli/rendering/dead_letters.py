"""How the answers of `dead-letters` look."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from kiva_stream.cli.rendering.tables import counts, figures, listing, moment, pairs
from kiva_stream.commands.dead_letters.details import DeadLetterDetails
from kiva_stream.commands.dead_letters.discard import DiscardReport
from kiva_stream.commands.dead_letters.listing import DeadLetterList, DeadLetterRow, ParkedList
from kiva_stream.commands.dead_letters.replay import ReplayReport


def render_list(report: DeadLetterList) -> RenderableType:
    """Return the counts by reason, then the dead letters."""
    reasons = [
        [each.reason, f"{each.count:,}", f"{each.replay_asked:,}", f"{each.discarded:,}"]
        for each in report.reasons
    ]
    left = report.total - len(report.rows)
    return Group(
        Text(f"{report.total:,} dead letters", "bold"),
        *figures(["Reason", "letters", "replay asked", "discarded"], reasons),
        *listing([_cells(row) for row in report.rows]),
        *([Text(f"\n{left:,} more: --limit shows them")] if left else ()),
    )


def render_parked(report: ParkedList) -> RenderableType:
    """Return the parked entries."""
    left = report.total - len(report.rows)
    rows = [
        {
            "place": row.place,
            "customers": ", ".join(row.customers),
            "parked": moment(row.parked_since),
            "waits for": row.waits_for or "an answer",
            "attempts": "" if row.attempts is None else str(row.attempts),
            "next try": moment(row.next_try),
            "reply": row.reply,
        }
        for row in report.rows
    ]
    return Group(
        Text(f"{report.total:,} parked entries", "bold"),
        *listing(rows),
        *([Text(f"\n{left:,} more: --limit shows them")] if left else ()),
    )


def _cells(row: DeadLetterRow) -> dict[str, str]:
    return {
        "place": row.place,
        "reason": row.reason,
        "customer": row.customer or "",
        "attempts": "" if row.attempts is None else str(row.attempts),
        "died": moment(row.dead_since),
        "mark": row.mark,
        "reply": row.reply,
    }


def render_details(details: DeadLetterDetails) -> RenderableType:
    """Return all about one dead letter."""
    found = details.entry or {"entry": "the shop does not have it any more"}
    return pairs({**_cells(details.row), **found, "now": details.verdict, "to do": details.advice})


def render_discard(report: DiscardReport) -> RenderableType:
    """Return how many were discarded."""
    held = f"; {report.held:,} held records become dead at their next try" if report.held else ""
    return Text(f"{report.discarded:,} dead letters discarded: they stay dead, and need no attention{held}")


def render_replay(report: ReplayReport) -> RenderableType:
    """Return what became of the dead letters whose replay was asked for."""
    held = f"; {report.held:,} held records are tried now" if report.held else ""
    asked = Text(f"{report.asked:,} dead letters are to be replayed{held}", "bold")
    if report.outcomes is None:
        return Group(asked, Text("The process that holds the site does it: `follow` at its next poll."))
    rest = Text("Stopped before the end: the rest stays asked for.", "bold")
    return Group(asked, *counts("Became", report.outcomes), *([rest] if report.stopped_by else ()))
