"""What requests carry where the shop's rows are odd, and what `check` says before they do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.acceptance.live_shop import LONG_PAID, LiveShop, email, live_shop

NAMES = ("first_name", "last_name", "phone")
BACKFILL = ("backfill", "--since", "day1", "--yes")
REFUSES_EMPTY_TEXTS = {
    "path": "/ecom/graphql",
    "kind": "answer-before",
    "matching": r':\s*""|\{\}',
    "status": 400,
    "text": "an empty text",
}


@pytest.fixture
async def shop(database: str, tmp_path: Path) -> AsyncIterator[LiveShop]:
    """A shop of two customers with names and phones, before a backfill."""
    async with live_shop(database, tmp_path, 2) as live:
        await live.rows.connection.execute(
            "UPDATE kiva.customers SET first_name = 'Ann', last_name = 'Lee', phone = '+1 555 0100'"
        )
        yield live


async def test_an_item_without_a_product_and_negative_amounts_arrive_and_the_total_stands(
    shop: LiveShop,
) -> None:
    await shop.order(5, 1, discount_cents=-300, **LONG_PAID)
    await shop.rows.connection.execute("UPDATE kiva.order_items SET unit_price_cents = -100")
    await shop.activecampaign.fail(REFUSES_EMPTY_TEXTS)
    shop.run(*BACKFILL)

    order = await shop.order_there(5)
    [item] = order["lineItems"]
    assert (item["priceAmount"], "productStorePrimaryId" in item) == (0, False)
    assert (order["discountsAmount"], order["finalAmount"]) == (0, 42.5)
    status = shop.status()
    assert status["orders"] == {"sent": 1, "refused": 0}
    assert status["notes"] == {"negative_discount": 1, "negative_price": 1}
    assert (await shop.activecampaign.state())["faults"] == {}


async def test_a_phone_and_a_name_that_the_shop_clears_are_cleared(shop: LiveShop) -> None:
    shop.run(*BACKFILL)
    await shop.rows.connection.execute(
        "UPDATE kiva.customers SET last_name = '', phone = NULL, updated_at = clock_timestamp() WHERE id = 1"
    )
    shop.run("backfill")

    contacts = await shop.contacts()
    shown = {number: [contacts[email(number)][name] for name in NAMES] for number in (1, 2)}
    assert shown == {1: ["Ann", "", ""], 2: ["Ann", "Lee", "+1 555 0100"]}
    shop.run("verify")


@pytest.mark.parametrize("currency", ["XYZ", "$"])
async def test_check_tells_a_currency_that_is_no_code_before_orders_are_refused(
    shop: LiveShop, currency: str
) -> None:
    await shop.rows.connection.execute("UPDATE kiva.sites SET currency = $1 WHERE id = 1", currency)
    ended = shop.ended("check", "--json")
    assert ended.code == 7, ended.err
    [row] = [row for row in msgspec.json.decode(ended.out)["lines"] if not row["ok"]]
    assert (row["subject"], f"'{currency}'" in row["text"]) == ("currency", True)
