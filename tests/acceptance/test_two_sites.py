"""Two sites in one database, each with an account of its own: nothing crosses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from kiva_stream.sandbox.generator import generate
from tests.acceptance.stages import AT_ONCE, Stage, activecampaign_beside, settings

ENTRIES = 6_000
DAY1 = ("backfill", "--since", "day1", "--yes")


@pytest.fixture
async def two_sites(database: str, tmp_path: Path) -> AsyncIterator[list[Stage]]:
    """Two shops that share the log, the customers and the state schema, and an account for each."""
    truth = tmp_path / "truth.sqlite"
    generated = await generate(database, ENTRIES, seed=11, truth=truth, sites=2)
    (empty := tmp_path / "empty").mkdir()
    async with activecampaign_beside() as first, activecampaign_beside() as second:
        stages = []
        for site_id, account in zip(generated.site_ids, (first, second), strict=True):
            await account.change(**AT_ONCE)
            environ = {**account.environ(), **settings(database, site_id)}
            stages.append(
                Stage(empty, database, account, environ, truth=truth, generated=generated, site_id=site_id)
            )
        for stage in stages:
            await stage.set_up()
        yield stages


async def test_two_sites_are_carried_to_two_accounts_at_once_and_nothing_crosses(
    two_sites: list[Stage],
) -> None:
    async with anyio.create_task_group() as group:
        for stage in two_sites:
            group.start_soon(anyio.to_thread.run_sync, stage.run, *DAY1)
    for stage in two_sites:
        comparison = await stage.compare()
        assert comparison.is_exact, comparison
        assert comparison.arrived > ENTRIES / 10
        assert comparison.orders_arrived > 0
        state = await stage.activecampaign.state()
        assert (state["breaches"], state["events_without_contact"], state["tag_overlaps"]) == ({}, 0, 0)
    customers = [await customers_of(stage) for stage in two_sites]
    assert customers[0].isdisjoint(customers[1])


async def customers_of(stage: Stage) -> set[str]:
    """Return the shop's customers that an account knows, by field and by order."""
    contacts = [row async for row in stage.activecampaign.rows("contacts")]
    named = {contact["fields"]["Kiva Customer ID"] for contact in contacts}
    return named | {order["storeCustomerId"] async for order in stage.activecampaign.rows("orders")}


async def test_a_site_is_not_carried_to_the_account_of_another(two_sites: list[Stage]) -> None:
    first, second = two_sites
    first.run(*DAY1)
    before = (await first.activecampaign.state())["changing_requests"]
    for command in (DAY1, ("follow", "--since", "day1")):
        said = second.run(*command, code=6, **first.activecampaign.environ())
        assert f"serves site {first.site_id}" in said
        said = first.run(*command, code=2, **second.activecampaign.environ())
        assert "belongs to the ActiveCampaign account" in said
    assert (await first.activecampaign.state())["changing_requests"] == before
    assert (await second.activecampaign.state())["contacts"] == 0
