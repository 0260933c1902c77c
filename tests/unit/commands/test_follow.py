"""One run of the service: its rounds, how it ends, whether it is alive. In virtual time."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from functools import partial
from typing import Any

import anyio
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from kiva_stream.commands import follow
from kiva_stream.errors import AccountRefused, CheckpointError, HeldError, IdsChanged, SourceError
from kiva_stream.model.bounds import Bound
from kiva_stream.model.checkpoint import SavedCheckpoint
from kiva_stream.model.entries import Changes, ReopenedEntries
from kiva_stream.model.positions import DAY1, HighWaterMark
from kiva_stream.observability.incidents import Incidents
from kiva_stream.pipeline.checkpoint import Checkpoint
from kiva_stream.pipeline.dead_letter_replay import DeadLetterReplay
from kiva_stream.runtime import log_tail
from kiva_stream.runtime.log_tail import LogTail
from kiva_stream.runtime.shop import Shop
from kiva_stream.settings.sections import PipelineSettings
from kiva_stream.state.store import Store
from tests.support.entries import SITE, customer, entry
from tests.support.settings import settings
from tests.support.virtual_time import run
from tests.support.waiting import raises_one
from tests.unit.runtime.growing_shop import VIRTUAL_TIME, Story, second, second_of, source_settings

SWEEP_S, ROUND_S, IN_FLIGHT_S = 10.0, 95.0, 3.0
PATIENCE_S = 130.0  # without a poll: half a minute, two polls, and a minute for a customer to appear
ANN = customer(1)
row = partial(entry, who=ANN)
UNUSED: Any = None


@pytest.fixture(autouse=True)
def _virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (follow, log_tail):
        monkeypatch.setattr(module, "time", VIRTUAL_TIME)


class FakeWork:
    """Stands for Store, and for the held and working site and their parts but the pipeline.

    `did` is what was done, and when.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.held = self.ledger = self.contacts = self.orders = self.tags = self.ids_in_use = self
        self.kept = SavedCheckpoint("day1", None, DAY1)
        self.has_checkpoint = True
        self.did: list[tuple[float, str]] = []
        self.caught_up: list[float] = []
        self.is_free_at = 0.0  # until then, another process holds the site
        self.tags_fail_at = math.inf
        self.tags_fail_with: Exception = CheckpointError("gone")
        self.refused_until = 0.0  # as many answers show
        self.ids_change_at = math.inf  # until they are read anew
        self.orders_see_ids_at = math.inf  # a paused kind reads them at a probe
        self.sweep_s = SWEEP_S
        self.spans: list[Any] = []  # of what came: it is pending
        self.takes_changes_s = 0.0

    @asynccontextmanager
    async def hold_site(self, *_: object, **__: object) -> AsyncIterator[FakeWork]:
        if second() < self.is_free_at:
            raise HeldError("another process")
        yield self

    async def open(self, _held: object, *, is_live: bool) -> FakeWork:
        assert is_live
        if second() >= self.ids_change_at:
            self.note("other ids")
            self.ids_change_at = math.inf
        return self

    async def require_same(self) -> None:
        if second() >= self.ids_change_at:
            raise IdsChanged("another connection")

    def reopened(self) -> list[DeadLetterReplay]:
        return []

    async def saved(self) -> SavedCheckpoint | None:
        return self.kept if self.has_checkpoint else None

    async def begin(self, start: SavedCheckpoint) -> None:
        self.kept, self.has_checkpoint = start, True
        self.note(f"begin {start.since} {start.watermark}")

    async def _nothing(self, *_: object, **__: object) -> None: ...

    begin_sweep = count_contacts = fetch = _nothing
    working = nullcontext

    async def set_phase(self, phase: str) -> None:
        self.note(phase)

    async def set_caught_up(self, when: datetime) -> None:
        self.caught_up.append(second_of(when))

    async def mark_dirty(self, _orders: object) -> None:
        """Have no orders that are held."""

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

    async def resume(self, saved: SavedCheckpoint) -> FakeRun:
        return FakeRun(self, saved)

    def note(self, what: str) -> None:
        self.did.append((second(), what))


