"""Following: what comes of what happens in a shop, and how a run of the service ends. Time is virtual."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from kiva_stream.commands import follow
from kiva_stream.commands.follow import FOR_EVER, FollowRun
from kiva_stream.errors import AccountRefused, CheckpointError, HeldError, SourceError
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.customers import Customer
from kiva_stream.model.entries import Change, Changes, Entry, ReopenedEntries
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.observability.incidents import Incidents
from kiva_stream.observability.logs import ThrottledWarning
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.runtime import log_tail
from kiva_stream.runtime.log_tail import HIDES_FOR_S, LogTail
from kiva_stream.runtime.shop import Shop
from kiva_stream.runtime.start_position import Start
from kiva_stream.settings.sections import PipelineSettings, SourceSettings
from tests.fakes import SITE, FakeLog, account, customer, entry, moment, position, raises_one, settings
from tests.virtual_time import now, run

POLL_S = 20.0
SWEEP_S, ROUND_S, IN_FLIGHT_S = 10.0, 95.0, 3.0
PATIENCE_S = 130.0  # without a poll: half a minute, two polls, and a minute for a customer to appear
ANN, BOB = customer(1), customer(2)
row = partial(entry, who=ANN)
UNUSED: Any = None


@pytest.fixture(autouse=True)
def _virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (follow, log_tail):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=now))
    monkeypatch.setattr(log_tail, "ThrottledWarning", partial(ThrottledWarning, clock=now))


def second() -> float:
    """Return how long the story has lasted."""
    return round(now() - 1_000, 1)


def second_of(when: datetime) -> float:
    """Return at which second of the story a moment is."""
    return round((when - moment(0)).total_seconds(), 1)


def source_settings(**changes: object) -> SourceSettings:
    required = SourceSettings(dsn="postgresql://shop", site_id=SITE.id, poll_interval_s=POLL_S)
    return replace(required, **changes)


class GrowingLog(FakeLog):
    """Stands for SystemLog, two entries a page: keeps customers as they were read, until it forgets them."""

    def __init__(self, *entries: Entry) -> None:
        super().__init__(entries, page_rows=2)
        self.why: str | None = None  # it cannot be read on
        self.hangs = False  # before it says how far it may be read
        self._cache: dict[Any, Any] = {}

    def forget_customers(self) -> None:
        self._cache.clear()

    async def mark(self) -> HighWaterMark:
        await (anyio.sleep_forever() if self.hangs else anyio.lowlevel.checkpoint())
        return HighWaterMark(self.entries[-1].position if self.entries else DAY1, moment(0))

    async def obstacle(self, _after: Position) -> str | None:
        await anyio.lowlevel.checkpoint()
        return self.why

    def as_now(self, row: Entry) -> Entry:
        fresh = super().as_now(row).customer
        return replace(row, customer=self._cache.setdefault(row.customer_id, fresh))


class GrowingChanges:
    """Stands for ChangeLog: a list for each change. `asked` is since which second, at each look."""

    def __init__(self) -> None:
        self.rows: list[Change] = []
        self.asked: list[float] = []

    async def now(self) -> datetime:
        await anyio.lowlevel.checkpoint()
        return moment(now() - 1_000)

    async def since(self, when: datetime) -> AsyncIterator[list[Change]]:
        self.asked.append(second_of(when))
        for each in [each for each in self.rows if each.changed_at >= when]:
            await anyio.lowlevel.checkpoint()
            yield [each]


class Story:
    """A shop in which things happen, each at its second, while somebody works."""

    def __init__(self, *entries: Entry) -> None:
        self.log, self.changes = GrowingLog(*entries), GrowingChanges()
        self.source: tuple[Any, Any] = self.log, self.changes
        self.ended_at = 0.0
        self._planned: list[tuple[float, Callable[..., object], tuple[Any, ...]]] = []

    def at(self, when_s: float, what: Callable[..., object], *arguments: object) -> None:
        self._planned.append((when_s, what, arguments))

    def change_at(self, when_s: float, who: Customer, updated_s: float) -> None:
        self.at(when_s, self.changes.rows.append, Change(who, moment(updated_s)))

    async def play(self, work: Awaitable[None]) -> None:
        for when_s, what, arguments in self._planned:
            asyncio.get_running_loop().call_later(when_s, what, *arguments)
        try:
            with anyio.fail_after(10_000):
                await work
        finally:
            self.ended_at = second()


class Followed(Story):
    """Followed by one who needs `takes_s` for each page: `came` is what came, in order, with its second.

    Of a poll that is what was heard, of an entry its place and customer, of a change its customer.
    """

    def __init__(self, *entries: Entry, for_s: float = 90, takes_s: float = 0, **changes: object) -> None:
        super().__init__(*entries)
        self.came: list[tuple[float, str, Any]] = []
        self.asides: list[ReopenedEntries] = []
        self.troubles = Incidents()
        self._takes_s = takes_s
        self.following = LogTail(
            *self.source,
            source_settings(**changes),
            moment(0),
            for_s,
            self._heard,
            self._asides,
            self.troubles,
        )

    def run(self, after: Position = DAY1) -> None:
        run(self.play(self._follow(after)))

    def all(self, kind: str) -> list[tuple[float, Any]]:
        return [(when, what) for when, each, what in self.came if each == kind]

    async def _asides(self, _until: Position) -> AsyncIterator[ReopenedEntries | Changes]:
        for each in self.asides:
            yield each

    async def _heard(self, read_at: datetime | None) -> None:
        await anyio.lowlevel.checkpoint()
        self.came.append((second(), "poll", read_at and second_of(read_at)))

    async def _follow(self, after: Position) -> None:
        async for page in self.following.pages(after, FOR_EVER):
            if isinstance(page, Changes):
                self.came += [(second(), "change", each.customer) for each in page.changes]
            elif isinstance(page, ReopenedEntries):
                self.came.append((second(), "asides", page))
            else:
                self.came += [(second(), "entry", (each.position.txid, each.customer)) for each in page]
            await anyio.sleep(self._takes_s)


def test_what_comes_outside_the_logs_order_comes_at_every_poll_before_the_entries() -> None:
    shop = Followed(row(1), for_s=30)
    shop.asides = [ReopenedEntries([position(9)], [])]
    shop.run()
    kinds = [(when, kind) for when, kind, _ in shop.came if kind != "poll"]
    assert kinds == [(0, "asides"), (0, "entry"), (20, "asides")]


def test_entries_above_where_it_begins_come_in_log_order_over_the_polls_and_each_once() -> None:
    shop = Followed(*map(row, range(1, 6)))
    shop.at(5, shop.log.entries.extend, [row(6), row(7)])
    shop.at(45, shop.log.entries.append, row(8))
    shop.run(after=position(2))
    places = [(when, place) for when, (place, _) in shop.all("entry")]
    assert places == [(0, 3), (0, 4), (0, 5), (20, 6), (20, 7), (60, 8)]


def test_an_entry_comes_with_its_customer_as_at_its_own_poll() -> None:
    shop = Followed(row(1))
    moved = replace(ANN, email="new@example.org")
    shop.at(5, shop.log.entries.append, row(2))
    shop.at(5, setattr, shop.log, "people", {ANN.id: account(moved)})
    shop.run()
    assert shop.all("entry") == [(0, (1, ANN)), (20, (2, moved))]


def test_polls_keep_their_interval_however_long_the_pages_take_until_they_take_longer() -> None:
    shop = Followed(row(1), takes_s=15)
    shop.at(30, shop.log.entries.extend, map(row, range(2, 6)))  # two pages: half a minute
    shop.run()
    assert [when for when, _ in shop.all("poll")] == [0, 20, 40, 70]


def test_following_ends_with_the_poll_in_which_its_time_is_over() -> None:
    shop = Followed(for_s=41)
    shop.run()
    assert (len(shop.all("poll")), shop.ended_at) == (3, 60)


def test_a_poll_hears_none_at_first_then_when_the_look_was_whose_entries_are_all_out() -> None:
    shop = Followed(row(1), row(2), row(3), for_s=50, takes_s=5)  # what is committed meanwhile was not read
    shop.at(2, shop.log.entries.append, row(4))
    shop.run()
    assert shop.all("poll") == [(0, None), (20, 0), (40, 20)]
    assert [kind for _, kind, _ in shop.came] == ["poll", *["entry"] * 3, "poll", "entry", "poll"]


# Changes


def test_what_the_shop_changed_comes_before_the_entries_of_the_same_poll() -> None:
    shop = Followed(row(1), for_s=30)
    shop.changes.rows.append(Change(ANN, moment(0.5)))
    shop.change_at(5, BOB, 4.5)
    shop.at(5, shop.log.entries.append, row(2))
    shop.run()
    assert [kind for _, kind, _ in shop.came] == ["poll", "change", "entry"] * 2


def test_a_change_comes_once_although_its_row_is_looked_at_again() -> None:
    shop = Followed()
    shop.change_at(6, ANN, 5.5)
    shop.change_at(26, ANN, 25.5)  # another one
    shop.run()
    assert shop.all("change") == [(20, ANN), (40, ANN)]
    assert sum(since <= 5.5 for since in shop.changes.asked) == 4  # of five looks


@pytest.mark.parametrize(("updated_s", "came_s"), [(35.5, 60), (1.5, 80)])
def test_a_change_whose_commit_is_late_comes_at_once_or_with_the_next_full_look_back(
    updated_s: float, came_s: float
) -> None:
    shop = Followed()
    shop.change_at(45, ANN, updated_s)  # the last look was at 40
    shop.run()
    assert shop.all("change") == [(came_s, ANN)]


def test_what_is_changed_while_changes_are_out_is_found_without_any_overlap() -> None:
    shop = Followed(updated_overlap_s=0, takes_s=5)
    shop.change_at(6, ANN, 5.5)
    shop.change_at(22, BOB, 21.5)  # Ann's change is out
    shop.run()
    assert shop.all("change") == [(20, ANN), (40, BOB)]


@pytest.mark.parametrize(("updated_s", "came"), [(0, [0.7, 30.1]), (0.1, [0.7])])
def test_a_change_of_a_whole_second_may_hide_another_until_the_next_full_look_back(
    updated_s: float, came: list[float]
) -> None:
    shop = Followed(for_s=45, poll_interval_s=0.7, updated_overlap_s=60)
    shop.change_at(0.2, ANN, updated_s)  # and again at 0.9, within the second: the row looks the same
    shop.run()
    assert [when for when, _ in shop.all("change")] == came


def test_a_change_of_a_whole_second_may_hide_another_however_short_the_overlap() -> None:
    shop = Followed(for_s=45, poll_interval_s=0.7, updated_overlap_s=20)
    shop.change_at(0.2, ANN, 0)
    shop.run()
    assert len(shop.all("change")) == 2


def test_a_change_of_a_whole_second_is_not_given_again_for_the_whole_overlap() -> None:
    shop = Followed(for_s=1_000, poll_interval_s=60, updated_overlap_s=3_600)
    shop.change_at(0.2, ANN, 0)
    shop.run()
    assert len(shop.all("change")) <= 1 + HIDES_FOR_S / 60


def test_changes_that_nobody_has_taken_yet_are_known_to_wait() -> None:
    shop = Followed(for_s=30)
    shop.changes.rows.append(Change(ANN, moment(0.5)))
    waits: list[bool] = []

    async def take() -> None:
        waits.extend([shop.following.is_giving async for _ in shop.following.pages(DAY1, FOR_EVER)])

    run(shop.play(take()))
    assert (waits, shop.following.is_giving) == ([True], False)


@pytest.mark.parametrize(
    ("overlap_s", "since"),
    [(3600, [-3600, -30, 20 - 3600, 10, 60 - 3600]), (10, [-10, -10, 10, 30, 50])],
)
def test_a_look_goes_back_half_a_minute_and_once_in_that_time_the_whole_overlap(
    overlap_s: float, since: list[float]
) -> None:
    shop = Followed(updated_overlap_s=overlap_s)
    shop.run()
    assert shop.changes.asked == since  # at 0, 20, 40, 60, 80: back from the look before


def test_what_was_given_is_remembered_for_the_overlap_only() -> None:
    shop = Followed(for_s=1_000, updated_overlap_s=100)
    remembered: list[int] = []
    for when in range(0, 970, 10):
        shop.change_at(when + 1, ANN, when + 0.5)
        shop.at(when + 2, lambda: remembered.append(len(shop.following._seen)))
    shop.run()
    assert len(shop.all("change")) == 97
    assert max(remembered) == 10


def held_up(for_s: float) -> Followed:
    shop = Followed(for_s=for_s, poll_interval_s=25, horizon_alarm_s=90)
    shop.log.why = "a lock"
    return shop


def warned(shop: Followed) -> list[float]:
    """Return for how long the log was held up at each warning."""
    with capture_logs() as lines:
        shop.run()
    return [line["for_s"] for line in lines if line["event"] == "the log is held up"]


def test_a_held_up_log_is_warned_of_when_it_lasts_and_then_at_most_once_a_minute() -> None:
    assert warned(held_up(for_s=90)) == []
    assert warned(held_up(for_s=260)) == [100, 175, 250]  # polls are every 25 s


def test_a_held_up_log_that_goes_on_for_a_bit_is_timed_anew() -> None:
    shop = held_up(for_s=190)
    shop.at(60, shop.log.entries.append, row(1))  # read at 75
    assert warned(shop) == [100]


def test_a_log_that_is_held_up_no_more_is_not_warned_of_and_timed_anew() -> None:
    shop = held_up(for_s=290)
    shop.at(130, setattr, shop.log, "why", None)
    shop.at(160, setattr, shop.log, "why", "a lock")  # seen at 175
    assert warned(shop) == [100, 100]


def test_a_log_that_is_held_up_is_a_trouble_until_it_is_read_on() -> None:
    shop = held_up(for_s=190)
    told: list[list[str]] = []
    for when_s in (99, 101, 149, 160):
        shop.at(when_s, lambda: told.append([each.why for each in shop.troubles.all()]))
    shop.at(120, setattr, shop.log, "why", "a clock")
    shop.at(151, shop.log.entries.append, row(1))  # read at 175
    shop.at(189, lambda: told.append([each.why for each in shop.troubles.all()]))
    shop.run()
    assert told == [
        [],
        ["a lock It has been seen for 100 s."],
        ["a clock It has been seen for 125 s."],
        ["a clock It has been seen for 150 s."],
        [],
    ]


# A run of the service


class FakeWork:
    """Stands for Store, and for Assembly and its parts but the pipeline. `did` is what was done, and when."""

    def __init__(self) -> None:
        self.ledger = self.contacts = self.orders = self.tags = self
        self.kept = SavedCheckpoint("account", "day1", None, DAY1, DAY1)
        self.did: list[tuple[float, str]] = []
        self.caught_up: list[float] = []
        self.is_free_at = 0.0  # until then, another process holds the site
        self.tags_fail_at = math.inf
        self.tags_fail_with: Exception = CheckpointError("gone")
        self.refused_until = 0.0  # as many answers show
        self.sweep_s = SWEEP_S
        self.spans: list[Any] = []  # of what came: it is pending

    @asynccontextmanager
    async def held(self, *_: object) -> AsyncIterator[FakeWork]:
        if second() < self.is_free_at:
            raise HeldError("another process")
        yield self

    async def asides(self, _until: Position) -> AsyncIterator[ReopenedEntries]:
        """Give what comes outside the log's order: nothing."""
        for _ in ():
            yield ReopenedEntries([], [])

    async def saved(self) -> SavedCheckpoint:
        return self.kept

    async def _nothing(self, *_: object, **__: object) -> None: ...

    open = begin_sweep = count_contacts = fetch = _nothing
    working = nullcontext

    async def set_phase(self, phase: str) -> None:
        self.note(phase)

    async def set_caught_up(self, when: datetime) -> None:
        self.caught_up.append(second_of(when))

    async def snapshot(self, *_: object) -> None:
        await anyio.sleep(self.sweep_s / 2)  # the contacts, then the orders
        if second() < self.refused_until:
            self.note("refused")
            raise AccountRefused("nobody is imported")

    async def run(self, _every_s: float) -> None:
        """Work the week tags."""
        await anyio.sleep(self.tags_fail_at - second())
        self.tags_fail_at = math.inf
        raise self.tags_fail_with

    async def pipeline(self, start: Start, log: LogTail) -> tuple[FakePipeline, Checkpoint]:
        return (pipeline := FakePipeline(self, start, log)), pipeline.checkpoint

    def note(self, what: str) -> None:
        self.did.append((second(), what))


