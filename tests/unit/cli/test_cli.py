from __future__ import annotations

import json
import logging
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import structlog
from msgspec.structs import replace

from kiva_stream import errors
from kiva_stream.cli.app import main
from kiva_stream.commands import backfill as history
from kiva_stream.commands import check as checks
from kiva_stream.commands import follow as following
from kiva_stream.commands import plan as plans
from kiva_stream.commands import rewind as rewinds
from kiva_stream.commands import setup, status
from kiva_stream.commands import sync_customer as trials
from kiva_stream.commands.backfill_report import BackfillRequest, Summary
from kiva_stream.commands.check import CheckReport, CheckRow
from kiva_stream.commands.dead_letters import details, discard, listing, replay
from kiva_stream.commands.dead_letters.details import DeadLetterDetails
from kiva_stream.commands.dead_letters.discard import DiscardReport
from kiva_stream.commands.dead_letters.listing import DeadLetterList, DeadLetterRow, ReasonCount
from kiva_stream.commands.dead_letters.replay import ReplayReport
from kiva_stream.commands.dead_letters.selection import DeadLetterRequest
from kiva_stream.commands.outcome_equation import Equation
from kiva_stream.commands.plan import BackfillPlan
from kiva_stream.commands.rewind import RewindReport, RewindRequest
from kiva_stream.commands.status import StatusReport
from kiva_stream.commands.sync_customer import CustomerSyncReport
from kiva_stream.model.bounds import Bound, Place
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.incidents import Incident
from kiva_stream.model.outcomes import Outcome, Reason
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.observability.progress import OnProgress, Progress
from kiva_stream.runtime.shutdown import GracefulShutdown
from kiva_stream.settings import documentation, loading
from kiva_stream.settings.keys import KEYS
from kiva_stream.settings.sections import Settings

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
COMMANDS = (
    *("demo", "init", "check", "setup", "plan", "sync", "backfill", "follow", "forget", "status"),
    *("verify", "rewind", "generate", "sandbox", "drill", "dead-letters"),
)
COUNTS = {
    Outcome("delivered"): 500,
    Outcome("synced"): 200,
    Outcome("skipped", "noise"): 290,
    Outcome("skipped", "test"): 4,
    Outcome("dead", "no_email"): 6,
}
EQUATION = Equation.of(COUNTS, pending=10)
PLAN = BackfillPlan(
    after="0:0",
    until="77:1234",
    entries=1010,
    sampled=202,
    classes={"event": 505, "noise": 300, "sync only": 200, "reject": 5},
    events={"Logged in": 305, "Order Completed": 200},
    dead={"no_email": 5},
    customers=90,
    orders=1_430,
    requests={"POST /import/bulk_import": 1, "POST /ecom/graphql": 29, "POST /event": 505},
    phases={"contacts": 0.01, "orders": 0.04, "events": 0.2, "tags": 0.0},
    hours=0.25,
    tags_due=0,
    new_week_hours=0.33,
)
SUMMARY = Summary(
    equation=EQUATION,
    entries=1010,
    seconds=36.0,
    events={"Logged in": 300, "Order Completed": 200},
    contacts={"linked": 88, "rejected": 2, "new": 0},
    requests={"POST /import/bulk_import": 5},
    orders={"sent": 411, "refused": 0},
    breaches={"rate_limit": 0},
)
PHASES = ("contacts", "orders", "events", "tags", "done")
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
    orders={"sent": 411, "refused": 2},
    tags_due=0,
    tags_left_s=0.0,
    notes={"bad_data": 3},
    incidents=[Incident("key", MOMENT, "403 Forbidden")],
    erased=[],
    held_by="shop pid 7",
    held_since=MOMENT,
    committed_at=MOMENT,
    updated_at=MOMENT,
    lag_s=4.26,
)
TRIAL = CustomerSyncReport(
    customer="1001",
    contact="linked",
    why="",
    sent=True,
    ac_contact_id=17,
    url="https://account.activehosted.com/app/contacts/17",
    fields={"Kiva Status": "active", "Kiva Cancel Date": ""},
    list_status="subscribed",
    tag="open order",
    orders={"sent": 33, "refused": 1},
    refusals={"4711": "422 finalAmount"},
    requests={"POST /ecom/graphql": 1},
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


class Backfills:
    """Stands for backfill and plan: notes what they were asked, tells of progress, answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[BackfillRequest] = []
        self.planned: list[BackfillRequest] = []
        self.summary = SUMMARY
        self.answer = PLAN

    async def plan(self, _: Settings, request: BackfillRequest) -> BackfillPlan:
        self.planned.append(request)
        return self.answer

    async def backfill(self, _: Settings, request: BackfillRequest, hook: OnProgress) -> Summary:
        self.requests.append(request)
        for phase in PHASES:
            hook(Progress(phase, 1010, 1010, 500, 90, Position(77, 1234), 280.0, 1010, 90, 400, 411))
        return self.summary


@pytest.fixture
def backfills(monkeypatch: pytest.MonkeyPatch) -> Backfills:
    fake = Backfills()
    monkeypatch.setattr(plans, "plan", fake.plan)
    monkeypatch.setattr(history, "backfill", fake.backfill)
    return fake


class Follows:
    """Stands for following the log: notes where it was to begin and whether to wait, ends by `stopping`."""

    def __init__(self) -> None:
        self.asked: list[tuple[Bound | None, bool]] = []
        self.stopping = GracefulShutdown(lambda: None, 60)
        self.stopping.signal = signal.SIGTERM

    async def follow(self, _: Settings, since: Bound | None, *, wait: bool) -> GracefulShutdown:
        self.asked.append((since, wait))
        return self.stopping


@pytest.fixture
def follows(monkeypatch: pytest.MonkeyPatch) -> Follows:
    fake = Follows()
    monkeypatch.setattr(following, "follow", fake.follow)
    return fake


class Trials:
    """Stands for the trial of a customer: notes whom, and answers `answer`."""

    def __init__(self) -> None:
        self.customers: list[CustomerId] = []
        self.answer = TRIAL

    async def trial(self, _: Settings, customer: CustomerId) -> CustomerSyncReport:
        self.customers.append(customer)
        return self.answer


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Trials:
    fake = Trials()
    monkeypatch.setattr(trials, "sync_customer", fake.trial)
    return fake


class Statuses:
    """Stands for reading the state schema: answers `answer`."""

    def __init__(self) -> None:
        self.answer = STATUS

    async def status(self, _: Settings) -> StatusReport:
        return self.answer


@pytest.fixture
def statuses(monkeypatch: pytest.MonkeyPatch) -> Statuses:
    fake = Statuses()
    monkeypatch.setattr(status, "status", fake.status)
    return fake


def raising(error: BaseException) -> Callable[..., object]:
    async def work(*_: object, **__: object) -> None:
        raise error

    return work


def words(text: str) -> str:
    return " ".join(text.split())


def test_help_names_every_command_and_every_setting_with_its_default(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)
    assert all(line in result.out for line in documentation.help_lines())
    assert len(documentation.help_lines()) == len(KEYS)


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
        ("plan", "--since", "tomorrow"),
        ("plan", "--until", "2018-13-01"),
        ("plan", "--events-since", "day1"),
        ("plan", "--events-since", "9999-12-31"),
        ("plan", "--since", "0001-01-01"),
        ("plan", "--since", "20180304"),
        ("sync", "--customer", "9" * 5_000),
        ("plan", "--yes"),
        ("follow", "--since", "2018-02-30"),
        ("follow", "--until", "day1"),
        ("sync", "--customer"),
        ("sync", "--customer", ""),
        ("sync", "--customer", "anna@example.com"),
        ("sync", "--customer", "0"),
        ("sync", "--customer", "-5"),
        ("sync", "--customer", "1.5"),
        ("sync", "--customer", "\N{SUPERSCRIPT TWO}"),
        ("sync", "--customer", str(2**63)),
        ("status", "--customer", "1"),
        ("rewind", "--to", "2018-03-04"),
        ("rewind", "--to", "7"),
        ("dead-letters", "list", "--reason", "noise"),
        ("dead-letters", "replay", "--customer", "anna"),
        ("dead-letters", "list", "--all"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_option(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.out == ""
    named = [argument for argument in arguments if argument.startswith("--")]
    assert (named or arguments)[-1 if len(arguments) < 4 else 0] in result.err


def test_a_trial_needs_a_customer(run: Run) -> None:
    result = run("sync")
    assert (result.code, result.out) == (2, "")
    assert "Missing option '--customer'" in result.err


def test_a_customer_that_is_no_number_says_what_is_expected(run: Run) -> None:
    assert "'anna' is not the id of a customer (a number)" in run("sync", "--customer", "anna").err


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
    monkeypatch.setattr(setup, "set_up", raising(error))
    result = run("setup")
    said = {ExceptionGroup: "Start it.\n", KeyboardInterrupt: ""}.get(type(error), f"{error}\n")
    assert result == Result(code, "", said)


@pytest.mark.parametrize(
    ("place", "name", "command"),
    [
        (plans, "plan", ("plan", "--since", "day1")),
        (plans, "plan", ("backfill", "--dry-run")),
        (history, "backfill", ("backfill", "--yes")),
        (trials, "sync_customer", ("sync", "--customer", "7")),
        (following, "follow", ("follow", "--wait")),
        (status, "status", ("status", "--json")),
        (rewinds, "rewind", ("rewind", "--to", "day1")),
        (listing, "list_dead_letters", ("dead-letters", "list")),
        (details, "show_dead_letter", ("dead-letters", "show", "7:8")),
        (replay, "replay", ("dead-letters", "replay", "--all")),
        (discard, "discard", ("dead-letters", "discard", "order:9")),
    ],
)
def test_every_command_leaves_with_the_code_of_its_trouble_and_answers_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, place: object, name: str, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(place, name, raising(errors.HeldError("Stop the other.")))
    assert run(*command) == Result(6, "", "Stop the other.\n")


def test_what_nobody_expected_is_a_short_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "set_up", raising(ZeroDivisionError("over")))
    assert run("setup") == Result(
        1, "", "Unexpected ZeroDivisionError: over (log.level = 'debug' shows where).\n"
    )


def test_a_traceback_shows_at_level_debug_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "set_up", raising(ZeroDivisionError("over")))
    monkeypatch.setenv("KIVA_STREAM__LOG__LEVEL", "debug")
    assert "Traceback" in run("setup").err


def test_secrets_and_addresses_stay_out_of_errors(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIVA_STREAM__LOG__LEVEL", "debug")
    monkeypatch.setattr(setup, "set_up", raising(ValueError(f"{TOKEN} of anna@example.com")))
    err = run("setup").err
    assert "*** of a***@example.com" in err
    assert "4711" not in err
    assert "anna@" not in err


@pytest.mark.parametrize(
    "command",
    [("status",), ("plan", "--since", "day1"), ("sync", "--customer", "1"), ("backfill",), ("follow",)],
    ids=lambda command: command[0],
)
def test_without_settings_a_command_says_which_are_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    for name in ENVIRON:
        monkeypatch.delenv(name)
    result = run(*command)
    assert (result.code, result.out) == (2, "")
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
    assert path.read_text() == documentation.example()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_init_replaces_a_file_only_when_told_to(run: Run, tmp_path: Path) -> None:
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
def test_check_shows_a_line_each_and_leaves_with_7_when_it_found_something(
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
def test_backfill_and_plan_are_asked_what_the_options_say(
    run: Run, backfills: Backfills, arguments: tuple[str, ...], request_: BackfillRequest
) -> None:
    assert run("plan", *arguments).code == 0
    assert (backfills.planned, backfills.requests) == ([request_], [])
    assert run("backfill", *arguments).code == 0
    assert (backfills.planned, backfills.requests) == ([request_], [request_])


def test_a_plan_shows_what_a_backfill_would_do(run: Run, backfills: Backfills) -> None:
    text = words(run("plan", "--since", "day1").out)
    for part in (
        "reads from 0:0 to 77:1234",
        "entries 1,010",
        "events about 505 customers",
        "customers 90 with an address",
        "orders 1,430 paid",
        "time about 15 min 00 s at the limits in the settings: ",
        "orders 2 min 24 s, events 12 min 00 s, tags 0.0 s",
        "a new week up to 19 min 48 s until every week tag is right again",
        "Entries (about, from 202 of them) event 505 noise 300 sync only 200 reject 5",
        "Events (about) Logged in 305 Order Completed 200",
        "Dead letters (about) no_email 5",
        "Requests (about) POST /event 505 POST /ecom/graphql 29 POST /import/bulk_import 1",
    ):
        assert part in text
    assert "week tags" not in text


def test_a_plan_says_what_differs_when_a_checkpoint_is_there(run: Run, backfills: Backfills) -> None:
    backfills.answer = replace(PLAN, resumes=True, tags_due=2_000, events_since=MOMENT)
    text = words(run("plan").out)
    for part in (
        "reads on from 0:0 to 77:1234",
        "events about 505, of entries since 2018-03-04 17:02:10+00:00",
        "week tags 2,000 may have to be swapped",
    ):
        assert part in text


def test_a_plan_says_when_orders_are_too_many_to_count(run: Run, backfills: Backfills) -> None:
    backfills.answer = replace(PLAN, orders=None)
    assert "orders not counted: that takes too long" in words(run("plan").out)


def test_a_plan_of_nothing_to_read_has_no_empty_tables(run: Run, backfills: Backfills) -> None:
    backfills.answer = replace(PLAN, entries=0, sampled=0, classes={}, events={}, dead={}, requests={})
    out = run("plan").out
    assert "events about 0" in words(out)
    assert "(about" not in out


def test_a_plan_as_json_is_one_object_with_all_figures(run: Run, backfills: Backfills) -> None:
    result = run("plan", "--json")
    assert result.code == 0
    assert json.loads(result.out) == msgspec.to_builtins(PLAN)


def test_off_a_terminal_backfill_does_not_ask_and_logs_its_progress(run: Run, backfills: Backfills) -> None:
    result = run("backfill", "--since", "day1")
    lines = [json.loads(line) for line in result.err.splitlines()]
    assert [line["phase"] for line in lines] == list(PHASES)
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
    for far in ("90 of 90", "400 of 411", "1,010 of 1,010", "those that differ"):
        assert far in accepted.err


def test_on_a_terminal_yes_answers_the_question(run: Run, backfills: Backfills) -> None:
    assert "about 505" in run("backfill", "--yes", on_terminal=True).out
    assert len(backfills.requests) == 1


def test_a_dry_run_shows_the_plan_and_sends_nothing(run: Run, backfills: Backfills) -> None:
    result = run("backfill", "--since", "day1", "--dry-run", "--yes")
    assert result.code == 0
    assert all(
        figure in result.out for figure in ("1,010", "about 505", "1,430", "about 15 min", "0:0 to 77:1234")
    )
    assert backfills.requests == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_backfill_says_how_to_go_on_and_leaves_with_its_signal(
    run: Run, backfills: Backfills, number: int, code: int
) -> None:
    backfills.summary = Summary(EQUATION, 10, 1.0, {}, {}, {}, stopped_by=number)
    result = run("backfill")
    assert result.code == code
    assert "run the same command again" in result.out


def test_a_backfill_that_cannot_read_on_says_why(run: Run, backfills: Backfills) -> None:
    backfills.summary = replace(SUMMARY, obstacle="A transaction of pid 42 is open.")
    result = run("backfill")
    assert result.code == 0
    assert result.out.endswith("A transaction of pid 42 is open.\n")


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ((), (None, False)),
        (("--since", "day1"), (DAY1, False)),
        (("--since", "2018-03-04"), (date(2018, 3, 4), False)),
        (("--since", "7:8", "--wait"), (Position(7, 8), True)),
        (("--wait",), (None, True)),
    ],
)
def test_follow_is_asked_what_the_options_say(
    run: Run, follows: Follows, arguments: tuple[str, ...], asked: tuple[Bound | None, bool]
) -> None:
    assert run("follow", *arguments) == Result(0, "", "")
    assert follows.asked == [asked]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_drained_follow_is_done_after_sigterm_and_interrupted_after_ctrl_c(
    run: Run, follows: Follows, number: int, code: int
) -> None:
    follows.stopping.signal = number
    assert run("follow") == Result(code, "", "")


def test_a_follow_that_a_second_signal_cut_short_is_not_done(run: Run, follows: Follows) -> None:
    follows.stopping.was_cut_short = True
    assert run("follow").code == 128 + signal.SIGTERM


def test_a_follow_that_does_not_drain_in_time_is_unexpected(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = ExceptionGroup("", [errors.DrainTimeoutError("Run it again.")])
    monkeypatch.setattr(following, "follow", raising(late))
    assert run("follow") == Result(1, "", "Run it again.\n")


@pytest.mark.parametrize("option", ["--since", "--wait"])
def test_the_help_of_follow_says_what_its_options_are_for(run: Run, option: str) -> None:
    said = words(run("follow", "--help").out)
    assert {
        "--since": "--since day1|DATE|POSITION Where to begin, when there is no checkpoint yet.",
        "--wait": "--wait Wait while another process holds the site, and then go on.",
    }[option] in said


@pytest.mark.parametrize(("text", "customer"), [("1", 1), ("1001", 1001), (str(2**63 - 1), 2**63 - 1)])
def test_a_trial_is_of_the_customer_that_was_named(
    run: Run, tried: Trials, text: str, customer: CustomerId
) -> None:
    assert run("sync", "--customer", text).code == 0
    assert tried.customers == [customer]


def test_a_trial_shows_what_became_of_the_customer(run: Run, tried: Trials) -> None:
    result = run("sync", "--customer", "1001")
    assert (result.code, result.err) == (0, "")
    assert [words(line) for line in result.out.splitlines()] == [
        "customer 1001",
        "contact sent, contact 17 at ActiveCampaign",
        "at https://account.activehosted.com/app/contacts/17",
        "Kiva Status active",
        "Kiva Cancel Date (empty)",
        "all customers subscribed",
        "week tag open order",
        "orders 33 sent, 1 refused",
        "order 4711 refused 422 finalAmount",
        "",
        "Requests",
        "POST /ecom/graphql 1",
    ]


def test_a_trial_of_a_contact_that_was_right_says_so(run: Run, tried: Trials) -> None:
    tried.answer = replace(TRIAL, sent=False, orders={"unchanged": 33}, refusals={}, tag=None, requests={})
    text = words(run("sync", "--customer", "1001").out)
    assert "contact unchanged, contact 17 at ActiveCampaign" in text
    assert text.endswith("week tag not known orders 33 unchanged")


def test_a_trial_of_a_customer_without_paid_orders_says_so(run: Run, tried: Trials) -> None:
    tried.answer = replace(TRIAL, orders={}, refusals={})
    assert "orders none that is paid" in words(run("sync", "--customer", "1001").out)


@pytest.mark.parametrize(("why", "said"), [("ac_rejected", "rejected: ac_rejected"), ("", "rejected")])
def test_a_trial_of_a_contact_that_is_refused_says_why(run: Run, tried: Trials, why: str, said: str) -> None:
    tried.answer = replace(
        TRIAL, contact="rejected", why=why, ac_contact_id=None, url=None, fields={}, list_status="", tag=None
    )
    result = run("sync", "--customer", "1001")
    assert result.code == 0
    assert [words(line) for line in result.out.splitlines()][1:3] == [f"contact {said}", "week tag not known"]


def test_a_trial_as_json_is_one_object(run: Run, tried: Trials) -> None:
    assert json.loads(run("sync", "--customer", "1001", "--json").out) == msgspec.to_builtins(TRIAL)


def test_status_shows_the_equation_and_its_parts(run: Run, statuses: Statuses) -> None:
    text = words(run("status").out)
    for part in (
        "1,010 entries read = 500 delivered + 200 synced + 294 skipped + 6 dead + 10 pending + 0 parked",
        "counted from 0:0",
        "no_email 6",
        "Logged in 300",
        "Orders sent 411 refused 2",
        "bad_data 3",
        "watermark 77:1000",
        "last commit 2018-03-04 17:02:10+00:00 lag at most 4.3 s",
        "week tags none due",
    ):
        assert part in text


def test_status_as_json_has_the_figures_under_their_names(run: Run, statuses: Statuses) -> None:
    statuses.answer = replace(STATUS, tags_due=2_000, tags_left_s=880.0)
    answer = json.loads(run("status", "--json").out)
    assert answer["equation"]["entries_read"] == 1010
    assert answer["equation"]["dead"] == {"no_email": 6}
    assert answer["watermark"] == "77:1000"
    assert answer["orders"] == {"sent": 411, "refused": 2}
    assert (answer["tags_due"], answer["tags_left_s"], answer["lag_s"]) == (2_000, 880.0, 4.26)


@pytest.mark.parametrize(
    ("left_s", "said"),
    [
        (0.44, "0.4 s"),
        (59.6, "1 min 00 s"),
        (75, "1 min 15 s"),
        (4_400, "1 h 13 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_status_says_how_many_week_tags_are_due_and_how_long_they_take(
    run: Run, statuses: Statuses, left_s: float, said: str
) -> None:
    statuses.answer = replace(STATUS, tags_due=20_000, tags_left_s=left_s)
    assert f"week tags 20,000 due, for about {said} now" in words(run("status").out)


def test_status_before_the_first_commit_says_so(run: Run, statuses: Statuses) -> None:
    statuses.answer = replace(STATUS, committed_at=None, lag_s=None)
    assert "last commit none yet" in words(run("status").out)


def test_status_shows_what_is_wrong_since_when_and_why(run: Run, statuses: Statuses) -> None:
    statuses.answer = STATUS
    assert "trouble: key since 2018-03-04 17:02:10+00:00: 403 Forbidden" in words(run("status").out)


def test_a_summary_shows_breaches_only_of_the_sandbox(run: Run, backfills: Backfills) -> None:
    assert "0 breaches" in run("backfill").out
    backfills.summary = Summary(EQUATION, 10, 1.0, {}, {}, {})
    assert "breaches" not in run("backfill").out
    backfills.summary = Summary(EQUATION, 10, 1.0, {}, {}, {}, breaches={"rate_limit": 3, "schema": 0})
    assert "3 breaches of ActiveCampaign's limits and contract, rate_limit 3" in run("backfill").out


def test_requests_an_entry_are_shown_by_endpoint(run: Run, backfills: Backfills) -> None:
    assert "POST /import/bulk_import 5 0.0050" in words(run("backfill").out)


def test_rows_of_nothing_are_not_shown(run: Run, backfills: Backfills) -> None:
    out = words(run("backfill").out)
    assert "Contacts linked 88 rejected 2 Orders sent 411 Skipped" in out


def test_the_equation_adds_up() -> None:
    parts = (
        EQUATION.delivered + EQUATION.synced + sum(EQUATION.skipped.values()) + sum(EQUATION.dead.values())
    )
    assert EQUATION.entries_read == parts + EQUATION.pending + EQUATION.parked == 1010


@pytest.mark.parametrize(
    "command", [("sandbox",), ("demo",), ("drill",), ("generate", "--entries", "1", "--dsn", "x")]
)
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


DIED_AT = datetime(2026, 11, 26, 2, 5, tzinfo=UTC)
LETTER = DeadLetterRow("734:12345", "no_email", "5123", 0, DIED_AT, "", "discarded")
REFUSED = DeadLetterRow("order:881", "order_invalid", None, None, None, "its total is negative")


class DeadLetters:
    """Stands for the commands on dead letters: notes what they were asked, and answers."""

    def __init__(self) -> None:
        self.asked: list[DeadLetterRequest] = []
        self.limits: list[tuple[int, bool]] = []

    async def dead_letters(
        self, _: Settings, request: DeadLetterRequest, limit: int, *, oldest_first: bool
    ) -> DeadLetterList:
        self.asked.append(request)
        self.limits.append((limit, oldest_first))
        return DeadLetterList(5, [ReasonCount("no_email", 4, 2, 1)], [LETTER, REFUSED])

    async def show(self, _: Settings, place: Place) -> DeadLetterDetails:
        entry = {} if place == OrderId(881) else {"message": "Subscription paused"}
        return DeadLetterDetails(LETTER, entry, "dead: no_email", "Give it an address.")

    async def replay(self, _: Settings, request: DeadLetterRequest) -> ReplayReport:
        self.asked.append(request)
        return ReplayReport(3, {"delivered": 2, "dead no_email": 1} if request.places else None)

    async def count(self, _: Settings, request: DeadLetterRequest) -> int:
        self.asked.append(request)
        return 1_234

    async def discard(self, _: Settings, request: DeadLetterRequest) -> DiscardReport:
        self.asked.append(request)
        return DiscardReport(1_234)


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> DeadLetters:
    fake = DeadLetters()
    monkeypatch.setattr(listing, "list_dead_letters", fake.dead_letters)
    monkeypatch.setattr(details, "show_dead_letter", fake.show)
    monkeypatch.setattr(replay, "replay", fake.replay)
    monkeypatch.setattr(discard, "count_undiscarded", fake.count)
    monkeypatch.setattr(discard, "discard", fake.discard)
    return fake


def test_dead_letters_are_listed_with_their_reasons_and_marks(run: Run, letters: DeadLetters) -> None:
    out = words(run("dead-letters", "list").out)
    assert "5 dead letters Reason letters replay asked discarded no_email 4 2 1 place reason" in out
    assert "734:12345 no_email 5123 0 2026-11-26 02:05:00+00:00 discarded" in out
    assert "order:881 order_invalid its total is negative 3 more" in out
    run("dead-letters", "list", "--reason", "no_email", "--customer", "7", "--limit", "3", "--oldest")
    assert letters.asked == [DeadLetterRequest(), DeadLetterRequest(Reason.NO_EMAIL, CustomerId(7))]
    assert letters.limits == [(100, False), (3, True)]


def test_a_dead_letter_is_shown_with_its_entry_and_what_to_do(run: Run, letters: DeadLetters) -> None:
    out = words(run("dead-letters", "show", "734:12345").out)
    assert "message Subscription paused now dead: no_email to do Give it an address." in out
    assert "does not have it any more" in run("dead-letters", "show", "order:881").out


def test_a_replay_says_what_became_of_them_or_who_does_it(run: Run, letters: DeadLetters) -> None:
    out = words(run("dead-letters", "replay", "734:12345", "order:881").out)
    assert "3 dead letters are to be replayed Became delivered 2 dead no_email 1" in out
    assert "at its next poll" in run("dead-letters", "replay", "--reason", "no_email").out
    assert letters.asked[0].places == (Position(734, 12345), OrderId(881))


@pytest.mark.parametrize("command", ["replay", "discard"])
@pytest.mark.parametrize("which", [(), ("--all", "7:8"), ("--all", "--reason", "no_email")])
def test_which_letters_are_meant_has_to_be_said_in_one_way(
    run: Run, letters: DeadLetters, command: str, which: tuple[str, ...]
) -> None:
    result = run("dead-letters", command, *which)
    assert (result.code, letters.asked) == (2, [])
    assert "--all" in result.err


def test_an_unknown_reason_or_place_is_told_what_there_is(run: Run) -> None:
    assert "no_contact, wrong_site, ac_rejected" in words(run("dead-letters", "list", "--reason", "x").err)
    for place in ("881", "order:x", f"order:{2**63}", "7:"):
        assert "order:ID" in run("dead-letters", "show", place).err


def test_on_a_terminal_a_discard_asks_first(
    run: Run, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def confirm(text: str) -> bool:
        asked.append(text)
        return len(asked) > 1

    monkeypatch.setattr("typer.confirm", confirm)
    discard = ("dead-letters", "discard", "--all")
    assert run(*discard, on_terminal=True).out == ""
    assert "1,234 dead letters discarded" in run(*discard, on_terminal=True).out
    assert asked == ["Discard 1,234 dead letters?"] * 2
    assert "1,234" in run(*discard, "--yes", on_terminal=True).out


class Rewinds:
    """Stands for a rewind: notes what it is asked, and answers."""

    def __init__(self) -> None:
        self.previewed: list[RewindRequest] = []
        self.done: list[RewindRequest] = []

    def answer(self, request: RewindRequest, *, is_done: bool) -> RewindReport:
        horizon = request.to.txid > 0
        above = 12 if horizon else None
        to = str(request.to)
        return RewindReport(
            "900:90", to, request.resend, above, above, None, horizon=horizon, is_done=is_done
        )

    async def preview(self, _: Settings, request: RewindRequest) -> RewindReport:
        self.previewed.append(request)
        return self.answer(request, is_done=False)

    async def rewind(self, _: Settings, request: RewindRequest) -> RewindReport:
        self.done.append(request)
        return self.answer(request, is_done=True)


@pytest.fixture
def rewound(monkeypatch: pytest.MonkeyPatch) -> Rewinds:
    fake = Rewinds()
    monkeypatch.setattr(rewinds, "preview", fake.preview)
    monkeypatch.setattr(rewinds, "rewind", fake.rewind)
    return fake


def test_a_rewind_is_asked_what_the_options_say(run: Run, rewound: Rewinds) -> None:
    run("rewind", "--to", "day1", "--events-since", "2018-03-04")
    run("rewind", "--to", "7:8", "--resend", "--events-since", "none")
    assert rewound.done == [
        RewindRequest(DAY1, events_since=date(2018, 3, 4)),
        RewindRequest(Position(7, 8), resend=True, forget_events_since=True),
    ]


def test_a_rewind_says_what_it_did(run: Run, rewound: Rewinds) -> None:
    out = words(run("rewind", "--to", "7:8").out)
    assert "moved from 900:90 back to 7:8 deliveries above it 12 kept: not sent again" in out
    assert "12 removed: sent again" in run("rewind", "--to", "7:8", "--resend").out
    assert "0:ID" in run("rewind", "--to", "0:8").out


def test_on_a_terminal_a_rewind_shows_what_it_would_do_and_asks(
    run: Run, rewound: Rewinds, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True])
    monkeypatch.setattr("typer.confirm", lambda _: next(answers))
    assert "moves from 900:90" in words(run("rewind", "--to", "7:8", on_terminal=True).out)
    assert rewound.done == []
    assert "moved from 900:90" in words(run("rewind", "--to", "7:8", on_terminal=True).out)
    assert (len(rewound.previewed), len(rewound.done)) == (2, 1)
