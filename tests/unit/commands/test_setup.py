"""`setup` against an ActiveCampaign out of reach."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
import pytest

from kiva_stream.commands import setup
from kiva_stream.errors import TryLater
from kiva_stream.runtime import shop
from kiva_stream.settings.sections import PipelineSettings, Settings
from tests.support.entries import SITE
from tests.support.settings import settings


class StoreThere:
    """Stands for the state database: its schema is there."""

    @classmethod
    @asynccontextmanager
    async def open(cls, _settings: object) -> AsyncIterator[Self]:
        yield cls()

    async def migrate(self) -> bool:
        return False

    async def fetch(self, _block: str, *_: object) -> list[object]:
        return []


@asynccontextmanager
async def shop_there(_settings: Settings) -> AsyncIterator[shop.Shop]:
    """Stand for the shop's database."""
    unread: Any = None
    yield shop.Shop(SITE, *[unread] * 7)


async def test_a_set_up_that_cannot_reach_activecampaign_fails_and_names_api_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setup, "open_shop", shop_there)
    monkeypatch.setattr(setup, "Store", StoreThere)
    monkeypatch.setattr(setup, "PATIENCE_S", 0.0)
    nowhere = settings(PipelineSettings(), api_url="http://127.0.0.1:9")
    with anyio.fail_after(5), pytest.raises(TryLater, match=r"cannot connect to 127\.0\.0\.1.*api_url"):
        await setup.set_up(nowhere)