class FakePipeline:
    """Stands for Pipeline: takes what comes until drained; then what is in flight takes a while."""

    def __init__(self, work: FakeWork, start: Start, log: LogTail) -> None:
        self._work, self._log, self._upstream = work, log, anyio.CancelScope()
        self.checkpoint = Checkpoint(UNUSED, start.after, window=9, max_in_flight=1, commit_interval_s=1)
        self.drain = self._upstream.cancel

    async def run(self, mark: HighWaterMark) -> None:
        with self._upstream:
            async for page in self._log.pages(self.checkpoint.position, mark):
                if isinstance(page, Changes):
                    self._work.note("changes")
                elif not isinstance(page, ReopenedEntries):
                    self._work.note(f"entries {[each.position.txid for each in page]}")
                    self._work.spans.append(await self.checkpoint.track(page[-1].position, 1))
                    self._work.kept = replace(self._work.kept, watermark=page[-1].position)
        await anyio.sleep(IN_FLIGHT_S)
        self._work.note("done")


class Service(Story):
    """A run of the service: it sweeps until 10, polls at 10, 30, 50 …, and sweeps again from 113 on."""

    def __init__(self) -> None:
        super().__init__()
        self.work = FakeWork()
        self.troubles = Incidents()
        self.looks_at: list[float] = []  # whether work goes on
        self.alive: list[bool] = []

    def drain_at(self, when_s: float) -> None:
        self.at(when_s, lambda: self._run.drain())  # noqa: PLW0108  it is not there yet

    async def watchdog(self, is_alive: Callable[[], bool]) -> None:
        for when_s in self.looks_at:
            await anyio.sleep(when_s - second())
            self.alive.append(is_alive())

    def run(self, *, wait: bool = False) -> None:
        run(self.play(self._go(wait=wait)))

    async def _go(self, *, wait: bool) -> None:
        source = source_settings(full_sweep_s=ROUND_S, updated_overlap_s=0)
        shop = Shop(SITE, UNUSED, UNUSED, UNUSED, *reversed(self.source))
        store: Any = self.work
        chosen = replace(settings(PipelineSettings()), source=source)
        self._run = FollowRun(chosen, shop, store, UNUSED, self.troubles)
        await self._run.go(None, wait=wait)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    monkeypatch.setattr("kiva_stream.observability.systemd.SystemdNotifier.watchdog", service.watchdog)
    monkeypatch.setattr(follow, "held", service.work.held)
    return service


