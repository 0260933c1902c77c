"""`init`, `check` and `setup` on the command line."""

from __future__ import annotations

import json
import stat
from collections.abc import Collection
from pathlib import Path

import pytest

from kiva_stream.commands import check as checks
from kiva_stream.commands import setup
from kiva_stream.commands.check import CheckReport, CheckRow
from kiva_stream.commands.probe import probe
from kiva_stream.commands.probe.questions import QUESTIONS
from kiva_stream.commands.probe.report import Finding, ProbeReport
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


FINDING = Finding(question="log-delay", found="shown within 2.0 s", assumed="30 s", ok=True)
WRONG = Finding(question="one-bucket", found="two", assumed="one", ok=False, change="nothing")
UNKNOWN = Finding(question="empty-logo", found="not known: [no] answer", assumed="filled", ok=None)


def probing(monkeypatch: pytest.MonkeyPatch, report: ProbeReport) -> list[tuple[str, tuple[str, ...]]]:
    asked = []

    async def fake(_loaded: Settings, email: str, only: Collection[str]) -> ProbeReport:
        asked.append((email, tuple(only)))
        return report

    monkeypatch.setattr(probe, "probe", fake)
    return asked


def test_probe_shows_a_line_a_question_and_exits_with_7_when_an_assumption_is_wrong(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings, left = [FINDING, WRONG, UNKNOWN], ["the tag kiva-probe-1"]
    report = ProbeReport(ok=False, calls=12, findings=findings, left=left)
    asked = probing(monkeypatch, report)

    result = run("probe", "--email", "Probe@Shop.example")

    assert result.code == 7
    assert [words(line) for line in result.out.splitlines()] == [
        "ok log-delay shown within 2.0 s. Assumed: 30 s.",
        "no one-bucket two. Assumed: one. Change: nothing.",
        "? empty-logo not known: [no] answer. Assumed: filled.",
        "not removed: the tag kiva-probe-1",
        "12 calls",
    ]
    assert asked == [("probe@shop.example", tuple(QUESTIONS))]


@pytest.mark.parametrize(("stopped_by", "code"), [(None, 0), (2, 130)])
def test_probe_answers_in_json_also_when_it_was_interrupted(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, stopped_by: int | None, code: int
) -> None:
    report = ProbeReport(ok=True, calls=3, findings=[FINDING], left=[], stopped_by=stopped_by)
    asked = probing(monkeypatch, report)

    result = run("probe", "--email", "probe@shop.example", "--only", "log-delay", "--json")

    assert result.code == code
    answered = json.loads(result.out)
    assert (answered["ok"], answered["calls"], answered["left"]) == (True, 3, [])
    assert answered["lines"] == [
        {
            "question": "log-delay",
            "found": "shown within 2.0 s",
            "assumed": "30 s",
            "ok": True,
            "change": "",
        }
    ]
    assert asked == [("probe@shop.example", ("log-delay",))]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--email", "nobody"), "is not one e-mail address"),
        (("--email", "a@shop.example,b@shop.example"), "is not one e-mail address"),
        (("--email", "a@shop.example", "--only", "weather"), "'weather' is none of: unknown-contact"),
        ((), "--email"),
    ],
)
def test_probe_refuses_what_it_cannot_ask(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    result = run("probe", *arguments)

    assert result.code == 2
    assert sentence in words(result.err)
