"""The composition root: what it makes of the settings and of the site."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
import pytest

from kiva_stream import app
from kiva_stream.errors import TryLater
from kiva_stream.settings import PipelineSettings, Settings
from tests.fakes import SITE, settings


class StoreThere:
    """Stands for the state database: its schema is there."""

    @classmethod
    @asynccontextmanager
    async def open(cls, _settings: object) -> AsyncIterator[Self]:
        yield cls()

    async def migrate(self) -> bool:
        return False


@asynccontextmanager
async def shop_there(_settings: Settings) -> AsyncIterator[app.Shop]:
    """Stand for the shop's database."""
    unread: Any = None
    yield app.Shop(SITE, customers=unread, log=unread)


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
    assert app.website(url) == website


async def test_a_set_up_that_cannot_reach_activecampaign_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "open_shop", shop_there)
    monkeypatch.setattr(app, "Store", StoreThere)
    monkeypatch.setattr(app, "PATIENCE_S", 0.0)
    nowhere = settings(PipelineSettings(), api_url="http://127.0.0.1:9")
    with anyio.fail_after(5), pytest.raises(TryLater, match=r"cannot connect to 127\.0\.0\.1.*api_url"):
        await app.set_up(nowhere)
