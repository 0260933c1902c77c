"""Commands that hold the site: the incidents that they store are those of the shop's database too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import pytest

from kiva_stream.commands import forget, sync_customer
from kiva_stream.commands.dead_letters import replay
from kiva_stream.commands.dead_letters.selection import DeadLetterRequest
from kiva_stream.errors import SourceError
from kiva_stream.model.ids import CustomerId
from kiva_stream.observability.incidents import Incidents
from kiva_stream.settings.sections import PipelineSettings
from kiva_stream.verification import verify
from kiva_stream.verification.verify import VerifyRequest
from tests.support.entries import SITE
from tests.support.settings import settings

SETTINGS = settings(PipelineSettings())
ANN = CustomerId(7)


class SeenIncidents:
    """Stands for the shop and the site, and notes the incidents that both are opened with."""

    def __init__(self) -> None:
        self.of_shop: list[Incidents] = []
        self.of_site: list[Incidents] = []

    @asynccontextmanager
    async def open_shop(self, *_: object, incidents: Incidents) -> AsyncIterator[Any]:
        self.of_shop.append(incidents)
        yield SimpleNamespace(site=SITE)

    def hold_site(self, *_: object, incidents: Incidents, **__: object) -> NoReturn:
        self.of_site.append(incidents)
        raise SourceError("far enough")


class AnyState:
    """Stands for what the commands read of the state before they hold the site."""

    def __init__(self, *_: object) -> None:
        self.dead_letters, self.of_entries, self.of_orders = self, (), ()
        self.held, self.of_held = self, ()

    async def progress(self, _account: str) -> None: ...

    async def request_replay(self, *_: object) -> int:
        return 0

    async def ask(self, *_: object) -> int:
        return 0

    async def request_order_replay(self, *_: object, with_discarded: bool) -> int:
        return int(with_discarded)


async def select(*_: object) -> AnyState:
    return AnyState()


@pytest.mark.parametrize(
    ("module", "command"),
    [
        (forget, lambda: forget.forget(SETTINGS, ANN)),
        (sync_customer, lambda: sync_customer.sync_customer(SETTINGS, ANN)),
        (verify, lambda: verify.verify(SETTINGS, VerifyRequest(sample=1, repair=True))),
        (replay, lambda: replay.replay(SETTINGS, DeadLetterRequest())),
    ],
)
async def test_the_site_stores_the_incidents_that_the_shop_was_opened_with(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, command: Callable[[], Awaitable[object]]
) -> None:
    seen = SeenIncidents()
    monkeypatch.setattr(module, "open_shop", seen.open_shop)
    monkeypatch.setattr(module, "hold_site", seen.hold_site)
    monkeypatch.setattr(module, "Store", SimpleNamespace(open_migrated=lambda _: nullcontext()))
    monkeypatch.setattr(module, "Evidence", AnyState, raising=False)
    monkeypatch.setattr(module, "select", select, raising=False)
    with pytest.raises(SourceError, match="far enough"):
        await command()
    assert len(seen.of_shop) == 1
    assert seen.of_site == seen.of_shop
