"""`sync` and `forget`: they upsert one customer at ActiveCampaign, or erase them there and here."""

from __future__ import annotations

import sys

import typer

from kiva_stream.cli.arguments import AsJson, CustomerOption, Yes, customer_of
from kiva_stream.cli.shell import answer, run, shell_of


def sync(context: typer.Context, customer: CustomerOption, as_json: AsJson = False) -> None:
    """Bring one customer to ActiveCampaign, as a trial.

    Contact, paid orders and week tag, without starting automations; no events, no checkpoint. It shows what
    became of them, and holds the site meanwhile.
    """
    from kiva_stream.cli.rendering.customers import render_customer_sync
    from kiva_stream.commands import sync_customer as sync_command

    wanted = customer_of(customer)
    report = run(sync_command.sync_customer, shell_of(context).load(), wanted)
    answer(report, render_customer_sync, as_json=as_json)


def forget(
    context: typer.Context, customer: CustomerOption, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Erase a person, at ActiveCampaign and here, and show a receipt.

    A tombstone stays, which keeps them out for good. It holds the site meanwhile: stop the service first.
    """
    from kiva_stream.cli.rendering.customers import render_receipt
    from kiva_stream.commands import forget as forget_command

    wanted = customer_of(customer)
    loaded = shell_of(context).load()
    if sys.stdin.isatty() and not yes and not typer.confirm(f"Erase customer {customer} for good?"):
        return
    answer(run(forget_command.forget, loaded, wanted), render_receipt, as_json=as_json)
