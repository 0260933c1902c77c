"""The held site with a real state schema: its incidents are stored while its account is away."""

from __future__ import annotations

from typing import Any

import anyio
import asyncpg
import pytest

from kiva_stream.errors import HeldError
from kiva_stream.model.account_ids import AccountIds
from kiva_stream.model.tombstones import NONE_FORGOTTEN, ForgottenPeople
from kiva_stream.observability.incidents import Incidents
from kiva_stream.runtime.held_site import hold_site
from kiva_stream.runtime.shop import Shop
from kiva_stream.runtime.working_site import WorkingSite
from kiva_stream.settings.sections import PipelineSettings
from kiva_stream.state.incidents import read_incidents
from kiva_stream.state.store import Store
from tests.fakes.state_held import held_records
from tests.support.entries import SITE
from tests.support.settings import settings
from tests.support.state_schema import until

NOWHERE = settings(
    PipelineSettings(), api_url="http://127.0.0.1:9", breaker_failures=1, backoff_max_s=0.01
)  # the discard port: nothing listens there


class Unread:
    """Stands for the parts of a shop: nothing is read of it."""

    is_used = True

    def without(self, _forgotten: ForgottenPeople) -> Unread:
        return self

    def with_customers(self, *_: object) -> Unread:
        return self


def unread_shop() -> Shop:
    unread: Any = Unread()
    return Shop(SITE, *[unread] * (len(Shop._fields) - 1))


async def kinds(store: Store) -> list[str]:
    return [incident.kind for incident in await read_incidents(store, SITE.id)]


async def test_an_account_that_is_away_before_the_site_works_is_a_stored_incident(store: Store) -> None:
    async def is_stored() -> bool:
        return await kinds(store) == ["activecampaign"]

    async with (
        hold_site(NOWHERE, unread_shop(), store, incidents=Incidents()) as held,
        anyio.create_task_group() as group,
    ):
        group.start_soon(WorkingSite.open, held)  # it asks the account for its numbers, again and again
        await until(is_stored)
        group.cancel_scope.cancel()
    assert await kinds(store) == []


async def test_an_incident_from_before_the_site_is_held_is_stored_with_the_lease(
    store: Store, look: asyncpg.Connection
) -> None:
    incidents = Incidents()
    incidents.open("source", "it is in recovery")
    async with hold_site(NOWHERE, unread_shop(), store, incidents=incidents):
        assert await kinds(store) == ["source"]
        assert await look.fetchval("SELECT count(*) FROM kiva_stream.lease") == 2


async def test_a_site_that_another_process_holds_keeps_its_stored_incidents(store: Store) -> None:
    incidents = Incidents()
    incidents.open("key", "403")
    async with hold_site(NOWHERE, unread_shop(), store, incidents=incidents):
        with pytest.raises(HeldError):
            async with hold_site(NOWHERE, unread_shop(), store, incidents=Incidents()):
                pass
        assert await kinds(store) == ["key"]


@pytest.mark.parametrize("is_live", [False, True])
async def test_a_site_is_as_live_without_forgotten_people_as_it_was(store: Store, is_live: bool) -> None:
    ids = AccountIds(list_id=3, fields={}, tags={}, connection_id=2)
    async with hold_site(NOWHERE, unread_shop(), store, incidents=Incidents()) as held:
        assert (
            WorkingSite(held, ids, held_records(), is_live=is_live).without(NONE_FORGOTTEN).is_live is is_live
        )
