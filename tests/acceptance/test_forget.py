"""`forget`: nothing of a person is left, here and at ActiveCampaign, but a tombstone that keeps them out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from kiva_stream.model.positions import DAY1
from tests.acceptance.live_shop import LONG_PAID, LiveShop, email, live_shop
from tests.acceptance.stages import until, wait_for_stderr
from tests.support.postgres import connected

ANN, BEA, CAT, DAN = 1, 2, 3, 4
COLUMNS = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = 'kiva_stream' AND data_type IN ('text', 'jsonb', 'bytea', 'bigint', 'ARRAY')
"""


@pytest.fixture
async def shop(database: str, tmp_path: Path) -> AsyncIterator[LiveShop]:
    """Ann is alone at her address, Bea and Cat share one; each has an event and a paid order, all carried."""
    async with live_shop(database, tmp_path, 4) as shop:
        await shop.rows.connection.execute(
            "UPDATE kiva.customers SET email = $1 WHERE id = $2", email(BEA), CAT
        )
        for customer in (ANN, BEA, CAT):
            await shop.write(shop.rows.connection, customer)
            await shop.order(customer * 100, customer, **LONG_PAID)
        await shop.backfill(DAY1)
        yield shop


def forgotten(shop: LiveShop, customer: int, **environ: str) -> dict[str, Any]:
    """Forget a customer; return the receipt."""
    receipt: dict[str, Any] = msgspec.json.decode(
        shop.run("forget", "--customer", str(customer), "--yes", "--json", code=0, **environ)
    )
    return receipt


async def traces(look: asyncpg.Connection, *texts: str) -> set[tuple[str, str]]:
    """Return the columns of the state in which one of these texts is found."""
    found = set()
    for table, column in await look.fetch(COLUMNS):
        query = f"SELECT coalesce(string_agg({column}::text, ' '), '') FROM kiva_stream.{table}"
        held = await look.fetchval(query)
        if any(text in held for text in texts):
            found.add((table, column))
    return found


async def rows_of(look: asyncpg.Connection, customer: int) -> int:
    """Return how many rows of the state are about a customer, but for the tombstone."""
    return await look.fetchval(  # type: ignore[no-any-return]
        "SELECT (SELECT count(*) FROM kiva_stream.customer WHERE customer_id = $1)"
        " + (SELECT count(*) FROM kiva_stream.dead_letter WHERE customer_id = $1)"
        " + (SELECT count(*) FROM kiva_stream.sent_order WHERE order_id = $1 * 100)",
        customer,
    )


async def customers_of_orders(shop: LiveShop) -> set[int]:
    return {int(order["storeCustomerId"]) async for order in shop.activecampaign.rows("orders")}


async def test_nothing_is_left_of_a_person_but_a_tombstone_that_keeps_them_out(shop: LiveShop) -> None:
    receipt = forgotten(shop, ANN)
    assert receipt["contact"] == "deleted"
    assert receipt["deleted"] == {
        "orders at ActiveCampaign": 1,
        "orders in the state": 1,
        "contacts at ActiveCampaign": 1,
        "links in the state": 1,
        "events in the state": 1,
        "contacts in the state": 1,
    }
    assert email(ANN) not in await shop.contacts()
    assert await customers_of_orders(shop) == {BEA, CAT}
    async with connected(shop.dsn) as look:
        assert await traces(look, email(ANN), "customer1@", "example.com customer1") == set()
        assert await rows_of(look, ANN) == 0
        assert await look.fetch("SELECT customer_id FROM kiva_stream.tombstone") == [(ANN,)]
        before = len(await shop.arrivals())
        await shop.write(shop.rows.connection, ANN)
        await look.execute("UPDATE kiva.customers SET email = $1 WHERE id = $2", email(ANN).upper(), DAN)
        await shop.write(shop.rows.connection, DAN)
        await shop.backfill()
        assert email(ANN) not in await shop.contacts()
        assert len(await shop.arrivals()) == before
        assert await traces(look, email(ANN)) == set()
    equation = shop.status()["equation"]
    assert (equation["entries_read"], equation["skipped"]) == (5, {"erased": 2})
    assert shop.status()["orders"] == {"sent": 2, "refused": 0}
    assert "is erased" in shop.run("sync", "--customer", str(ANN), code=2)