class FakeRun:
    """Stands for PipelineRun."""

    def __init__(self, work: FakeWork, saved: SavedCheckpoint) -> None:
        self.checkpoint = Checkpoint(
            UNUSED, saved.watermark, window=9, max_in_flight=1, parked_max=9, commit_interval_s=1
        )
        self._work = work

    async def pipeline(self, log: LogTail) -> FakePipeline:
        return FakePipeline(self._work, self.checkpoint, log)


class FakePipeline:
    """Stands for Pipeline: takes what comes until drained; then what is in flight takes a while."""

    def __init__(self, work: FakeWork, checkpoint: Checkpoint, log: LogTail) -> None:
        self._work, self._log, self._upstream = work, log, anyio.CancelScope()
        self._checkpoint = checkpoint
        self.drain = self._upstream.cancel

    async def run(self, mark: HighWaterMark) -> None:
        async with anyio.create_task_group() as orders:
            orders.start_soon(self._probe_orders)
            await self._carry(mark)
            orders.cancel_scope.cancel()

    async def _probe_orders(self) -> None:
        await anyio.sleep(self._work.orders_see_ids_at - second())
        self._work.orders_see_ids_at = math.inf
        await self._work.require_same()

    async def _carry(self, mark: HighWaterMark) -> None:
        with self._upstream:
            async for page in self._log.pages(self._checkpoint.position, mark):
                if isinstance(page, Changes):
                    self._work.note("changes")
                    await anyio.sleep(self._work.takes_changes_s)
                elif not isinstance(page, ReopenedEntries):
                    self._work.note(f"entries {[each.position.txid for each in page]}")
                    self._work.spans.append(await self._checkpoint.track(page[-1].position, 1))
                    self._work.kept = replace(self._work.kept, watermark=page[-1].position)
        await anyio.sleep(IN_FLIGHT_S)
        self._work.note("done")


class Service(Story):
    """A run of the service: it sweeps until 10, polls at 10, 30, 50 …, and sweeps again from 113 on."""

    def __init__(self) -> None:
        super().__init__()
        log, horizon, changes = self.source
        self.shop = Shop(SITE, UNUSED, UNUSED, UNUSED, changes, log, horizon, UNUSED)
        self.work = FakeWork(self.shop)
        self.incidents = Incidents()  # until the shop is opened
        self.shop_opens_after_s = 0.0
        self.round_s = ROUND_S
        self.looks_at: list[float] = []  # whether work goes on
        self.alive: list[bool] = []

    def drain_at(self, when_s: float) -> None:
        self.at(when_s, lambda: self._run.drain())  # noqa: PLW0108  it is not there yet

    async def watchdog(self, is_alive: Callable[[], bool]) -> None:
        for when_s in self.looks_at:
            await anyio.sleep(when_s - second())
            self.alive.append(is_alive())

    def run(self, since: Bound | None = None, *, wait: bool = False) -> None:
        run(self.play(self._go(since, wait=wait)))

    async def _go(self, since: Bound | None, *, wait: bool) -> None:
        source = source_settings(full_sweep_s=self.round_s, updated_overlap_s=0)
        self._run = follow.Service(replace(settings(PipelineSettings()), source=source))
        await self._run.go(since, wait=wait)

    @asynccontextmanager
    async def open_shop(self, *_: object, incidents: Incidents, **__: object) -> AsyncIterator[Shop]:
        """Stand for `open_shop`: the shop's database is down at first, for `shop_opens_after_s`."""
        self.incidents = incidents
        await anyio.sleep(self.shop_opens_after_s)
        yield self.shop

    @asynccontextmanager
    async def open_migrated(self, *_: object) -> AsyncIterator[FakeWork]:
        """Stand for `Store.open_migrated`."""
        yield self.work


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    monkeypatch.setattr("kiva_stream.observability.systemd.SystemdNotifier.watchdog", service.watchdog)
    monkeypatch.setattr(follow, "open_shop", service.open_shop)
    monkeypatch.setattr(Store, "open_migrated", service.open_migrated)
    monkeypatch.setattr(follow, "hold_site", service.work.hold_site)
    monkeypatch.setattr(follow, "WorkingSite", service.work)
    return service