def test_rounds_repeat_the_sweep_and_read_on_from_the_checkpoint(service: Service) -> None:
    service.log.entries.append(row(1))
    service.at(100, service.log.entries.append, row(2))
    service.drain_at(130)
    service.run()
    first = [(10, "follow"), (10, "entries [1]"), (113, "done")]
    assert service.work.did == [*first, (123, "follow"), (123, "entries [2]"), (133, "done")]


def test_what_is_changed_during_a_sweep_comes_after_it(service: Service) -> None:
    service.change_at(5, ANN, 4.5)
    service.drain_at(20)
    service.run()
    assert (10, "changes") in service.work.did


@pytest.mark.parametrize(("fails_at", "ended_at"), [(5, 5), (50, 53), (120, 120)])
def test_an_error_of_the_week_tags_ends_a_sweep_at_once_or_drains_the_pipeline_and_is_raised(
    service: Service, fails_at: float, ended_at: float
) -> None:
    service.work.tags_fail_at = fails_at
    with raises_one(CheckpointError):
        service.run()
    assert service.ended_at == ended_at


def test_a_round_that_activecampaign_refuses_is_begun_again_later_and_that_is_told_meanwhile(
    service: Service,
) -> None:
    service.work.refused_until = 500
    whys: list[list[str]] = []
    for when_s in (4, 100, 400, 700, 915):
        service.at(when_s, lambda: whys.append([each.why for each in service.troubles.all()]))
    service.drain_at(916)
    service.run()
    assert service.work.did[:3] == [(5, "refused"), (310, "refused"), (620, "follow")]
    assert whys == [[], ["nobody is imported"], ["nobody is imported"], ["nobody is imported"], []]


