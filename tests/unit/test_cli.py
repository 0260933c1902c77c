from __future__ import annotations

import json
import logging
import stat
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog

from kiva_stream import app, cli, errors, settings
from kiva_stream import backfill as history
from kiva_stream import check as checks
from kiva_stream.model import DAY1, Outcome, Position
from kiva_stream.reports import (
    BackfillPlan,
    BackfillRequest,
    CheckLine,
    Equation,
    StatusReport,
    Summary,
)
from kiva_stream.settings import KEYS, Settings
from kiva_stream.telemetry import OnProgress, Progress

TOKEN = "tok-4711-planted"
ENVIRON = {
    "KIVA_STREAM__SOURCE__DSN": f"postgresql://ro:{TOKEN}@db/shop",
    "KIVA_STREAM__SOURCE__SITE_ID": "1",
    "KIVA_STREAM__STATE__DSN": "postgresql://rw@db/shop",
    "KIVA_STREAM__ACTIVECAMPAIGN__API_URL": "https://account.api-us1.com",
    "KIVA_STREAM__ACTIVECAMPAIGN__API_TOKEN": TOKEN,
    "KIVA_STREAM__ACTIVECAMPAIGN__EVENT_ACTID": "123456",
    "KIVA_STREAM__ACTIVECAMPAIGN__EVENT_KEY": TOKEN,
}
COMMANDS = ("demo", "init", "check", "setup", "backfill", "status", "generate", "sandbox")
COUNTS = {
    Outcome("delivered"): 500,
    Outcome("synced"): 200,
    Outcome("skipped", "noise"): 290,
    Outcome("skipped", "test"): 4,
    Outcome("dead", "no_email"): 6,
}
EQUATION = Equation.of(COUNTS, pending=10)
PLAN = BackfillPlan(after="0:0", until="77:1234", entries=1010, events_about=505, contacts=90, hours=0.25)
SUMMARY = Summary(
    equation=EQUATION,
    entries=1010,
    seconds=36.0,
    events={"Logged in": 300, "Order Completed": 200},
    contacts={"linked": 88, "rejected": 2, "new": 0},
    requests={"POST import/bulk_import": 5},
    breaches={"rate_limit": 0},
)
MOMENT = datetime(2018, 3, 4, 17, 2, 10, tzinfo=UTC)
STATUS = StatusReport(
    site="1 Green Box",
    account="account.api-us1.com 123456",
    phase="events",
    since="day1",
    events_since=None,
    counted_from="0:0",
    watermark="77:1000",
    high_water_mark="77:1234",
    entries_total=2020,
    equation=EQUATION,
    events={"Logged in": 300},
    contacts={"linked": 88},
    notes={"bad_data": 3},
    committed_at=MOMENT,
    updated_at=MOMENT,
)


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command line as the process would, in an empty folder, with the settings in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "CONFIG_PLACES", (Path("kiva_stream.toml"),))
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    handlers, level = logging.root.handlers[:], logging.root.level

    def command(*arguments: str, on_terminal: bool = False) -> Result:
        monkeypatch.setattr(sys, "argv", ["kiva-stream", *arguments])
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: on_terminal)
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(left.value.code or 0), captured.out, captured.err)

    yield command
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


class Backfills:
    """Stands for the backfill itself: notes what it was asked, tells its progress, answers `summary`."""

    def __init__(self) -> None:
        self.requests: list[BackfillRequest] = []
        self.planned: list[BackfillRequest] = []
        self.summary = SUMMARY

    async def plan(self, _: Settings, request: BackfillRequest) -> BackfillPlan:
        self.planned.append(request)
        return PLAN

    async def backfill(self, _: Settings, request: BackfillRequest, hook: OnProgress) -> Summary:
        self.requests.append(request)
        for phase in ("contacts", "events", "done"):
            hook(Progress(phase, 1010, 1010, 500, 90, Position(77, 1234), 280.0, 1010, 90))
        return self.summary


@pytest.fixture
def backfills(monkeypatch: pytest.MonkeyPatch) -> Backfills:
    fake = Backfills()
    monkeypatch.setattr(history, "plan", fake.plan)
    monkeypatch.setattr(history, "backfill", fake.backfill)
    return fake


def raising(error: BaseException) -> Callable[..., object]:
    async def work(*_: object) -> None:
        raise error

    return work


def words(text: str) -> str:
    return " ".join(text.split())


