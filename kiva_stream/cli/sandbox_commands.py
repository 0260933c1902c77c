"""`demo`, `generate`, `sandbox` and `drill`: they need the extra `demo`, and no shop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from kiva_stream.cli.arguments import AsJson
from kiva_stream.cli.exit_codes import FOUND_SOMETHING, exit_by_signal
from kiva_stream.cli.progress import backfill_progress, count_progress
from kiva_stream.cli.shell import answer, answers, run, shell_of
from kiva_stream.errors import SettingsError
from kiva_stream.observability import logs
from kiva_stream.settings.sections import LogSettings

FAULT_HELP = (
    "What goes wrong, as /event:500-after:0.05:10; may be repeated. A path is /event, * or one below "
    "/api/3. Kinds: 500-before, 500-after, html-503, html-200, 429, 403, 402, success-0, "
    "answer-before, answer-after, hang, hang-after, reset-before, reset-after."
)


@contextmanager
def _extra() -> Iterator[None]:
    """Name the extra that a command needs. Raises SettingsError when it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SettingsError(f"{error.name} is missing: pip install 'kiva-stream[demo]' brings it.") from error


def demo(
    context: typer.Context,
    entries: Annotated[int, typer.Option(min=1, help="Log entries of the generated history.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Another seed is another history.")] = 1,
) -> None:
    """Run everything locally, with nothing to configure.

    A generated shop, a local ActiveCampaign, setup, a backfill, and what arrived.
    """
    from kiva_stream.cli.rendering.backfill import render_summary

    with _extra():
        from kiva_stream.commands import demo as demo_command

    shell_of(context).set_up_logs(LogSettings(), [])
    with backfill_progress() as on_progress:
        summary = run(demo_command.demo, entries, seed, on_progress)
    answers.print(render_summary(summary))
    exit_by_signal(summary.stopped_by)


def generate(
    context: typer.Context,
    entries: Annotated[int, typer.Option(min=1, help="Log entries of its sites together.")],
    dsn: Annotated[str, typer.Option(metavar="DSN", help="An empty database, to be filled.")],
    seed: Annotated[int, typer.Option(help="Another seed is another history.")] = 1,
    sites: Annotated[int, typer.Option(min=1, max=3, help="How many sites share the log.")] = 1,
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what must become of each entry.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fill a source database with a realistic history."""
    with _extra():
        from kiva_stream.sandbox import generator

    shell_of(context).set_up_logs(LogSettings(), [dsn])
    with count_progress("entries", entries) as count:
        made = run(partial(generator.generate, sites=sites, truth=truth, progress=count), dsn, entries, seed)
    if as_json:
        typer.echo(msgspec.json.encode(made))
    else:
        typer.echo(
            f"{made.entries:,} entries, {made.accounts:,} accounts, {made.orders:,} orders; "
            f"{sum(made.events.values()):,} event entries, {made.contacts:,} contacts expected"
        )


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="On loopback; 0 = any free one.")] = 0,
    latency_ms: Annotated[float, typer.Option(min=0, help="There and back, each request.")] = 0,
    jitter_ms: Annotated[float, typer.Option(min=0, help="At most this much is added to it.")] = 0,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="PATH:KIND:SHARE[:COUNT]", help=FAULT_HELP)
    ] = None,
) -> None:
    """Serve a local ActiveCampaign until Ctrl-C.

    Its address and its keys are printed as one line of JSON.
    """
    with _extra():
        from kiva_stream.sandbox.activecampaign import command, faults

    try:
        wanted = [faults.parse_fault(text) for text in fault or []]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from None
    run(partial(command.run, port, latency_ms=latency_ms, jitter_ms=jitter_ms, faults=wanted))


def drill(
    context: typer.Context,
    entries: Annotated[int, typer.Option(min=1_000, help="Log entries of each history.")] = 5_000,
    kills: Annotated[int, typer.Option(min=1, help="How often a process is killed.")] = 3,
    seed: Annotated[
        list[int] | None, typer.Option(help="Another seed is another history; may be repeated. Else 1.")
    ] = None,
    outage_s: Annotated[float, typer.Option(min=0.1, help="How long what is taken away stays away.")] = 5,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this scenario; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pull every plug, and show that nothing is missing.

    Generated histories are carried to local ActiveCampaigns while processes are killed and frozen, answers go
    wrong, databases stop; what arrived is compared with the truth. Nothing of the shop's own is touched.
    """
    with _extra():
        from kiva_stream.cli.rendering.drill import render_drill
        from kiva_stream.sandbox import drill as drills

    shell_of(context).set_up_logs(LogSettings(), [])
    wanted = drills.Intensity(kills=kills, outage_s=outage_s)

    def on_row(row: drills.Row) -> None:
        logs.log.info("drilled", fault=row.fault, seed=row.seed, ok=row.ok)

    report = run(partial(drills.drill, entries, wanted, seeds=seed or [1], only=only or [], on_row=on_row))
    answer(report, render_drill, as_json=as_json)
    raise typer.Exit(0 if report.ok else FOUND_SOMETHING)
