"""The documented exit codes: of errors, of findings, and of signals."""

from __future__ import annotations

import typer

from kiva_stream.errors import (
    AccountRefused,
    CheckpointError,
    DrainTimeoutError,
    HeldError,
    IdsChanged,
    KivaStreamError,
    SettingsError,
    SourceError,
)

UNEXPECTED = 1
FOUND_SOMETHING = 7
BY_SIGNAL = 128  # plus the signal's number: 130 Ctrl-C, 143 SIGTERM
EXIT_CODES: dict[type[KivaStreamError], int] = {
    SettingsError: 2,
    SourceError: 3,
    AccountRefused: 4,
    CheckpointError: 5,
    HeldError: 6,
    IdsChanged: 4,
    DrainTimeoutError: UNEXPECTED,
}


def exit_code(error: Exception) -> int:
    """Return the exit code of an error."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), UNEXPECTED)


def leading_error(error: Exception) -> Exception:
    """Return the error that a group is about: the first that was raised on purpose, else the first."""
    if not isinstance(error, ExceptionGroup):
        return error
    inner = [leading_error(each) for each in error.exceptions]
    return next((each for each in inner if isinstance(each, KivaStreamError)), inner[0])


def exit_by_signal(number: int | None) -> None:
    """Exit with the code of the signal that stopped a command. No-op without one."""
    if number is not None:
        raise typer.Exit(BY_SIGNAL + number)
