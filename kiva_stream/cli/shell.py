"""What every command does around its work: load settings, run it, answer, report an error and exit.

Answers go to stdout; progress, logs and errors to stderr. An error raised on purpose is one sentence.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn, TypeVar, TypeVarTuple, Unpack

import anyio
import msgspec
import structlog
import typer
from rich.console import Console, RenderableType

from kiva_stream.cli.exit_codes import exit_code, leading_error
from kiva_stream.errors import KivaStreamError
from kiva_stream.observability import logs
from kiva_stream.observability.scrubbing import Scrubber
from kiva_stream.settings import loading
from kiva_stream.settings.sections import LogSettings, Settings

T = TypeVar("T")
Args = TypeVarTuple("Args")
Report = TypeVar("Report", bound=msgspec.Struct)

WIDE = 1_000  # columns of an answer that goes to a file or pipe: a line stays a line
answers = Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)


class Shell:
    """The settings file of this process, its logging, and what to hide from its errors."""

    def __init__(self) -> None:
        self.config: Path | None = None
        self.log = LogSettings()
        self.scrub = Scrubber()

    def load(self) -> Settings:
        """Read the settings and set up logging by them. Raises SettingsError."""
        loaded = loading.load(self.config, os.environ)
        self.set_up_logs(loaded.log, loaded.secrets())
        return loaded

    def set_up_logs(self, log: LogSettings, secrets: list[str]) -> None:
        """Set up logging."""
        self.log = log
        self.scrub = logs.configure(log, secrets)

    def exit(self, raised: Exception) -> NoReturn:
        """Print what went wrong as a sentence, and exit with its code."""
        error = leading_error(raised)
        sentence = " ".join(str(error).split())
        if not isinstance(error, KivaStreamError):
            sentence = f"Unexpected {type(error).__name__}: {sentence} (log.level = 'debug' shows where)."
        if self.log.level == "debug":
            structlog.get_logger().exception("failed")
        typer.echo(self.scrub(sentence), err=True)
        sys.exit(exit_code(error))


def shell_of(context: typer.Context) -> Shell:
    """Return the shell of a command."""
    return context.ensure_object(Shell)


def run(work: Callable[[Unpack[Args]], Awaitable[T]], *args: *Args) -> T:
    """Run a coroutine function to its end, on uvloop where there is one."""
    return anyio.run(work, *args, backend_options={"use_uvloop": sys.platform == "linux"})


def answer(report: Report, render: Callable[[Report], RenderableType], *, as_json: bool) -> None:
    """Print a report: as one JSON object, or as it is rendered."""
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        answers.print(render(report))


def is_on_terminal() -> bool:
    """Return whether a person can read a question and answer it."""
    return sys.stdin.isatty() and sys.stdout.isatty()
