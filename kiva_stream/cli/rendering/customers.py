"""How the answers of `sync` and `forget` look, each about one customer."""

from __future__ import annotations

from rich.console import Group, RenderableType

from kiva_stream.cli.rendering.tables import counts, moment, pairs
from kiva_stream.commands.forget import Receipt
from kiva_stream.commands.sync_customer import CustomerSyncReport


def render_customer_sync(report: CustomerSyncReport) -> RenderableType:
    """Return what became of one customer's contact, orders and week tag."""
    orders = ", ".join(f"{count:,} {name}" for name, count in report.orders.items() if count)
    facts = {
        "customer": report.customer,
        "contact": _contact(report),
        "at": report.url or "",
        **{title: text or "(empty)" for title, text in report.fields.items()},
        "all customers": report.list_status,
        "week tag": report.tag or "not known",
        "orders": orders or "none that is paid",
        **({"refused": report.reply} if report.reply else {}),
        **{f"{name.replace('_', ' ')} refused": reply for name, reply in report.left_out.items()},
        **{f"order {order} refused": reply for order, reply in report.refusals.items()},
    }
    return Group(pairs(facts), *counts("Requests", report.requests))


def _contact(report: CustomerSyncReport) -> str:
    if report.contact != "linked":
        return f"{report.contact}: {report.why}" if report.why else report.contact
    ac_id = "" if report.ac_contact_id is None else f" {report.ac_contact_id}"
    return f"{'sent' if report.sent else 'unchanged'}, contact{ac_id} at ActiveCampaign"


def render_receipt(receipt: Receipt) -> RenderableType:
    """Return what `forget` deleted."""
    facts = {
        "customer": receipt.customer,
        "forgotten at": moment(receipt.forgotten_at),
        "contact": receipt.contact,
        "address": "barred" if receipt.is_address_barred else "not barred: it is somebody else's too",
    }
    return Group(pairs(facts), *counts("Deleted", receipt.deleted))