async def test_a_shared_contact_survives_when_one_of_its_customers_is_forgotten(
    shop: LiveShop,
) -> None:
    before = (await shop.contacts())[email(BEA)]
    best = int(before["fields"]["Kiva Customer ID"])
    other = BEA + CAT - best
    receipt = forgotten(shop, best)
    assert (receipt["contact"], receipt["is_address_barred"]) == ("shared: it stays, for the others", False)
    after = (await shop.contacts())[email(BEA)]
    assert (after["id"], after["fields"]["Kiva Customer ID"]) == (before["id"], str(other))
    assert await customers_of_orders(shop) == {ANN, other}
    for customer in (best, other):
        await shop.write(shop.rows.connection, customer)
    await shop.backfill()
    assert (await shop.contacts())[email(BEA)]["fields"]["Kiva Customer ID"] == str(other)
    assert await customers_of_orders(shop) == {ANN, other}
    assert shop.status()["equation"]["skipped"] == {"erased": 1}
    async with connected(shop.dsn) as look:
        assert await rows_of(look, best) == 0
        assert await rows_of(look, other) == 2


async def test_a_forgetting_that_was_interrupted_is_finished_by_the_next_one(shop: LiveShop) -> None:
    await shop.activecampaign.fail("/api/3/contacts/*:500-before:1")
    process = shop.start("forget", "--customer", str(ANN), "--yes")

    async with connected(shop.dsn) as look:

        async def is_barred() -> bool:
            return bool(await look.fetchval("SELECT count(*) FROM kiva_stream.tombstone"))

        await until(is_barred)
    process.terminate()
    process.communicate(timeout=20)
    await shop.activecampaign.fail()
    shop.run_after_a_kill("backfill")  # does not bring her back
    assert forgotten(shop, ANN)["contact"] == "deleted"
    assert email(ANN) not in await shop.contacts()
    assert forgotten(shop, ANN)["deleted"] == {}


async def test_a_customer_gone_from_the_shop_can_be_forgotten_and_an_unknown_one_cannot(
    shop: LiveShop,
) -> None:
    await shop.rows.connection.execute("DELETE FROM kiva.customers WHERE id = $1", ANN)
    assert forgotten(shop, ANN)["contact"] == "deleted"
    assert email(ANN) not in await shop.contacts()
    assert "There is no customer 77" in shop.run("forget", "--customer", "77", "--yes", code=2)


async def test_an_order_that_was_accepted_just_now_is_deleted_though_the_shop_has_it_no_more(
    shop: LiveShop,
) -> None:
    await shop.activecampaign.change(order_delay_s=3)
    await shop.write(shop.rows.connection, DAN)
    await shop.order(DAN * 100, DAN, **LONG_PAID)
    await shop.backfill()
    await shop.rows.connection.execute("DELETE FROM kiva.order_items WHERE order_id = $1", DAN * 100)
    await shop.rows.connection.execute("DELETE FROM kiva.orders WHERE id = $1", DAN * 100)
    deleted = forgotten(shop, DAN, KIVA_STREAM__ACTIVECAMPAIGN__ORDER_SETTLE_S="3")["deleted"]
    assert (deleted["orders at ActiveCampaign"], deleted["orders in the state"]) == (1, 1)
    assert await customers_of_orders(shop) == {ANN, BEA, CAT}


async def test_an_address_that_another_customer_of_the_shop_has_is_not_barred_even_before_it_is_linked(
    shop: LiveShop,
) -> None:
    await shop.rows.connection.execute("UPDATE kiva.customers SET email = $1 WHERE id = $2", email(ANN), DAN)
    assert forgotten(shop, ANN)["is_address_barred"] is False
    await shop.backfill()
    assert (await shop.contacts())[email(ANN)]["fields"]["Kiva Customer ID"] == str(DAN)


async def test_a_customer_whom_the_shop_erased_is_listed_until_forgotten(shop: LiveShop) -> None:
    await shop.rows.connection.execute("UPDATE kiva.customers SET deleted_at = now() WHERE id = $1", ANN)
    await shop.backfill()
    assert shop.status()["erased"] == [str(ANN)]
    assert "customers 1 are still at ActiveCampaign: run `forget`" in shop.run("status")
    forgotten(shop, ANN)
    assert shop.status()["erased"] == []


async def test_forget_does_not_disturb_a_running_service(shop: LiveShop) -> None:
    with shop.start("follow") as process:
        wait_for_stderr(process, "following")
        assert "is held by" in shop.run("forget", "--customer", str(ANN), "--yes", code=6)
        process.terminate()
        process.communicate(timeout=20)