def test_help_names_every_command_and_every_setting_with_its_default(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)
    assert all(line in result.out for line in settings.help_lines())
    assert len(settings.help_lines()) == len(KEYS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_its_help(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert f"kiva-stream {command} [OPTIONS]" in result.out


def test_only_commands_that_work_are_offered(run: Run) -> None:
    listed = run("--help").out.partition("Commands:")[2].partition("Settings,")[0]
    assert [line.split()[0] for line in listed.splitlines() if line.strip()] == list(COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("check", "--loud"),
        ("backfill", "extra"),
        ("generate", "--entries", "0", "--dsn", "x"),
        ("sandbox", "--port", "70000"),
        ("sandbox", "--fault", "/event"),
        ("backfill", "--since", "tomorrow"),
        ("backfill", "--since", "7-8"),
        ("backfill", "--since", "99999999999999999999999:1"),
        ("backfill", "--until", "2018-02-30"),
        ("backfill", "--events-since", "7:8"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_option(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.out == ""
    named = [argument for argument in arguments if argument.startswith("--")]
    assert (named or arguments)[-1 if len(arguments) < 4 else 0] in result.err


def test_a_date_that_is_none_says_what_is_expected(run: Run) -> None:
    assert (
        "'tomorrow' is neither day1, nor a date (YYYY-MM-DD), nor a position (TXID:ID)"
        in run("backfill", "--since", "tomorrow").err
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SettingsError("Set it."), 2),
        (errors.SourceError("Start it."), 3),
        (errors.AccountRefused("Copy the key."), 4),
        (errors.CheckpointError("Run setup."), 5),
        (errors.HeldError("Stop the other."), 6),
        (errors.DrainTimeoutError("Run it again."), 1),
        (errors.Rejected("Look at it."), 1),
        (ExceptionGroup("", [ValueError("x"), ExceptionGroup("", [errors.SourceError("Start it.")])]), 3),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_trouble_is_one_sentence_and_its_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    monkeypatch.setattr(app, "set_up", raising(error))
    result = run("setup")
    said = {ExceptionGroup: "Start it.\n", KeyboardInterrupt: ""}.get(type(error), f"{error}\n")
    assert result == Result(code, "", said)


def test_what_nobody_expected_is_a_short_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "set_up", raising(ZeroDivisionError("over")))
    assert run("setup") == Result(
        1, "", "Unexpected ZeroDivisionError: over (log.level = 'debug' shows where).\n"
    )


def test_a_traceback_shows_at_level_debug_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "set_up", raising(ZeroDivisionError("over")))
    monkeypatch.setenv("KIVA_STREAM__LOG__LEVEL", "debug")
    assert "Traceback" in run("setup").err


def test_secrets_and_addresses_stay_out_of_errors(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIVA_STREAM__LOG__LEVEL", "debug")
    monkeypatch.setattr(app, "set_up", raising(ValueError(f"{TOKEN} of anna@example.com")))
    err = run("setup").err
    assert "*** of a***@example.com" in err
    assert "4711" not in err
    assert "anna@" not in err


def test_without_settings_a_command_says_which_are_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRON:
        monkeypatch.delenv(name)
    result = run("status")
    assert result.code == 2
    assert result.err.startswith("Missing settings: source.dsn, source.site_id, state.dsn, activecampaign.")
    assert "Traceback" not in result.err


def test_the_settings_file_can_be_named(run: Run, tmp_path: Path) -> None:
    assert run("--config", "elsewhere.toml", "status").err.startswith(
        "There is no settings file elsewhere.toml"
    )
    (tmp_path / "mine.toml").write_text("[source]\nspeed = 1\n")
    assert run("--config", "mine.toml", "status").err.startswith("Unknown key source.speed in mine.toml")


def test_init_writes_the_commented_file_for_its_owner_alone(run: Run, tmp_path: Path) -> None:
    result = run("init")
    path = tmp_path / "kiva_stream.toml"
    assert result.code == 0
    assert path.read_text() == settings.example()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_init_replaces_a_file_only_when_told_to(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "kiva_stream.toml"
    path.write_text("# mine")
    path.chmod(0o644)
    result = run("init")
    assert (result.code, path.read_text()) == (2, "# mine")
    assert "--force" in result.err
    assert run("init", "--force").code == 0
    assert path.read_text() == settings.example()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_init_writes_where_config_says(run: Run, tmp_path: Path) -> None:
    assert run("--config", "other.toml", "init").code == 0
    assert (tmp_path / "other.toml").is_file()
    assert run("--config", "no/such/folder.toml", "init").code == 2


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 7)])
def test_check_shows_a_line_each_and_leaves_with_7_when_it_found_something(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, ok: bool, code: int
) -> None:
    async def check(loaded: Settings) -> list[CheckLine]:
        return [CheckLine("settings", ok=True, text="read"), CheckLine("source", ok=ok, text="Grant [it].")]

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

    monkeypatch.setattr(app, "set_up", set_up)
    assert run("setup").out == "set up: the list all customers\n"
    created.clear()
    assert run("setup").out == "set up: nothing, all is there\n"


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        ((), BackfillRequest()),
        (("--since", "day1"), BackfillRequest(since=DAY1)),
        (("--since", "2018-03-04"), BackfillRequest(since=date(2018, 3, 4))),
        (("--since", "7:8", "--until", "9:10"), BackfillRequest(since=Position(7, 8), until=Position(9, 10))),
        (("--events-since", "2018-03-04"), BackfillRequest(events_since=date(2018, 3, 4))),
    ],
)
def test_backfill_is_asked_what_the_options_say(
    run: Run, backfills: Backfills, arguments: tuple[str, ...], request_: BackfillRequest
) -> None:
    assert run("backfill", *arguments).code == 0
    assert backfills.requests == [request_]


