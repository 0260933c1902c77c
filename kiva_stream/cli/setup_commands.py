"""`init`, `check`, `setup` and `probe`: what comes before the first backfill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kiva_stream.cli.arguments import AsJson, address_of
from kiva_stream.cli.exit_codes import FOUND_SOMETHING, exit_by_signal
from kiva_stream.cli.shell import answer, run, shell_of
from kiva_stream.errors import SettingsError
from kiva_stream.settings import documentation

CONFIG_FILE = Path("kiva_stream.toml")


def init(
    context: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
) -> None:
    """Write a commented kiva_stream.toml."""
    path = shell_of(context).config or CONFIG_FILE
    if path.exists() and not force:
        raise SettingsError(f"{path} is there already: --force replaces it.")
    try:
        path.touch(mode=0o600)  # it will hold keys
        path.chmod(0o600)  # a file that is replaced had another mode
        path.write_text(documentation.example(), "utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}.") from error
    typer.echo(f"{path} is written: fill in what has no # before it, then run `kiva-stream check`.")


def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Look whether all is ready, and say what to do.

    Settings, source contract, state schema and account. It sends nothing that leaves a trace.
    """
    from kiva_stream.cli.rendering.check import render_check
    from kiva_stream.commands import check as check_command

    report = run(check_command.check, shell_of(context).load())
    answer(report, render_check, as_json=as_json)
    raise typer.Exit(0 if report.ok else FOUND_SOMETHING)


def setup(context: typer.Context) -> None:
    """Create what is missing; safe to repeat.

    The state schema; at ActiveCampaign the list, tags, fields, connection and event names.
    """
    from kiva_stream.commands import setup as setup_command

    for created in run(setup_command.set_up, shell_of(context).load()) or ["nothing, all is there"]:
        typer.echo(f"set up: {created}")


def probe(
    context: typer.Context,
    email: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Of your own, without a contact in the account.")
    ],
    only: Annotated[
        list[str] | None, typer.Option(metavar="QUESTION", help="One question; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Settle on a trial account what ActiveCampaign does not document.

    Under 60 calls, some beyond the account's limit on purpose, on one scratch contact, connection, tag, list
    and event name. They are removed afterwards, also after Ctrl-C; what could not be removed is listed. Exit
    code 7 when an assumption of kiva_stream is wrong, or something is left.
    """
    from kiva_stream.cli.rendering.probe import render_probe
    from kiva_stream.commands.probe import probe as probe_command
    from kiva_stream.commands.probe.questions import QUESTIONS

    unknown = set(only or ()) - set(QUESTIONS)
    if unknown:
        raise typer.BadParameter(f"{min(unknown)!r} is none of: {', '.join(QUESTIONS)}.", param_hint="--only")
    address = address_of("--email", email)
    report = run(probe_command.probe, shell_of(context).load(), address, only or tuple(QUESTIONS))
    answer(report, render_probe, as_json=as_json)
    exit_by_signal(report.stopped_by)
    raise typer.Exit(0 if report.ok else FOUND_SOMETHING)
