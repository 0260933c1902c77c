"""Plan: what is estimated, and what is left to be sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any, Self

import pytest
from msgspec.structs import replace

from kiva_stream.commands import plan as plans
from kiva_stream.commands.backfill_report import BackfillRequest
from kiva_stream.commands.estimates import Work, seconds, swaps_s
from kiva_stream.commands.plan import BackfillPlan, estimated, work_left
from kiva_stream.errors import SettingsError
from kiva_stream.model.entries import Entry
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.model.tombstones import ForgottenPeople
from kiva_stream.runtime.shop import Shop
from kiva_stream.settings.sections import PipelineSettings, Settings
from kiva_stream.state.status import SiteStatus
from tests.support.entries import NOISE, SITE, SYNC_ONLY, customer, entry, moment, position
from tests.support.settings import settings

SETTINGS = settings(PipelineSettings())
MARK = HighWaterMark(position(1_000), datetime(2018, 4, 1, tzinfo=UTC))
STATUS = SiteStatus(
    account="a.example 1",
    phase="orders",
    since="day1",
    events_since=None,
    counted_from=DAY1,
    watermark=DAY1,
    high_water_mark=None,
    entries=None,
    pending=0,
    parked=0,
    committed_at=moment(0),
    outcomes={},
    events={},
    notes={},
    contacts={"linked": 60, "rejected": 10, "new": 5},
    not_on_list={},
    tags_due=7,
    orders={"sent": 300, "refused": 20},
    incidents=[],
    held=[],
    erased=[],
    held_by=None,
    held_since=None,
    caught_up_at=moment(0),
)


class SmallShop:
    """Stands for the source adapters of a shop: a log of 1,000 entries of which a few are the sample."""

    is_used = True

    def __init__(self, sample: Sequence[Entry], customers: int = 90, orders: int | None = 1_430) -> None:
        self._sample = sample
        self._customers = customers
        self._orders = orders

    def without(self, _forgotten: ForgottenPeople) -> SmallShop:
        return self

    def with_customers(self, *_: object) -> SmallShop:
        return self

    async def count_reachable(self) -> int:
        return self._customers

    async def count_paid(self) -> int | None:
        return self._orders

    async def high_water_mark(self) -> HighWaterMark:
        return MARK

    async def midnight(self, day: date) -> datetime:
        return datetime(day.year, day.month, day.day, 6, tzinfo=UTC)

    async def count_or_distance(self, after: Position, until: Position) -> int:
        return until.txid - after.txid

    async def sample(self, _after: Position, _until: Position) -> list[Entry]:
        return list(self._sample)


class EmptyStore:
    """Stands for a state database that was never set up."""

    @classmethod
    @asynccontextmanager
    async def open(cls, _settings: object) -> AsyncIterator[Self]:
        yield cls()

    async def version(self) -> int:
        return 0


async def planned(
    monkeypatch: pytest.MonkeyPatch, shop: SmallShop, request: BackfillRequest, settings: Settings = SETTINGS
) -> BackfillPlan:
    """Return the plan of a backfill of that shop, before any set-up."""
    parts: Any = shop

    @asynccontextmanager
    async def open_shop(_settings: Settings) -> AsyncIterator[Shop]:
        yield Shop(SITE, *[parts] * 7)

    monkeypatch.setattr(plans, "open_shop", open_shop)
    monkeypatch.setattr(plans, "Store", EmptyStore)
    return await plans.plan(settings, request)


# --- what is estimated


def test_what_a_sample_shows_is_scaled_to_all_entries() -> None:
    assert estimated(1_000, ["event", "noise", "event"], range(4)) == {"event": 500, "noise": 250}


def test_a_sample_of_all_entries_is_exact() -> None:
    assert estimated(3, ["event", "noise", "event"], range(3)) == {"event": 2, "noise": 1}


def test_nothing_is_estimated_of_nothing() -> None:
    assert estimated(0, [], []) == {}
    assert estimated(1_000, [], range(4)) == {}


# --- what is left


def test_before_a_set_up_everything_is_to_be_sent() -> None:
    assert work_left(90, 1_430, events=500, status=None) == Work(
        contacts=90, orders=1_430, events=500, tags=0
    )


def test_what_activecampaign_has_or_refused_is_not_sent_again() -> None:
    assert work_left(90, 1_430, events=500, status=STATUS) == Work(
        contacts=20, orders=1_110, events=500, tags=7
    )


def test_more_than_was_counted_leaves_nothing_to_do() -> None:
    assert work_left(60, 300, events=0, status=STATUS) == Work(contacts=0, orders=0, events=0, tags=7)


@pytest.mark.parametrize("status", [None, STATUS])
def test_orders_that_were_not_counted_are_no_work(status: SiteStatus | None) -> None:
    assert work_left(90, None, events=500, status=status).orders == 0


# --- the whole


async def test_a_plan_has_entries_customers_orders_requests_hours_and_dead_letters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, unknown = customer(1), customer(2, email=None)
    sample = [
        entry(1, known),
        entry(2, known),
        entry(3, unknown),
        entry(4, known, action=SYNC_ONLY),
        entry(5, known, action=NOISE),
    ]
    found = await planned(monkeypatch, SmallShop(sample), BackfillRequest(since=DAY1))
    work = Work(contacts=90, orders=1_430, events=400)
    phases = {phase: spent / 3_600 for phase, spent in seconds(work, SETTINGS.activecampaign).items()}
    assert found == BackfillPlan(
        after=str(DAY1),
        until=str(MARK.position),
        entries=1_000,
        sampled=5,
        classes={"event": 400, "reject": 200, "sync only": 200, "noise": 200},
        events={"Logged out": 400},
        dead={"no_email": 200},
        customers=90,
        orders=1_430,
        requests={
            "POST /import/bulk_import": 1,
            "GET /import/info": 2,
            "GET /contacts": 3,
            "POST /ecom/graphql": 9,  # of 50, 100, then 200 orders
            "POST /event": 400,
        },
        phases=phases,
        hours=sum(phases.values()),
        tags_due=0,
        new_week_hours=swaps_s(90, SETTINGS.activecampaign) / 3_600,
    )


async def test_a_sample_counts_each_entry_that_will_be_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    after, last = Position(10, 4), Position(20, 6)
    places = (Position(9, 9), after, Position(10, 5), Position(15, 1), Position(15, 1), last, Position(20, 7))
    sample = [replace(entry(1, customer(1)), position=place) for place in places]
    request = BackfillRequest(since=Position(10, 5), until=Position(20, 7))
    found = await planned(monkeypatch, SmallShop(sample), request)
    assert (found.after, found.until) == (str(after), str(last))
    assert found.sampled == 3  # 10:5, 15:1 and the last


async def test_entries_from_before_the_events_begin_are_planned_as_no_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = entry(1, customer(1))
    young = replace(entry(2, customer(1)), inserted_at=datetime(2018, 3, 20, tzinfo=UTC))
    request = BackfillRequest(since=DAY1, events_since=date(2018, 3, 10))
    found = await planned(monkeypatch, SmallShop([old, young]), request)
    assert found.events_since == datetime(2018, 3, 10, 6, tzinfo=UTC)
    assert found.events == {"Logged out": 500}


async def test_a_plan_of_a_log_without_entries_has_only_contacts_and_orders_to_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = BackfillRequest(since=DAY1, until=DAY1)
    found = await planned(monkeypatch, SmallShop([entry(1, customer(1))]), request)
    assert (found.entries, found.sampled, found.classes, found.events) == (0, 0, {}, {})
    assert "POST /event" not in found.requests
    assert found.hours == pytest.approx(found.phases["contacts"] + found.phases["orders"])


async def test_a_plan_takes_no_less_time_than_reading_the_log_at_its_most_rows_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = replace(SETTINGS, source=replace(SETTINGS.source, max_rows_per_s=2))
    shop, request = SmallShop([entry(1, customer(1))]), BackfillRequest(since=DAY1)
    free, read_slowly = [await planned(monkeypatch, shop, request, each) for each in (SETTINGS, slow)]
    assert free.phases["events"] == pytest.approx(1_000 / SETTINGS.activecampaign.events_per_second / 3_600)
    assert read_slowly.phases["events"] == pytest.approx(1_000 / 2 / 3_600)
    assert read_slowly.hours - free.hours == pytest.approx(
        read_slowly.phases["events"] - free.phases["events"]
    )


async def test_a_plan_without_a_checkpoint_needs_to_know_where_to_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SettingsError, match="--since"):
        await planned(monkeypatch, SmallShop([]), BackfillRequest())
