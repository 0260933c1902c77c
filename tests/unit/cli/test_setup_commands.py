"""`init`, `check` and `setup` on the command line."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from kiva_stream.commands import check as checks
from kiva_stream.commands import setup
from kiva_stream.commands.check import CheckReport, CheckRow
from kiva_stream.settings import documentation
from kiva_stream.settings.sections import Settings
from tests.unit.cli.command_line import Run, words


def test_init_writes_the_commented_file_for_its_owner_alone(run: Run, tmp_path: Path) -> None:
    result = run("init")
    path = tmp_path / "kiva_stream.toml"
    assert result.code == 0
    assert path.read_text() == documentation.example()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_init_replaces_a_file_only_with_force(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "kiva_stream.toml"
    path.write_text("# mine")
    path.chmod(0o644)
    result = run("init")
    assert (result.code, path.read_text()) == (2, "# mine")
    assert "--force" in result.err
    assert run("init", "--force").code == 0
    assert path.read_text() == documentation.example()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_init_writes_where_config_says(run: Run, tmp_path: Path) -> None:
    assert run("--config", "other.toml", "init").code == 0
    assert (tmp_path / "other.toml").is_file()
    assert run("--config", "no/such/folder.toml", "init").code == 2


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 7)])
def test_check_shows_a_row_each_and_exits_with_7_when_it_found_something(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, ok: bool, code: int
) -> None:
    async def check(loaded: Settings) -> CheckReport:
        rows = [CheckRow("settings", ok=True, text="read"), CheckRow("source", ok=ok, text="Grant [it].")]
        return CheckReport(ok, rows)

    monkeypatch.setattr(checks, "check", check)
    result = run("check")
    assert result.code == code
    assert [words(line) for line in result.out.splitlines()] == [
        "ok settings read",
        f"{'ok' if ok else 'no'} source Grant [it].",
    ]
    as_json = run("check", "--json")
    assert as_json.code == code
    assert json.loads(as_json.out) == {
        "ok": ok,
        "lines": [
            {"subject": "settings", "ok": True, "text": "read"},
            {"subject": "source", "ok": ok, "text": "Grant [it]."},
        ],
    }


def test_setup_says_what_it_created(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[str] = ["the list all customers"]

    async def set_up(loaded: Settings) -> list[str]:
        return created

    monkeypatch.setattr(setup, "set_up", set_up)
    assert run("setup").out == "set up: the list all customers\n"
    created.clear()
    assert run("setup").out == "set up: nothing, all is there\n"