def test_week_tags_that_activecampaign_refuses_leave_the_entries_alone(service: Service) -> None:
    service.work.tags_fail_at, service.work.tags_fail_with = 20, AccountRefused("no tags")
    service.at(25, service.log.entries.append, row(1))
    kinds: list[list[str]] = []
    service.at(40, lambda: kinds.append([each.kind for each in service.troubles.all()]))
    service.drain_at(45)
    service.run()
    assert (30, "entries [1]") in service.work.did
    assert kinds == [["key"]]


def test_a_drain_ends_the_waiting_for_an_account_that_is_refused(service: Service) -> None:
    service.work.refused_until = 500
    service.drain_at(50)
    service.run()
    assert service.ended_at == 50


@pytest.mark.parametrize(("drained_at", "ended_at"), [(5, 5), (50, 53), (120, 120)])
def test_a_drain_ends_a_sweep_at_once_but_waits_for_what_the_pipeline_has_in_flight(
    service: Service, drained_at: float, ended_at: float
) -> None:
    service.drain_at(drained_at)
    service.run()
    assert service.ended_at == ended_at


def test_an_error_of_the_source_ends_the_run_whatever_else_goes_on(service: Service) -> None:
    service.log.entries.append(row(1))
    service.log.breaks_after = 0
    with raises_one(SourceError):
        service.run()
    assert service.ended_at == SWEEP_S


