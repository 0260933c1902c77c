"""`plan`, `backfill`, `follow` and `status` on the command line."""

from __future__ import annotations

import json
import signal
from datetime import date

import msgspec
import pytest
from msgspec.structs import replace

from kiva_stream import errors
from kiva_stream.commands import backfill as history
from kiva_stream.commands import follow as following
from kiva_stream.commands import plan as plans
from kiva_stream.commands import status
from kiva_stream.commands.backfill_report import BackfillRequest, Summary
from kiva_stream.commands.held import HeldRow
from kiva_stream.commands.plan import BackfillPlan
from kiva_stream.commands.status import StartReport, StatusReport
from kiva_stream.model.bounds import Bound
from kiva_stream.model.incidents import Incident
from kiva_stream.model.positions import DAY1, Position
from kiva_stream.observability.progress import OnProgress, Progress
from kiva_stream.runtime.shutdown import GracefulShutdown
from kiva_stream.settings.sections import Settings
from tests.unit.cli.command_line import EQUATION, MOMENT, Result, Run, raising, words

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
    not_on_list={"other list": 4_100},
    orders={"sent": 411, "refused": 2},
    tags_due=0,
    tags_left_s=0.0,
    notes={"bad_data": 3},
    incidents=[Incident("key", MOMENT, "403 Forbidden")],
    held=[HeldRow("order:7", ["17"], MOMENT, 3, None, parked=2, reply="500 for order 7")],
    erased=[],
    held_by="shop pid 7",
    held_since=MOMENT,
    committed_at=MOMENT,
    updated_at=MOMENT,
    lag_s=4.26,
)


class Backfills:
    """Stands for backfill and plan: notes what they were asked, tells of progress, answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[BackfillRequest] = []
        self.planned: list[BackfillRequest] = []
        self.waits: list[bool] = []
        self.summary = SUMMARY
        self.answer = PLAN

    async def plan(self, _: Settings, request: BackfillRequest) -> BackfillPlan:
        self.planned.append(request)
        return self.answer

    async def backfill(
        self, _: Settings, request: BackfillRequest, hook: OnProgress, *, wait: bool
    ) -> Summary:
        self.requests.append(request)
        self.waits.append(wait)
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


class Statuses:
    """Stands for reading the state schema: answers `answer`."""

    def __init__(self) -> None:
        self.answer: StatusReport | StartReport = STATUS

    async def status(self, _: Settings) -> StatusReport | StartReport:
        return self.answer


@pytest.fixture
def statuses(monkeypatch: pytest.MonkeyPatch) -> Statuses:
    fake = Statuses()
    monkeypatch.setattr(status, "status", fake.status)
    return fake


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
def test_backfill_and_plan_get_the_bounds_of_their_options(
    run: Run, backfills: Backfills, arguments: tuple[str, ...], request_: BackfillRequest
) -> None:
    assert run("plan", *arguments).code == 0
    assert (backfills.planned, backfills.requests) == ([request_], [])
    assert run("backfill", *arguments).code == 0
    assert (backfills.planned, backfills.requests) == ([request_], [request_])


def test_a_backfill_waits_for_the_site_only_if_told_to(run: Run, backfills: Backfills) -> None:
    assert (run("backfill").code, run("backfill", "--wait").code) == (0, 0)
    assert backfills.waits == [False, True]


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
def test_a_stopped_backfill_says_how_to_go_on_and_exits_with_its_signal(
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
def test_follow_gets_the_start_and_the_wait_of_its_options(
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


def test_a_follow_that_a_second_signal_cut_short_exits_with_the_signal(run: Run, follows: Follows) -> None:
    follows.stopping.was_cut_short = True
    assert run("follow").code == 128 + signal.SIGTERM


def test_a_follow_that_does_not_drain_in_time_exits_with_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
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
        "4,100 contacts may not be on the list: the account has another list than before; move the old one's",
    ):
        assert part in text


def test_status_as_json_has_the_figures_under_their_names(run: Run, statuses: Statuses) -> None:
    statuses.answer = replace(STATUS, tags_due=2_000, tags_left_s=880.0)
    answer = json.loads(run("status", "--json").out)
    assert answer["equation"]["entries_read"] == 1010
    assert answer["equation"]["dead"] == {"no_email": 6}
    assert answer["watermark"] == "77:1000"
    assert answer["orders"] == {"sent": 411, "refused": 2}
    assert answer["not_on_list"] == {"other list": 4_100}
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


def test_status_before_the_first_commit_says_none_yet(run: Run, statuses: Statuses) -> None:
    statuses.answer = replace(STATUS, committed_at=None, lag_s=None)
    assert "last commit none yet" in words(run("status").out)


def test_status_shows_what_is_wrong_since_when_and_why(run: Run, statuses: Statuses) -> None:
    statuses.answer = STATUS
    assert "trouble: key since 2018-03-04 17:02:10+00:00: 403 Forbidden" in words(run("status").out)


def test_status_before_the_first_checkpoint_shows_the_incident_and_the_holder(
    run: Run, statuses: Statuses
) -> None:
    statuses.answer = StartReport("1", "start", STATUS.incidents, "shop pid 7", MOMENT, MOMENT)
    out = words(run("status").out)
    assert f"held by shop pid 7, since {MOMENT}" in out
    assert "phase start: there is no checkpoint yet" in out
    assert "trouble: key since 2018-03-04 17:02:10+00:00: 403 Forbidden" in out
    answer = json.loads(run("status", "--json").out)
    assert (answer["phase"], answer["held_by"], answer["troubles"][0]["kind"]) == (
        "start",
        "shop pid 7",
        "key",
    )


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
