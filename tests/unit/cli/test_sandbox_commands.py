"""`demo`, `generate`, `sandbox` and `drill` on the command line."""

from __future__ import annotations

import sys

import pytest

from tests.unit.cli.command_line import Run


@pytest.mark.parametrize(
    "command", [("sandbox",), ("demo",), ("drill",), ("generate", "--entries", "1", "--dsn", "x")]
)
def test_a_command_that_needs_the_extra_says_how_to_get_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.delattr("kiva_stream.commands.demo", raising=False)
    monkeypatch.delitem(sys.modules, "kiva_stream.commands.demo", raising=False)
    for name in [
        "kiva_stream.sandbox",
        *(name for name in sys.modules if name.startswith("kiva_stream.sandbox.")),
    ]:
        monkeypatch.setitem(sys.modules, name, None)
    result = run(*command)
    assert result.code == 2
    assert "pip install 'kiva-stream[demo]'" in result.err
