"""How the answers of `verify` and `rewind` look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from kiva_stream.cli.rendering.tables import moment, pairs
from kiva_stream.commands.rewind import RewindReport
from kiva_stream.verification.verify import DiscrepancyRow, VerifyReport


def render_verification(report: VerifyReport) -> RenderableType:
    """Return a line for each discrepancy, then how many there are in how many contacts."""
    compared = f"{report.contacts:,} contacts were looked at"
    if report.is_sample:
        compared += f", a sample of {report.contacts_total:,}: the others may have gaps too"
    closed = f", {len(report.closed):,} closed" if report.closed else ""
    return Group(
        *_rows("closed", report.closed),
        *_rows("gap", report.discrepancies),
        Text(f"{compared}."),
        Text(
            f"{len(report.discrepancies):,} gaps{closed}",
            "bold red" if report.discrepancies else "bold green",
        ),
    )


def _rows(word: str, discrepancies: Iterable[DiscrepancyRow]) -> Iterator[RenderableType]:
    for each in discrepancies:
        customer = f"customer {each.customer}" if each.customer else ""
        contact = f"contact {each.ac_contact_id}" if each.ac_contact_id else ""
        parts = (f"{word}: {each.kind}", customer, contact, each.what)
        yield Text("  ".join(part for part in parts if part))


def render_rewind(report: RewindReport) -> RenderableType:
    """Return what a rewind does, or has done."""
    moved = "moved" if report.is_done else "moves"
    return pairs(
        {
            "checkpoint": f"{moved} from {report.before} back to {report.to}",
            "deliveries above it": _fate(report, report.deliveries, "sent again"),
            "dead letters above it": _fate(report, report.dead_letters, "tried anew"),
            "events since": moment(report.events_since) or "the first entry on",
            "counts": f"begin anew after {report.to}",
            "positions": "TXID:ID" if report.horizon else "0:ID, since source.horizon is off",
        }
    )


def _fate(report: RewindReport, count: int | None, when_resent: str) -> str:
    fate = f"removed: {when_resent}" if report.resend else "kept: not sent again"
    return fate if count is None else f"{count:,} {fate}"