def test_rounds_repeat_the_sweep_and_read_on_from_the_checkpoint(service: Service) -> None:
    service.log.entries.append(row(1))
    service.at(100, service.log.entries.append, row(2))
    service.drain_at(130)
    service.run()
    first = [(10, "follow"), (10, "entries [1]"), (113, "done")]
    assert service.work.did == [*first, (123, "follow"), (123, "entries [2]"), (133, "done")]


def test_a_drain_ends_the_wait_for_a_shop_that_is_down_at_the_start(service: Service) -> None:
    service.shop_opens_after_s = 100
    service.drain_at(20)
    service.run()
    assert service.ended_at == 20
    assert service.work.did == []


def test_a_shop_that_is_down_at_the_start_is_followed_when_it_is_there(service: Service) -> None:
    service.shop_opens_after_s = 100
    service.log.entries.append(row(1))
    service.drain_at(130)
    service.run()
    assert service.work.did[:2] == [(110, "follow"), (110, "entries [1]")]


def test_the_first_run_begins_a_checkpoint_at_since(service: Service) -> None:
    service.work.has_checkpoint = False
    service.log.entries.append(row(1))
    service.drain_at(20)
    service.run(DAY1)
    assert service.work.did == [(0, "begin day1 0:0"), (10, "follow"), (10, "entries [1]"), (23, "done")]


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


def test_a_round_that_activecampaign_refuses_is_begun_again_later_and_is_an_incident_meanwhile(
    service: Service,
) -> None:
    service.work.refused_until = 500
    whys: list[list[str]] = []
    for when_s in (4, 100, 400, 700, 915):
        service.at(when_s, lambda: whys.append([each.why for each in service.incidents.all()]))
    service.drain_at(916)
    service.run()
    assert service.work.did[:3] == [(5, "refused"), (310, "refused"), (620, "follow")]
    assert whys == [[], ["nobody is imported"], ["nobody is imported"], ["nobody is imported"], []]


def test_week_tags_that_activecampaign_refuses_leave_the_entries_alone(service: Service) -> None:
    service.work.tags_fail_at, service.work.tags_fail_with = 20, AccountRefused("no tags")
    service.at(25, service.log.entries.append, row(1))
    kinds: list[list[str]] = []
    service.at(40, lambda: kinds.append([each.kind for each in service.incidents.all()]))
    service.drain_at(45)
    service.run()
    assert (30, "entries [1]") in service.work.did
    assert kinds == [["key"]]


def test_other_ids_found_by_a_probe_of_orders_begin_a_round_with_them_at_once(service: Service) -> None:
    service.work.ids_change_at, service.work.orders_see_ids_at = 30, 40
    service.at(45, service.log.entries.append, row(1))
    kinds: list[list[str]] = []
    service.at(45, lambda: kinds.append([each.kind for each in service.incidents.all()]))
    service.drain_at(60)
    service.run()
    assert service.work.did[:4] == [(10, "follow"), (40, "other ids"), (50, "follow"), (50, "entries [1]")]
    assert kinds == [[]]


def test_every_round_begins_with_the_ids_that_the_account_has_by_then(service: Service) -> None:
    service.work.ids_change_at = 50
    service.drain_at(130)
    service.run()
    assert service.work.did[:4] == [(10, "follow"), (113, "done"), (113, "other ids"), (123, "follow")]


def test_a_round_that_was_refused_is_begun_again_with_other_ids(service: Service) -> None:
    service.work.refused_until, service.work.ids_change_at = 100, 200
    service.drain_at(330)
    service.run()
    assert service.work.did[:3] == [(5, "refused"), (305, "other ids"), (315, "follow")]


def test_week_tags_that_were_refused_end_the_round_when_the_account_has_other_ids(service: Service) -> None:
    service.work.tags_fail_at, service.work.tags_fail_with = 20, AccountRefused("no tags")
    service.round_s = 1_000
    service.work.ids_change_at = 200
    service.drain_at(340)
    service.run()
    assert service.work.did[:4] == [(10, "follow"), (323, "done"), (323, "other ids"), (333, "follow")]


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
    service.work.takes_changes_s = 1_000
    service.change_at(25, ANN, 24.5)  # the last poll is at 30
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


def test_the_ledger_is_caught_up_with_a_look_when_no_entry_is_pending(service: Service) -> None:
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
