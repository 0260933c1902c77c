"""What the shop's database does while a command runs: restarts, and a log that is read without a horizon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kiva_stream.commands.check import check
from kiva_stream.sandbox.drill import History
from kiva_stream.sandbox.postgres import OwnServer, own_postgres
from kiva_stream.settings import loading
from tests.acceptance.live_shop import LONG_PAID, LiveShop, arrived, email, following, live_shop
from tests.acceptance.stages import ENTRIES, SEED, Commands, Stage, staged, until
from tests.support.postgres import connected
from tests.support.shop_rows import LONG_AGO

BY_ID = {"KIVA_STREAM__SOURCE__HORIZON": "false"}
SMALL_STEPS = {
    "KIVA_STREAM__SOURCE__PAGE_ROWS": "100",
    "KIVA_STREAM__SOURCE__RANGE_ROWS": "200",
    "KIVA_STREAM__PIPELINE__WINDOW": "500",
}


@pytest.fixture(scope="module")
def shop_server() -> Iterator[OwnServer]:
    """A server of the shop alone, to be stopped and started; the state is elsewhere."""
    with own_postgres() as server:
        yield server


@pytest.fixture
async def shop_dsn(shop_server: OwnServer) -> AsyncIterator[str]:
    yield await shop_server.create_database("shop")
    await shop_server.drop_database("shop")


def trouble_of(shop: Commands) -> list[str]:
    return [trouble["kind"] for trouble in shop.status()["troubles"]]


async def test_a_restart_of_the_shops_database_under_follow_is_outlasted_and_reported(
    shop_server: OwnServer, shop_dsn: str, database: str, tmp_path: Path
) -> None:
    async with live_shop(shop_dsn, tmp_path, 1) as shop:
        shop.environ["KIVA_STREAM__STATE__DSN"] = database
        await shop.set_up()
        async with following(shop):
            async with connected(shop_dsn) as writer:
                await shop.write(writer, 1)
                await arrived(shop, 1)
            await anyio.to_thread.run_sync(shop_server.stop)
            await until_troubled(shop, ["source"])
            await anyio.to_thread.run_sync(shop_server.start)
            async with connected(shop_dsn) as writer:
                last = await shop.write(writer, 1)
            await arrived(shop, 2)
            assert (await shop.arrivals())[-1]["id"] == last.position.id
            await until_troubled(shop, [])


async def until_troubled(shop: Commands, kinds: list[str]) -> None:
    async def is_it() -> bool:
        return await anyio.to_thread.run_sync(trouble_of, shop) == kinds

    await until(is_it)


async def test_a_restart_of_the_shops_database_under_a_backfill_loses_and_repeats_nothing(
    shop_server: OwnServer, database: str, tmp_path: Path
) -> None:
    history = await History.write(shop_server, tmp_path, entries=ENTRIES, seed=SEED)
    async with staged(history, tmp_path) as stage:
        stage.environ["KIVA_STREAM__STATE__DSN"] = database
        await stage.set_up()
        with stage.start("backfill", "--since", "day1", "--yes", **SMALL_STEPS) as process:
            await until(lambda: has_events(stage, stage.generated.outcomes["delivered"] // 4))
            await anyio.to_thread.run_sync(shop_server.stop)
            await anyio.to_thread.run_sync(shop_server.start)
            _, err = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=120))
        assert process.returncode == 0, err
        stage.assert_equation()
        comparison = await stage.compare()
        assert (comparison.lost, comparison.repeated, comparison.out_of_order) == (0, 0, 0)


async def has_events(stage: Stage, count: int) -> bool:
    return bool((await stage.activecampaign.state())["events"] >= count)


# Without a horizon


async def test_without_a_horizon_an_entry_committed_late_is_delivered_late_and_once(
    database: str, tmp_path: Path
) -> None:
    async with (
        live_shop(database, tmp_path, 2) as shop,
        connected(database) as old,
        connected(database) as young,
    ):
        async with following(shop, **BY_ID):
            await shop.write(young, 1)
            transaction = old.transaction()
            await transaction.start()
            late = await shop.write(old, 2)
            overtaking = await shop.write(young, 1)
            await arrived(shop, 2)
            await transaction.commit()
            await arrived(shop, 3)
        assert [event["id"] for event in await shop.arrivals()][1:] == [
            overtaking.position.id,
            late.position.id,
        ]
        assert_whole(shop, 3, watermark=overtaking.position.id)
        async with following(shop, **BY_ID):
            last = await shop.write(young, 1)
            await arrived(shop, 4)
        assert_whole(shop, 4, watermark=last.position.id)


def assert_whole(shop: LiveShop, delivered: int, watermark: int) -> None:
    status: dict[str, Any] = shop.status()
    assert status["watermark"] == f"0:{watermark}"
    equation = status["equation"]
    assert (equation["entries_read"], equation["delivered"], equation["parked"]) == (delivered, delivered, 0)
    assert status["notes"].get("late") == 1


async def test_how_the_log_is_read_is_changed_by_a_rewind_only(database: str, tmp_path: Path) -> None:
    async with live_shop(database, tmp_path, 1) as shop, connected(database) as writer:
        await shop.write(writer, 1)
        shop.run("backfill", "--since", "day1", "--yes")
        assert "rewind" in shop.run("backfill", "--yes", code=2, **BY_ID)
        assert "rewind" in shop.run("follow", code=2, **BY_ID)
        shop.run("rewind", "--to", "day1", "--yes", code=0, **BY_ID)
        shop.run("backfill", "--yes", code=0, **BY_ID)
        assert "rewind" in shop.run("backfill", "--yes", code=2)
        assert len(await shop.arrivals()) == 1


@pytest.mark.parametrize("new", [1, 5])  # fewer than were read, and more
async def test_ids_that_begin_anew_are_an_incident_and_all_is_delivered_after_the_rewind_it_names(
    database: str, tmp_path: Path, new: int
) -> None:
    async with live_shop(database, tmp_path, 1) as shop, connected(database) as writer:
        shop.environ |= BY_ID
        read_before = [(await shop.write(writer, 1)).position.id for _ in range(3)]
        shop.run("backfill", "--since", "day1", "--yes")
        await writer.execute("TRUNCATE kiva.system_log RESTART IDENTITY")
        async with following(shop):
            await until_troubled(shop, [])
            written = [(await shop.write(writer, 1)).position.id for _ in range(new)]
            assert set(written) & set(read_before)
            await until_troubled(shop, ["horizon"])
        assert "begun anew" in shop.run("backfill", code=2)
        rows = {row.subject: row for row in (await check(loading.load(None, shop.environ))).rows}
        assert not rows["horizon"].ok
        assert "begun anew" in rows["horizon"].text
        assert len(await shop.arrivals()) == 3
        shop.run("rewind", "--to", "day1", "--resend", "--yes")
        shop.run("backfill", "--yes")
        assert [event["id"] for event in await shop.arrivals()] == read_before + written


# A site whose row cannot be used as it is


async def test_check_names_the_columns_of_a_site_that_cannot_be_used_and_shows_all_other_rows(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 1) as shop, connected(database) as writer:
        before = {row.subject for row in (await check(loading.load(None, shop.environ))).rows if row.ok}
        assert {"timezone", "website"} < before
        await writer.execute(
            "UPDATE kiva.sites SET timezone = 'Mars/Olympus', admin_base_url = 'https://[box'"
        )
        rows = (await check(loading.load(None, shop.environ))).rows
        faulty = {row.subject: row.text for row in rows if not row.ok}
        assert set(faulty) == {"timezone", "website"}
        assert faulty["timezone"].startswith("sites.timezone is 'Mars/Olympus', which is no name of the IANA")
        assert faulty["website"].startswith("sites.admin_base_url is 'https://[box', which is no URL")
        assert {row.subject for row in rows if row.ok} == before - set(faulty) - {"weeks"}
        assert "sites.timezone" in shop.run("backfill", "--since", "day1", "--yes", code=3)


# Ids of 0 and less


async def test_rows_with_ids_of_0_and_less_are_brought_like_any_other(database: str, tmp_path: Path) -> None:
    ids = (-7, 0)
    async with live_shop(database, tmp_path, 1) as shop, connected(database) as writer:
        for each in ids:
            await shop.rows.customer(each, email(each))
            await shop.order(each, each, **LONG_PAID)
            entry = {"customer_id": each, "action": "login.password", "inserted_at": LONG_AGO}
            await shop.rows.insert(
                "system_log", id=each, site_id=1, occurred_at=LONG_AGO, message="x", **entry
            )
        await shop.write(writer, 1)
        shop.run("backfill", "--since", "day1", "--yes")
        assert {email(each) for each in (*ids, 1)} == set(await shop.contacts())
        assert sorted(event["id"] for event in await shop.arrivals())[:2] == list(ids)
        assert all([await shop.order_there(each) for each in ids])
        shop.run("verify")
        shop.run("sync", "--customer", "-7")
        assert "ids below 1, as -7" in shop.run("backfill", "--yes", code=3, **BY_ID)
