"""What `status` makes of what the state schema says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import pytest
from msgspec.structs import replace

from kiva_stream.commands import status
from kiva_stream.commands.estimates import swaps_s
from kiva_stream.errors import CheckpointError
from kiva_stream.model.outcomes import DELIVERED, Outcome
from kiva_stream.model.positions import Position
from kiva_stream.settings.sections import PipelineSettings, Settings
from kiva_stream.state.status import SiteStatus
from tests.support.entries import SITE, moment
from tests.support.settings import settings

FOUND = SiteStatus(
    account="a.example 1",
    phase="follow",
    since="day1",
    events_since=None,
    counted_from=Position(0, 0),
    watermark=Position(77, 1_000),
    high_water_mark=None,
    entries=None,
    pending=3,
    parked=0,
    committed_at=moment(0),
    outcomes={DELIVERED: 5, Outcome("dead", "no_email"): 2},
    events={"Logged out": 5},
    notes={},
    contacts={"linked": 4},
    not_on_list={},
    tags_due=20_000,
    orders={"sent": 411, "refused": 2},
    incidents=[],
    held=[],
    erased=[],
    held_by=None,
    held_since=None,
    caught_up_at=moment(0),
)


class StoreThere:
    """Stands for the state database: its schema is there."""

    @classmethod
    @asynccontextmanager
    async def open_migrated(cls, _settings: object) -> AsyncIterator[Self]:
        yield cls()

    async def fetch(self, _block: str, *_: object) -> list[object]:
        return []


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[int, SiteStatus]:
    """Have the state schema say of sites what this dictionary says; of others it knows nothing."""
    known: dict[int, SiteStatus] = {}

    async def read_status(_store: object, site_id: int) -> SiteStatus | None:
        return known.get(site_id)

    monkeypatch.setattr(status, "Store", StoreThere)
    monkeypatch.setattr(status, "read_status", read_status)
    return known


async def whole_status(asked: Settings) -> status.StatusReport:
    """Return the report on a site that has a checkpoint."""
    report = await status.status(asked)
    assert isinstance(report, status.StatusReport)
    return report


async def test_status_says_how_many_week_tags_are_due_and_how_long_they_take_at_the_limits_set(
    found: dict[int, SiteStatus],
) -> None:
    found[SITE.id] = FOUND
    for rate in (1, 5):
        limits = settings(PipelineSettings(), requests_per_second=rate)
        report = await whole_status(limits)
        assert report.tags_due == 20_000
        assert report.tags_left_s == swaps_s(20_000, limits.activecampaign) > 0


async def test_status_has_the_orders_and_the_lag_of_following(
    found: dict[int, SiteStatus],
) -> None:
    found[SITE.id] = FOUND
    report = await whole_status(settings(PipelineSettings()))
    assert report.orders == {"sent": 411, "refused": 2}
    assert report.equation.entries_read == 10
    assert report.lag_s == (report.updated_at - moment(0)).total_seconds() > 0
    found[SITE.id] = replace(FOUND, caught_up_at=None)
    assert (await whole_status(settings(PipelineSettings()))).lag_s is None


async def test_status_of_a_site_without_checkpoint_holder_and_incident_says_what_to_do(
    found: dict[int, SiteStatus],
) -> None:
    found[SITE.id + 1] = FOUND
    with pytest.raises(CheckpointError, match=f"site {SITE.id} yet: start a backfill"):
        await status.status(settings(PipelineSettings()))
