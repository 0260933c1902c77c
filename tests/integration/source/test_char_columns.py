"""Texts that PostgreSQL fills up with blanks: columns of type char(n), also behind domains and views."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest

from kiva_stream.model.ids import CustomerId, Email, OrderId
from kiva_stream.primitives import sql_blocks
from kiva_stream.source.changes import ChangeLog
from kiva_stream.source.contract import CONTRACT, TEXT, require_contract
from kiva_stream.source.customers import ShopCustomers
from kiva_stream.source.orders import ShopOrders
from kiva_stream.source.site import read_site
from kiva_stream.source.weeks import DeliveryWeeks
from tests.support.shop_rows import LONG_AGO, ShopRows, opened_log, read

ANN, CUSTOMERS, MONDAY = Email("ann@example.com"), [CustomerId(5)], date(2018, 11, 26)
PADDED_DOMAINS = """
CREATE DOMAIN kiva.padded AS char(300);
CREATE DOMAIN kiva.padded_and_filled AS kiva.padded CHECK (VALUE <> '');
"""
PADDED_TYPES = ("char(300)", "kiva.padded", "kiva.padded_and_filled")


@pytest.fixture
async def shop(database: str) -> AsyncIterator[ShopRows]:
    """A shop with rows in each table that has texts, and every text filled in."""
    async with ShopRows.create(database) as rows:
        await rows.insert("box_types", id=3, site_id=1, code="s", name="Small Box", price_cents=100)
        names = {"first_name": "Ann", "last_name": "Lee", "phone": "555", "status": "paused"}
        await rows.customer(5, ANN, box_type_id=3, **names)
        await write_order(rows, 7, payment_status="completed")
        await write_order(rows, 8, payment_status="none", paid_at=LONG_AGO)
        staff = {"actor_type": "admin", "admin_user": "wayne"}
        await rows.entry(10, action="login.password", customer_id=5, **staff)
        await rows.entry(11, action="login.password", data='{"email": "ann@example.com"}', **staff)
        await rows.entry(12, message="Ann Lee logged in via cookie", customer_id=5)
        await rows.connection.execute(PADDED_DOMAINS)
        yield rows


async def write_order(shop: ShopRows, number: int, **columns: object) -> None:
    own = {
        "site_id": 1,
        "customer_id": 5,
        "status": "complete",
        "week_start": MONDAY,
        "delivery_date": MONDAY,
    }
    own |= {"subtotal_cents": 1, "total_cents": 1, "created_at": LONG_AGO, "updated_at": LONG_AGO}
    await shop.insert("orders", id=number, **own | columns)
    item = {"name": "Kale", "category": "menu", "qty": 1, "unit_price_cents": 1}
    await shop.insert("order_items", order_id=number, **item)


async def pad(shop: ShopRows, kind: str) -> None:
    """Give every text column that is read a type that PostgreSQL fills up with blanks."""
    for table, kinds in CONTRACT.items():
        if texts := [column for column in kinds if kinds[column] == TEXT]:
            changes = ", ".join(f"ALTER {column} TYPE {kind}" for column in texts)
            await shop.connection.execute(f"ALTER TABLE kiva.{table} {changes}")


async def hide_behind_views(shop: ShopRows) -> None:
    for table in CONTRACT:
        await shop.connection.execute(
            f"ALTER TABLE kiva.{table} RENAME TO {table}_behind;"
            f"CREATE VIEW kiva.{table} AS SELECT * FROM kiva.{table}_behind"
        )


async def everything(dsn: str) -> dict[str, Any]:
    """Return all that is read of the shop."""
    async with opened_log(dsn) as opened:
        pool = opened.pool
        await pool.read(lambda connection: require_contract(connection, "kiva", 1))
        customers, orders = ShopCustomers(pool, 1, []), ShopOrders(pool, 1)
        entries = await read(opened)
        return {
            "site": await read_site(pool, 1),
            "entries": entries,
            "entries by position": await opened.log.entries([entry.position for entry in entries]),
            "customers": await customers.by_id(CUSTOMERS),
            "customers by address": await customers.by_email([ANN]),
            "reachable": await customers.count_reachable(),
            "page": await customers.page(CustomerId(0), 10),
            "accounts": await customers.accounts(CUSTOMERS),
            "orders": await orders.page(OrderId(0), 10),
            "paid": await orders.paid_by(CUSTOMERS),
            "statuses": await DeliveryWeeks(pool, 1).statuses(CUSTOMERS, MONDAY),
            "changes": [each async for each in ChangeLog(pool, 1, customers).since(entries[0].occurred_at)],
        }


@pytest.mark.parametrize("kind", PADDED_TYPES)
async def test_a_text_that_is_filled_up_with_blanks_reads_like_any_other(
    shop: ShopRows, database: str, kind: str
) -> None:
    before = await everything(database)
    assert all(before.values()), before
    await pad(shop, kind)
    assert await everything(database) == before


async def test_a_text_that_is_filled_up_with_blanks_behind_a_view_reads_like_any_other(
    shop: ShopRows, database: str
) -> None:
    before = await everything(database)
    await pad(shop, "char(300)")
    await hide_behind_views(shop)
    assert await everything(database) == before


@pytest.mark.parametrize("kind", PADDED_TYPES)
@pytest.mark.parametrize("replaced", [(), ("queries_by_id.sql",)])
async def test_no_query_returns_a_text_that_is_filled_up_with_blanks(
    shop: ShopRows, kind: str, replaced: tuple[str, ...]
) -> None:
    await pad(shop, kind)
    blocks = sql_blocks.load("kiva_stream.source", "kiva", "queries.sql", *replaced)
    for name, query in whole_queries(blocks).items():
        statement = await shop.connection.prepare(query)
        types = {attribute.name: attribute.type.name for attribute in statement.get_attributes()}
        assert not [column for column in types if "bpchar" in types[column]], (name, types)


def whole_queries(blocks: dict[str, str]) -> dict[str, str]:
    """Return the blocks that are queries; the others, and `items`, are parts of them."""
    texts = {
        name: "\n".join(line for line in text.splitlines() if not line.startswith("--"))
        for name, text in blocks.items()
    }
    return {
        name: text for name, text in texts.items() if text.startswith(("SELECT", "WITH")) and name != "items"
    }
