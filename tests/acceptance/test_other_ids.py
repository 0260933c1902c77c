"""Other ids of the account: what was deleted at ActiveCampaign and created anew by `setup`."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from kiva_stream.model.positions import DAY1
from tests.acceptance.live_shop import LONG_PAID, LiveShop, arrived, email, following, live_shop
from tests.acceptance.stages import until

QUICK = {
    "KIVA_STREAM__ACTIVECAMPAIGN__RETRY_REFUSED_S": "0.5",
    "KIVA_STREAM__ACTIVECAMPAIGN__RETRY_HELD_S": "0.5",
    "KIVA_STREAM__ACTIVECAMPAIGN__BACKOFF_MAX_S": "0.1",
}
LIVE_BEFORE, LIVE_MEANWHILE, OLD_BEFORE, OLD_MEANWHILE = 1, 2, 3, 4  # orders, and the customers of each


async def order(shop: LiveShop, number: int, *, is_live: bool) -> None:
    """Write an order that was paid a minute ago, or long ago, and an entry of its customer."""
    changed = {"updated_at": datetime.now(UTC)}
    if is_live:
        changed |= {"paid_at": datetime.now(UTC) - timedelta(minutes=1)}
    await shop.order(number, number, **{**LONG_PAID, **changed})
    await shop.write(shop.rows.connection, number)


async def orders_there(shop: LiveShop) -> dict[int, str]:
    """Return the sources of the orders that ActiveCampaign has."""
    orders = [order async for order in shop.activecampaign.rows("orders")]
    return {int(order["storeOrderId"]): order["creationSource"] for order in orders}


async def sent_as_purchases(shop: LiveShop) -> Counter[int]:
    """Return how often each order was applied as REAL_TIME."""
    requests = [request async for request in shop.activecampaign.rows("order_requests")]
    return Counter(int(order) for each in requests if each["applied"] for order in each["real_time"])


async def told(shop: LiveShop, *kinds: str) -> None:
    """Return when the incidents are of these kinds: they are persisted once a second."""

    async def are_told() -> bool:
        return {each["kind"] for each in shop.status()["troubles"]} == set(kinds)

    await until(are_told)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
async def test_orders_go_on_after_setup_made_a_new_connection_and_none_is_a_purchase_twice(
    database: str, tmp_path: Path, restarted: bool
) -> None:
    async with live_shop(database, tmp_path, 5) as shop, AsyncExitStack() as running:
        shop.environ.update(QUICK)
        await running.enter_async_context(following(shop))
        await order(shop, LIVE_BEFORE, is_live=True)
        await order(shop, OLD_BEFORE, is_live=False)
        await arrived(shop, 2)
        await shop.activecampaign.disconnect(1)
        await order(shop, LIVE_MEANWHILE, is_live=True)
        await order(shop, OLD_MEANWHILE, is_live=False)
        await told(shop, "orders")
        await shop.write(shop.rows.connection, 5)
        await arrived(shop, 3)  # who needs no order goes on
        if restarted:
            await running.aclose()
        await shop.set_up()
        if restarted:
            await running.enter_async_context(following(shop))
        await arrived(shop, 5)

        async def are_all_there() -> bool:
            return len(await orders_there(shop)) == 4

        await until(are_all_there)
        assert await orders_there(shop) == {
            LIVE_BEFORE: "HISTORICAL",
            OLD_BEFORE: "HISTORICAL",
            LIVE_MEANWHILE: "REAL_TIME",
            OLD_MEANWHILE: "HISTORICAL",
        }
        assert await sent_as_purchases(shop) == {LIVE_BEFORE: 1, LIVE_MEANWHILE: 1}
        await told(shop)
        status = shop.status()
        assert (status["orders"], status["equation"]["dead"]) == ({"sent": 4, "refused": 0}, {})
        assert (await shop.activecampaign.state())["breaches"] == {}


async def delete_there(shop: LiveShop, path: str) -> None:
    """Delete something at ActiveCampaign, as its owner may."""
    headers = {"Api-Token": shop.environ["KIVA_STREAM__ACTIVECAMPAIGN__API_TOKEN"]}
    url = shop.environ["KIVA_STREAM__ACTIVECAMPAIGN__API_URL"]
    async with aiohttp.ClientSession() as session, session.delete(f"{url}{path}", headers=headers) as answer:
        assert answer.status == 200, await answer.text()


async def lists(shop: LiveShop) -> dict[str, dict[str, int]]:
    return {address: contact["lists"] for address, contact in (await shop.contacts()).items()}


async def test_on_another_list_opt_outs_are_set_and_nobody_linked_before_is_subscribed(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 3) as shop:
        execute = shop.rows.connection.execute
        await execute("UPDATE kiva.customers SET email_opt_in = false WHERE id = 2")
        await shop.backfill(DAY1)
        assert (await lists(shop))[email(2)] == {"all customers": 2}
        await delete_there(shop, "/api/3/lists/1")
        await shop.set_up()
        await shop.rows.customer(4, email(4))
        await shop.backfill()
        there = {email(1): {}, email(2): {"all customers": 2}, email(3): {}, email(4): {"all customers": 1}}
        assert await lists(shop) == there
        assert shop.status()["not_on_list"] == {"other list": 2}
        assert "2 contacts may not be on the list" in " ".join(shop.run("status").split())

        await execute("UPDATE kiva.customers SET email_opt_in = false WHERE id = 3")
        await shop.backfill()
        assert await lists(shop) == there | {email(3): {"all customers": 2}}
        assert shop.status()["not_on_list"] == {"other list": 1}
        state = await shop.activecampaign.state()
        assert (state["breaches"], state["resubscribed"]) == ({}, 0)


async def test_an_opt_out_while_the_list_is_gone_is_set_on_the_list_that_setup_makes(
    database: str, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 2) as shop:
        shop.environ.update(QUICK)
        await shop.backfill(DAY1)
        async with following(shop, "follow"):
            await shop.write(shop.rows.connection, 1)
            await arrived(shop, 1)
            await delete_there(shop, "/api/3/lists/1")
            await shop.rows.connection.execute(
                "UPDATE kiva.customers SET email_opt_in = false, updated_at = now() WHERE id = 2"
            )

            async def is_held() -> bool:
                rows = await shop.rows.connection.fetch("SELECT kind FROM kiva_stream.held")
                return "list" in {row["kind"] for row in rows}

            await until(is_held)
            await shop.set_up()

            async def is_set() -> bool:
                return bool(shop.status()["not_on_list"] == {"other list": 1})

            await until(is_set)
        assert await lists(shop) == {email(1): {}, email(2): {"all customers": 2}}


async def test_with_another_field_all_contacts_are_sent_again(database: str, tmp_path: Path) -> None:
    async with live_shop(database, tmp_path, 3) as shop:
        await shop.backfill(DAY1)
        shop.environ["KIVA_STREAM__ACTIVECAMPAIGN__FIELD_STATUS"] = "Kiva State"
        await shop.set_up()
        await shop.backfill()
        contacts = (await shop.contacts()).values()
        assert [contact["fields"]["Kiva State"] for contact in contacts] == ["active"] * 3
        assert [contact["fields"]["Kiva Customer ID"] for contact in contacts] == ["1", "2", "3"]
        assert shop.status()["not_on_list"] == {}
        assert (await shop.activecampaign.state())["breaches"] == {}


async def test_with_other_week_tags_every_contact_gets_its_one_again(database: str, tmp_path: Path) -> None:
    async with live_shop(database, tmp_path, 2) as shop:
        await shop.backfill(DAY1)
        assert await shop.tags() == {email(1): ["no order"], email(2): ["no order"]}
        for tag in (1, 2, 3):
            await delete_there(shop, f"/api/3/tags/{tag}")
        assert await shop.tags() == {email(1): [], email(2): []}
        await shop.set_up()
        await shop.backfill()
        assert await shop.tags() == {email(1): ["no order"], email(2): ["no order"]}
        assert (await shop.activecampaign.state())["breaches"] == {}