def test_off_a_terminal_backfill_does_not_ask_and_logs_its_progress(run: Run, backfills: Backfills) -> None:
    result = run("backfill", "--since", "day1")
    lines = [json.loads(line) for line in result.err.splitlines()]
    assert [line["phase"] for line in lines] == ["contacts", "events", "done"]
    assert backfills.planned == []
    assert "101,000 an hour" in result.out
    assert words("1,010 entries read = 500 delivered + 200 synced + 294 skipped") in words(result.out)


def test_on_a_terminal_backfill_shows_the_plan_and_asks(
    run: Run, backfills: Backfills, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True])
    monkeypatch.setattr("typer.confirm", lambda _: next(answers))
    declined = run("backfill", "--since", "day1", on_terminal=True)
    assert declined.code == 0
    assert "about 505" in declined.out
    assert backfills.requests == []
    accepted = run("backfill", "--since", "day1", on_terminal=True)
    assert len(backfills.requests) == 1
    assert "1,010 of 1,010" in accepted.err


def test_on_a_terminal_yes_answers_the_question(run: Run, backfills: Backfills) -> None:
    assert "about 505" in run("backfill", "--yes", on_terminal=True).out
    assert len(backfills.requests) == 1


def test_a_dry_run_shows_the_plan_and_sends_nothing(run: Run, backfills: Backfills) -> None:
    result = run("backfill", "--since", "day1", "--dry-run", "--yes")
    assert result.code == 0
    assert all(
        figure in result.out for figure in ("1,010", "about 505", "90", "about 0.25", "0:0 to 77:1234")
    )
    assert backfills.requests == []


@pytest.mark.parametrize(("signal", "code"), [(2, 130), (15, 143)])
def test_a_stopped_backfill_says_how_to_go_on_and_leaves_with_its_signal(
    run: Run, backfills: Backfills, signal: int, code: int
) -> None:
    backfills.summary = Summary(EQUATION, 10, 1.0, {}, {}, {}, stopped_by=signal)
    result = run("backfill")
    assert result.code == code
    assert "run the same command again" in result.out


def test_status_shows_the_equation_and_its_parts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def status(loaded: Settings) -> StatusReport:
        return STATUS

    monkeypatch.setattr(app, "status", status)
    text = words(run("status").out)
    for part in (
        "1,010 entries read = 500 delivered + 200 synced + 294 skipped + 6 dead + 10 pending + 0 parked",
        "counted from 0:0",
        "no_email 6",
        "Logged in 300",
        "bad_data 3",
        "watermark 77:1000",
    ):
        assert part in text
    answer = json.loads(run("status", "--json").out)
    assert answer["equation"]["entries_read"] == 1010
    assert answer["equation"]["dead"] == {"no_email": 6}
    assert answer["watermark"] == "77:1000"


def test_a_summary_shows_breaches_only_of_the_sandbox(run: Run, backfills: Backfills) -> None:
    assert "0 breaches" in run("backfill").out
    backfills.summary = Summary(EQUATION, 10, 1.0, {}, {}, {})
    assert "breaches" not in run("backfill").out
    backfills.summary = Summary(EQUATION, 10, 1.0, {}, {}, {}, breaches={"rate_limit": 3, "schema": 0})
    assert "3 breaches of ActiveCampaign's limits and contract, rate_limit 3" in run("backfill").out


def test_requests_an_entry_are_shown_by_endpoint(run: Run, backfills: Backfills) -> None:
    assert "POST import/bulk_import 5 0.0050" in words(run("backfill").out)


def test_rows_of_nothing_are_not_shown(run: Run, backfills: Backfills) -> None:
    out = words(run("backfill").out)
    assert "rejected 2" in out
    assert "new 0" not in out


def test_the_equation_adds_up() -> None:
    parts = (
        EQUATION.delivered + EQUATION.synced + sum(EQUATION.skipped.values()) + sum(EQUATION.dead.values())
    )
    assert EQUATION.entries_read == parts + EQUATION.pending + EQUATION.parked == 1010


@pytest.mark.parametrize("command", [("sandbox",), ("demo",), ("generate", "--entries", "1", "--dsn", "x")])
def test_a_command_that_needs_the_extra_says_how_to_get_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.delattr("kiva_stream.demo", raising=False)
    monkeypatch.delitem(sys.modules, "kiva_stream.demo", raising=False)
    for name in [
        "kiva_stream.sandbox",
        *(name for name in sys.modules if name.startswith("kiva_stream.sandbox.")),
    ]:
        monkeypatch.setitem(sys.modules, name, None)
    result = run(*command)
    assert result.code == 2
    assert "pip install 'kiva-stream[demo]'" in result.err


def test_the_version_is_shown(run: Run) -> None:
    assert run("--version").out.startswith("kiva_stream 0.")