def test_a_run_is_alive_while_a_sweep_lasts_or_an_outcome_is_waited_for(service: Service) -> None:
    service.work.sweep_s = 1_000
    service.log.entries.append(row(1))
    service.at(1_001, setattr, service.log, "hangs", True)
    service.looks_at = [999, 1_500]
    service.drain_at(1_600)
    service.run()
    assert service.alive == [True, True]


def test_a_run_is_alive_while_changes_wait_to_be_taken(service: Service) -> None:
    service.at(25, setattr, service.log, "hangs", True)
    service.at(30, lambda: setattr(service._run._source, "is_giving", True))
    service.looks_at = [30 + PATIENCE_S + 1]
    service.drain_at(300)
    service.run()
    assert service.alive == [True]


def test_a_run_is_not_alive_when_nothing_is_waited_for_and_the_log_is_not_looked_at(service: Service) -> None:
    service.at(25, setattr, service.log, "hangs", True)  # the last poll is at 30
    service.looks_at = [30 + PATIENCE_S - 1, 30 + PATIENCE_S + 1]
    service.drain_at(300)
    service.run()
    assert service.alive == [True, False]


def test_it_is_caught_up_with_a_look_when_nothing_that_was_read_is_pending(service: Service) -> None:
    service.at(25, service.log.entries.append, row(1))  # read at 30, pending at 50, and not at 70
    service.at(55, lambda: setattr(service.work.spans[0], "pending", 0))
    service.drain_at(75)
    service.run()
    assert service.work.caught_up == [10, 50]


def test_a_held_site_is_refused_unless_it_is_to_be_waited_for(service: Service) -> None:
    service.work.is_free_at = 12
    with raises_one(HeldError):
        service.run()
    assert service.ended_at == 0


def test_a_held_site_is_waited_for_and_that_is_logged_once(service: Service) -> None:
    service.work.is_free_at = 12
    service.drain_at(50)
    with capture_logs() as lines:
        service.run(wait=True)
    assert [line["event"].split()[0] for line in lines] == ["waiting", "following"]
    assert service.work.did[0] == (15 + SWEEP_S, "follow")


def test_a_drain_ends_the_waiting_for_a_held_site(service: Service) -> None:
    service.work.is_free_at = 1_000
    service.drain_at(52)
    service.run(wait=True)
    assert service.ended_at == 52
