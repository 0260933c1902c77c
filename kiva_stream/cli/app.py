"""The command line: its commands in the order of `--help`, and the entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kiva_stream import __version__
from kiva_stream.cli.customer_commands import forget, sync
from kiva_stream.cli.dead_letter_commands import (
    discard_dead_letters,
    list_dead_letters,
    replay_dead_letters,
    show_dead_letter,
)
from kiva_stream.cli.home import leave_unreadable_home
from kiva_stream.cli.repair_commands import rewind, verify
from kiva_stream.cli.run_commands import backfill, follow, plan, status
from kiva_stream.cli.sandbox_commands import demo, drill, generate, sandbox
from kiva_stream.cli.setup_commands import check, init, probe, setup
from kiva_stream.cli.shell import Shell, shell_of
from kiva_stream.settings import documentation

CONFIG_HELP = "The settings; else $KIVA_STREAM_CONFIG, ./kiva_stream.toml, /etc/kiva_stream/kiva_stream.toml."

# A line that starts with \b and ends with an empty line keeps its line breaks.
EPILOG = (
    "\b\nSettings, in kiva_stream.toml (kiva-stream init writes one) or in the environment:\n"
    + "\n".join(f"  {line}" for line in documentation.help_lines())
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kiva_stream {__version__}")
        raise typer.Exit


def before_any_command(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help=CONFIG_HELP)] = None,
    version: Annotated[  # noqa: ARG001  its callback is all it does
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Stream a food-box shop's system log from PostgreSQL into ActiveCampaign."""
    shell_of(context).config = config


app = typer.Typer(
    name="kiva-stream",
    help="Streams a food-box shop's system log from PostgreSQL into ActiveCampaign.",
    epilog=EPILOG,
    callback=before_any_command,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they show local variables, and with them secrets
)
for command in (
    *(demo, init, check, setup, probe, plan, sync, backfill, follow),
    *(forget, status, verify, rewind, generate, sandbox, drill),
):
    app.command()(command)

dead_letters = typer.Typer(
    help="Look at what could not be delivered and why; replay it, or discard it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
dead_letters.command("list")(list_dead_letters)
dead_letters.command("show")(show_dead_letter)
dead_letters.command("replay")(replay_dead_letters)
dead_letters.command("discard")(discard_dead_letters)
app.add_typer(dead_letters, name="dead-letters")


def main() -> None:
    """Run the command of this process's arguments; leaves by SystemExit with the documented code."""
    leave_unreadable_home()
    shell = Shell()
    try:
        app(obj=shell)
    except Exception as error:  # noqa: BLE001  here an error becomes a sentence and an exit code
        shell.exit(error)
