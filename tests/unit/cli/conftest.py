"""The command line in an empty folder, with the settings in the environment."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from kiva_stream.cli.app import main
from kiva_stream.settings import loading
from tests.unit.cli.command_line import ENVIRON, Result, Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command line as the process would, in an empty folder, with the settings in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "CONFIG_FILES", (Path("kiva_stream.toml"),))
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    handlers, level = logging.root.handlers[:], logging.root.level

    def command(*arguments: str, on_terminal: bool = False) -> Result:
        monkeypatch.setattr(sys, "argv", ["kiva-stream", *arguments])
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: on_terminal)
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return Result(int(left.value.code or 0), captured.out, captured.err)

    yield command
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
