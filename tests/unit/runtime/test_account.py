"""The composition root: what it makes of the settings and of the site."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
import pytest
from msgspec.structs import replace

from kiva_stream.commands import setup, status
from kiva_stream.commands.estimates import swaps_s
from kiva_stream.errors import CheckpointError, TryLater
from kiva_stream.model.outcomes import DELIVERED, Outcome
from kiva_stream.model.positions import Position
from kiva_stream.runtime import account, shop
from kiva_stream.settings.sections import PipelineSettings, Settings
from kiva_stream.state.status import SiteStatus
from tests.fakes import SITE, moment, settings

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
    tags_due=20_000,
    orders={"sent": 411, "refused": 2},
    troubles=[],
    erased=[],
    held_by=None,
    held_since=None,
    caught_up_at=moment(0),
)


class StoreThere:
    """Stands for the state database: its schema is there."""

    @classmethod
    @asynccontextmanager
    async def open(cls, _settings: object) -> AsyncIterator[Self]:
        yield cls()

    async def migrate(self) -> bool:
        return False

    async def require_version(self) -> None:
        pass


@asynccontextmanager
async def shop_there(_settings: Settings) -> AsyncIterator[shop.Shop]:
    """Stand for the shop's database."""
    unread: Any = None
    yield shop.Shop(SITE, unread, unread, unread, unread, unread)


@pytest.mark.parametrize(
    ("url", "website"),
    [
        ("https://shop.example.com/admin", "https://shop.example.com"),
        ("http://shop.example.com:8080/admin?x=1", "http://shop.example.com:8080"),
        ("shop.example.com/admin", "https://shop.example.com"),
        ("shop.example.com:8080", "https://shop.example.com:8080"),
        ("//shop.example.com/admin", "https://shop.example.com"),
    ],
)
def test_the_website_of_the_shop_has_scheme_and_host(url: str, website: str) -> None:
    assert account.website(url) == website


@pytest.mark.parametrize(
    ("api_url", "contacts"),
    [
        ("https://green.api-us1.com", "https://green.activehosted.com/app/contacts/"),
        ("https://green.api-eu2.com/api/3", "https://green.activehosted.com/app/contacts/"),
        ("https://crm.example.com", "https://crm.example.com/app/contacts/"),
    ],
)
def test_people_look_at_a_contact_where_the_account_is_for_people(api_url: str, contacts: str) -> None:
    assert account.contact_url(api_url) == contacts


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[int, SiteStatus]:
    """Have the state schema say of sites what this dictionary says; of others it knows nothing."""
    known: dict[int, SiteStatus] = {}

    async def read_status(_store: object, site_id: int) -> SiteStatus | None:
        return known.get(site_id)

    monkeypatch.setattr(status, "Store", StoreThere)
    monkeypatch.setattr(status, "read_status", read_status)
    return known


async def test_status_says_how_many_week_tags_are_due_and_how_long_they_take_at_the_limits_set(
    found: dict[int, SiteStatus],
) -> None:
    found[SITE.id] = FOUND
    for rate in (1, 5):
        limits = settings(PipelineSettings(), requests_per_second=rate)
        report = await status.status(limits)
        assert report.tags_due == 20_000
        assert report.tags_left_s == swaps_s(20_000, limits.activecampaign) > 0


async def test_status_tells_of_orders_and_of_how_far_following_lags(
    found: dict[int, SiteStatus],
) -> None:
    found[SITE.id] = FOUND
    report = await status.status(settings(PipelineSettings()))
    assert report.orders == {"sent": 411, "refused": 2}
    assert report.equation.entries_read == 10
    assert report.lag_s == (report.updated_at - moment(0)).total_seconds() > 0
    found[SITE.id] = replace(FOUND, caught_up_at=None)
    assert (await status.status(settings(PipelineSettings()))).lag_s is None


async def test_status_of_a_site_that_nobody_began_says_what_to_do(found: dict[int, SiteStatus]) -> None:
    found[SITE.id + 1] = FOUND
    with pytest.raises(CheckpointError, match=f"site {SITE.id} yet: start a backfill"):
        await status.status(settings(PipelineSettings()))


async def test_a_set_up_that_cannot_reach_activecampaign_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "open_shop", shop_there)
    monkeypatch.setattr(setup, "Store", StoreThere)
    monkeypatch.setattr(setup, "PATIENCE_S", 0.0)
    nowhere = settings(PipelineSettings(), api_url="http://127.0.0.1:9")
    with anyio.fail_after(5), pytest.raises(TryLater, match=r"cannot connect to 127\.0\.0\.1.*api_url"):
        await setup.set_up(nowhere)
