"""`plan`, `backfill`, `follow` and `status`: they deliver the log, and show how far that is."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from kiva_stream.cli.arguments import BOUND, AsJson, EventsSince, Since, Until, Wait, Yes, bound_of, date_of
from kiva_stream.cli.exit_codes import exit_by_signal
from kiva_stream.cli.progress import backfill_progress
from kiva_stream.cli.shell import answer, answers, is_on_terminal, run, shell_of

if TYPE_CHECKING:
    from kiva_stream.commands.backfill_report import BackfillRequest


def plan(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    events_since: EventsSince = None,
    as_json: AsJson = False,
) -> None:
    """Show what a backfill would do, and send nothing.

    Entries by class and event, customers, orders, requests, dead letters; hours at the limits in the
    settings. What is there already is not counted as work; figures with "about" are estimates. A DATE is
    midnight of the site.
    """
    from kiva_stream.cli.rendering.backfill import render_plan
    from kiva_stream.commands import plan as plan_command

    request = _backfill_request(since, until, events_since)
    answer(run(plan_command.plan, shell_of(context).load(), request), render_plan, as_json=as_json)


def backfill(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    events_since: EventsSince = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and send nothing.")] = False,
    yes: Yes = False,
    wait: Wait = False,
) -> None:
    """Carry contacts, orders and history up to now, then exit. Run again, it goes on where it stopped.

    --since and --events-since are kept with the checkpoint. A DATE is midnight of the site.
    """
    from kiva_stream.cli.rendering.backfill import render_plan, render_summary
    from kiva_stream.commands import backfill as backfill_command
    from kiva_stream.commands import plan as plan_command

    request = _backfill_request(since, until, events_since)
    loaded = shell_of(context).load()
    if dry_run or is_on_terminal():
        answers.print(render_plan(run(plan_command.plan, loaded, request)))
    if dry_run or (is_on_terminal() and not yes and not typer.confirm("Go ahead?")):
        return
    with backfill_progress() as on_progress:
        summary = run(partial(backfill_command.backfill, wait=wait), loaded, request, on_progress)
    answers.print(render_summary(summary))
    exit_by_signal(summary.stopped_by)


def follow(
    context: typer.Context,
    since: Annotated[
        str | None, typer.Option(metavar=BOUND, help="Where to begin, when there is no checkpoint yet.")
    ] = None,
    wait: Wait = False,
) -> None:
    """Carry what is left of the log, then what comes, for ever.

    What runs as a service. It goes on at a backfill's checkpoint. SIGTERM and Ctrl-C let what is in flight
    finish. A DATE is midnight of the site.
    """
    from kiva_stream.commands import follow as follow_command

    bound = bound_of("--since", since)
    stopped = run(partial(follow_command.follow, wait=wait), shell_of(context).load(), bound)
    if stopped.signal != signal.SIGTERM or stopped.was_cut_short:
        exit_by_signal(stopped.signal)


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show where the site stands.

    It reads the state database alone, so it works beside a running backfill.
    """
    from kiva_stream.cli.rendering.status import render_status
    from kiva_stream.commands import status as status_command

    answer(run(status_command.status, shell_of(context).load()), render_status, as_json=as_json)


def _backfill_request(since: str | None, until: str | None, events_since: str | None) -> BackfillRequest:
    from kiva_stream.commands.backfill_report import BackfillRequest

    return BackfillRequest(
        since=bound_of("--since", since),
        until=bound_of("--until", until),
        events_since=date_of("--events-since", events_since),
    )
