"""How the answer of `status` looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kiva_stream.cli.rendering.tables import counts, duration, listing, moment, pairs
from kiva_stream.commands.held import HeldRow
from kiva_stream.commands.status import StartReport, StatusReport
from kiva_stream.model.incidents import Incident

SHOWN_ERASED = 10
NOT_ON_LIST = {  # what to do about contacts that may not be on the list, by why
    "other list": "the account has another list than before; move the old one's members to it at "
    "ActiveCampaign",
    "came alone": "no import has put them there; `verify` lists them",
}


def render_status(report: StatusReport | StartReport) -> RenderableType:
    """Return where a site stands."""
    if isinstance(report, StartReport):
        return Group(_start_facts(report), *_incidents(report.incidents))
    return Group(
        _facts(report),
        *counts("Events", report.events),
        *counts("Contacts", report.contacts),
        *_not_on_list(report.not_on_list),
        *counts("Orders", report.orders),
        *counts("Skipped", report.equation.skipped),
        *counts("Dead letters", report.equation.dead),
        *counts("Oddities", report.notes),
        Text(f"\n{report.equation}", "bold"),
        Text(f"counted from {report.counted_from}"),
        *_held(report.held),
        *_incidents(report.incidents),
    )


def _held(rows: list[HeldRow]) -> Iterator[RenderableType]:
    if rows:
        yield Text(
            "\nHeld: ActiveCampaign does not take these; each is tried again (`dead-letters list --parked`)",
            "bold",
        )
        yield from listing(
            [
                {
                    "what": row.what,
                    "customers": ", ".join(row.customers),
                    "since": moment(row.since),
                    "attempts": str(row.attempts),
                    "next try": moment(row.next_try) or "by dead-letters replay",
                    "parked": f"{row.parked:,}",
                    "reply": row.reply,
                }
                for row in rows
            ]
        )


def _not_on_list(by_why: Mapping[str, int]) -> Iterator[Text]:
    for why, count in by_why.items():
        yield Text(f"{count:,} contacts may not be on the list: {NOT_ON_LIST.get(why, why)}", "bold")


def _incidents(incidents: list[Incident]) -> Iterator[Text]:
    for each in incidents:
        yield Text(f"trouble: {each.kind} since {moment(each.since)}: {each.why}", "bold red")


def _start_facts(report: StartReport) -> Table:
    return pairs(
        {
            "site": report.site,
            "phase": "start: there is no checkpoint yet",
            "held by": _holder(report.held_by, report.held_since),
            "now": moment(report.updated_at),
        }
    )


def _facts(report: StatusReport) -> Table:
    return pairs(
        {
            "site": report.site,
            "account": report.account,
            "phase": report.phase,
            "held by": _holder(report.held_by, report.held_since),
            "since": report.since,
            "events since": moment(report.events_since),
            "watermark": report.watermark,
            "high-water mark": report.high_water_mark or "",
            "entries in all": "" if report.entries_total is None else f"{report.entries_total:,}",
            "last commit": moment(report.committed_at) or "none yet",
            "lag": "" if report.lag_s is None else f"at most {duration(report.lag_s)}",
            "week tags": f"{report.tags_due:,} due, for about {duration(report.tags_left_s)}"
            if report.tags_due
            else "none due",
            "erased at the shop": _erased(report.erased),
            "now": moment(report.updated_at),
        }
    )


def _holder(held_by: str | None, held_since: datetime | None) -> str:
    since = f", since {moment(held_since)}" if held_since else ""
    return f"{held_by}{since}" if held_by else "nobody"


def _erased(customers: list[str]) -> str:
    more = len(customers) - SHOWN_ERASED
    names = ", ".join(customers[:SHOWN_ERASED]) + (f" and {more:,} more" if more > 0 else "")
    return f"customers {names} are still at ActiveCampaign: run `forget`" if names else ""
