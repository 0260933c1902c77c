"""`verify` and `rewind`: they find discrepancies, and have a part of the log read again."""

from __future__ import annotations

from typing import Annotated

import typer

from kiva_stream.cli.arguments import AsJson, Yes, customer_of, date_of, position_of
from kiva_stream.cli.exit_codes import FOUND_SOMETHING
from kiva_stream.cli.shell import answer, answers, is_on_terminal, run, shell_of
from kiva_stream.errors import SettingsError

NONE = "none"


def verify(
    context: typer.Context,
    customer: Annotated[
        str | None, typer.Option(metavar="ID", help="Look at the contact of this customer alone.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Contacts to draw; else verify.sample.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Close the gaps of contacts, tags and orders.")
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="With --repair: also missing events that would be listed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the shop, the state and ActiveCampaign, and print the gaps.

    A sample of contacts, unless --customer names one: their fields, list, week tag, orders, and events by
    their tracking logs. Without --repair it leaves no trace, and works beside a running process; with it, it
    holds the site meanwhile.
    """
    from kiva_stream.cli.rendering.repairs import render_verification
    from kiva_stream.verification import verify as verify_command

    if events and not repair:
        raise SettingsError("--events belongs to --repair: give both, or none.")
    loaded = shell_of(context).load()
    request = verify_command.VerifyRequest(
        sample=sample or loaded.verify.sample,
        customer=None if customer is None else customer_of(customer),
        repair=repair,
        events=events,
    )
    report = run(verify_command.verify, loaded, request)
    answer(report, render_verification, as_json=as_json)
    raise typer.Exit(FOUND_SOMETHING if report.discrepancies else 0)


def rewind(
    context: typer.Context,
    to: Annotated[
        str, typer.Option(metavar="day1|POSITION", help="Entries above it are read again; it is not.")
    ],
    resend: Annotated[
        bool, typer.Option("--resend", help="Send again what the ledger holds, and try anew what is dead.")
    ] = False,
    events_since: Annotated[
        str | None,
        typer.Option(metavar="DATE|none", help="From now on older entries become no events; else as it was."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Move the checkpoint back; the next run reads on from there.

    What the ledger holds is not sent again, unless --resend. Counts begin anew. It also changes
    --events-since, and how the log is read when source.horizon was changed. It holds the site meanwhile.
    """
    from kiva_stream.cli.rendering.repairs import render_rewind
    from kiva_stream.commands import rewind as rewind_command

    request = rewind_command.RewindRequest(
        to=position_of("--to", to),
        resend=resend,
        events_since=None if events_since == NONE else date_of("--events-since", events_since),
        forget_events_since=events_since == NONE,
    )
    loaded = shell_of(context).load()
    if is_on_terminal() and not yes:
        answers.print(render_rewind(run(rewind_command.preview, loaded, request)))
        if not typer.confirm("Go ahead?"):
            return
    answer(run(rewind_command.rewind, loaded, request), render_rewind, as_json=as_json)
