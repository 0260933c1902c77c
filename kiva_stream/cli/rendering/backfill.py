"""How the plan of a backfill and its summary look."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from kiva_stream.cli.rendering.tables import HOUR_S, counts, duration, figures, moment, pairs
from kiva_stream.commands.backfill_report import Summary
from kiva_stream.commands.plan import BackfillPlan


def render_plan(plan: BackfillPlan) -> RenderableType:
    """Return what a backfill would do."""
    phases = ", ".join(f"{name} {duration(hours * HOUR_S)}" for name, hours in plan.phases.items())
    new_week = duration(plan.new_week_hours * HOUR_S)
    about = f"about, from {plan.sampled:,} of them"
    return Group(
        pairs(
            {
                "reads": f"{'on from' if plan.resumes else 'from'} {plan.after} to {plan.until}",
                "entries": f"{plan.entries:,}",
                "events": f"about {sum(plan.events.values()):,}"
                + (f", of entries since {moment(plan.events_since)}" if plan.events_since else ""),
                "customers": f"{plan.customers:,} with an address",
                "orders": "not counted: that takes too long"
                if plan.orders is None
                else f"{plan.orders:,} paid",
                "week tags": f"{plan.tags_due:,} may have to be swapped" if plan.tags_due else "",
                "time": f"about {duration(plan.hours * HOUR_S)} at the limits in the settings: {phases}",
                "a new week": f"up to {new_week} until every week tag is right again",
            }
        ),
        *counts(f"Entries ({about})", plan.classes),
        *counts("Events (about)", plan.events),
        *counts("Dead letters (about)", plan.dead),
        *counts("Requests (about)", plan.requests),
    )


def render_summary(summary: Summary) -> RenderableType:
    """Return what a backfill has done."""
    parts: list[RenderableType] = [
        *counts("Events", summary.events),
        *counts("Contacts", summary.contacts),
        *counts("Orders", summary.orders),
        *counts("Week tags", summary.tags or {}),
        *counts("Skipped", summary.equation.skipped),
        *counts("Dead letters", summary.equation.dead),
        *counts("Oddities", summary.notes),
        *_requests(summary.requests, summary.entries),
        Text(f"\n{summary.equation}", "bold"),
        Text(
            f"{summary.entries:,} entries in {duration(summary.seconds)}: "
            f"{summary.entries_per_hour:,.0f} an hour"
        ),
    ]
    if summary.breaches is not None:
        parts.append(_breaches(summary.breaches))
    if summary.stopped_by is not None:
        parts.append(Text("Stopped before the end: run the same command again, and it goes on.", "bold"))
    if summary.left is not None:
        parts.append(Text(summary.left, "bold yellow"))
    if summary.obstacle is not None:
        parts.append(Text(summary.obstacle, "bold yellow"))
    return Group(*parts)


def _requests(requests: Mapping[str, int], entries: int) -> list[RenderableType]:
    rows = [
        [name, f"{count:,}", f"{count / entries:.4f}" if entries else ""]
        for name, count in sorted(requests.items())
    ]
    return figures(["Requests", "", "an entry"], rows)


def _breaches(breaches: Mapping[str, int]) -> Text:
    total = sum(breaches.values())
    which = "".join(f", {name} {count}" for name, count in sorted(breaches.items()) if count)
    return Text(
        f"{total} breaches of ActiveCampaign's limits and contract{which}", "bold red" if total else "green"
    )
