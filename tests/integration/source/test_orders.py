"""The shop's orders, weeks and changes, read from a real PostgreSQL: in sets, and whatever the rows hold."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from kiva_stream.model.entries import Change
from kiva_stream.model.ids import CustomerId, OrderId
from kiva_stream.model.orders import Order, OrderItem
from kiva_stream.primitives import sql_blocks
from kiva_stream.source import changes as changes_module
from kiva_stream.source.changes import ChangeLog
from kiva_stream.source.customers import ShopCustomers
from kiva_stream.source.orders import ShopOrders
from kiva_stream.source.source import Source
from kiva_stream.source.weeks import DeliveryWeeks
from tests.support.postgres import as_role
from tests.support.shop_rows import LONG_AGO, ShopRows, source_settings

MONDAY = date(2018, 11, 26)
OLD = datetime(2018, 3, 4, 17, 2, 10, tzinfo=UTC)  # LONG_AGO
DAY = timedelta(days=1)


@pytest.fixture
async def shop(database: str) -> AsyncIterator[ShopRows]:
    """A shop like one that gives views: it has the types of the contract, not its checks."""
    async with ShopRows.create(database) as rows:
        for table in ("orders", "order_items", "delivery_weeks", "customers"):
            await loosen(rows, table)
        yield rows


async def loosen(shop: ShopRows, table: str) -> None:
    """Drop a table's checks, and let all but its key be NULL."""
    checks = await shop.connection.fetch(
        "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = $1::text::regclass",
        f"kiva.{table}",
    )
    columns = await shop.connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attnum > 0 AND attnotnull AND attname <> 'id'"
        "AND NOT attisdropped AND attrelid = $1::text::regclass",
        f"kiva.{table}",
    )
    drops = [f"DROP CONSTRAINT {row[0]}" for row in checks]
    drops += [f"ALTER {row[0]} DROP NOT NULL" for row in columns]
    await shop.connection.execute(f"ALTER TABLE kiva.{table} {', '.join(drops)}")


@dataclass
class Reading:
    """What reads orders, weeks and changes, on a source of its own."""

    orders: ShopOrders
    weeks: DeliveryWeeks
    changes: ChangeLog

    async def one(self, order_id: int = 71) -> Order:
        (order,) = await self.orders.orders([OrderId(order_id)])
        return order

    async def changed(self, since: datetime) -> list[list[Change]]:
        return [page async for page in self.changes.since(since)]


def reading(source: Source, site_id: int) -> Reading:
    customers = ShopCustomers(source, site_id, [])
    changes = ChangeLog(source, site_id, customers)
    return Reading(ShopOrders(source, site_id), DeliveryWeeks(source, site_id), changes)


@pytest.fixture
async def site(database: str, shop: ShopRows) -> AsyncIterator[Reading]:
    async with Source.open(source_settings(database)) as source:
        yield reading(source, 1)


@pytest.fixture
async def neighbour(database: str, shop: ShopRows) -> AsyncIterator[Reading]:
    """Site 2 of the same database."""
    async with Source.open(source_settings(database)) as source:
        yield reading(source, 2)


async def write_order(shop: ShopRows, order_id: int, **columns: object) -> None:
    """Write an order of customer 5 of site 1, by default a paid one without items."""
    own = {"site_id": 1, "customer_id": 5, "status": "complete", "payment_status": "completed"}
    own |= {"week_start": MONDAY, "delivery_date": MONDAY, "subtotal_cents": 1, "total_cents": 4250}
    own |= {"created_at": LONG_AGO, "paid_at": LONG_AGO, "updated_at": LONG_AGO}
    await shop.insert("orders", id=order_id, **own | columns)


async def write_item(shop: ShopRows, order_id: int, **columns: object) -> None:
    own = {"name": "Kale", "category": "menu", "qty": 1, "unit_price_cents": 350, "product_id": 31}
    await shop.insert("order_items", order_id=order_id, **own | columns)


def ids(orders: list[Order]) -> list[int]:
    return [order.id for order in orders]


# Orders


async def test_an_order_is_the_row_as_it_is_now_with_its_items_by_id(shop: ShopRows, site: Reading) -> None:
    await write_order(shop, 71, discount_cents=300, credit_cents=50)
    await write_item(shop, 71, id=9, name="Sourdough", category="addon", qty="1.50", product_id=None)
    await write_item(shop, 71, id=8)
    await write_item(shop, 71, id=7, removed_at=LONG_AGO)
    assert await site.one() == Order(
        id=OrderId(71),
        customer_id=CustomerId(5),
        status="complete",
        payment_status="completed",
        created_at=OLD,
        paid_at=OLD,
        total_cents=4250,
        discount_cents=300,
        credit_cents=50,
        items=(
            OrderItem(8, 31, "Kale", "menu", Decimal(1), 350),
            OrderItem(9, None, "Sourdough", "addon", Decimal("1.5"), 350),
        ),
    )


async def test_items_stay_with_their_orders(shop: ShopRows, site: Reading) -> None:
    for order_id in (71, 72, 73):
        await write_order(shop, order_id)
    for order_id, name in ((73, "a"), (71, "b"), (73, "c")):
        await write_item(shop, order_id, name=name)
    names = {order.id: [item.name for item in order.items] for order in await site.orders.page(OrderId(0), 9)}
    assert names == {71: ["b"], 72: [], 73: ["a", "c"]}


PAID: dict[int, dict[str, object]] = {
    71: {"paid_at": LONG_AGO, "payment_status": "failed"},
    72: {"paid_at": None, "payment_status": "completed"},
    73: {"paid_at": None, "payment_status": "refunded"},
    74: {"paid_at": "infinity", "payment_status": None},
}
UNPAID = {81: "pending", 82: "failed", 83: None}


@pytest.fixture
async def seven(shop: ShopRows) -> None:
    """Four paid orders and three that are not, of customer 5; a paid one of customer 6, one of site 2."""
    for order_id, columns in PAID.items():
        await write_order(shop, order_id, **columns)
    for order_id, status in UNPAID.items():
        await write_order(shop, order_id, payment_status=status, paid_at=None)
    await write_order(shop, 91, customer_id=6)
    await write_order(shop, 92, site_id=2)


@pytest.mark.usefixtures("seven")
async def test_paid_orders_come_in_pages_by_id(site: Reading, neighbour: Reading) -> None:
    assert ids(await site.orders.page(OrderId(0), 3)) == [71, 72, 73]
    assert ids(await site.orders.page(OrderId(73), 3)) == [74, 91]
    assert await site.orders.page(OrderId(91), 3) == []
    assert ids(await neighbour.orders.page(OrderId(0), 9)) == [92]
    assert all(order.is_paid for order in await site.orders.page(OrderId(0), 9))


@pytest.mark.usefixtures("seven")
async def test_a_page_counts_orders_and_not_items(shop: ShopRows, site: Reading) -> None:
    for _ in range(5):
        await write_item(shop, 71)
    page = await site.orders.page(OrderId(0), 2)
    assert [(order.id, len(order.items)) for order in page] == [(71, 5), (72, 0)]


@pytest.mark.usefixtures("seven")
async def test_orders_by_id_are_read_paid_or_not_from_this_site_alone(site: Reading) -> None:
    asked = [OrderId(number) for number in (92, 81, 71, 99)]
    found = await site.orders.orders(asked)
    assert [(order.id, order.is_paid) for order in found] == [(71, True), (81, False)]
    assert await site.orders.orders([]) == []


@pytest.mark.usefixtures("seven")
async def test_all_paid_orders_of_customers_are_named(site: Reading) -> None:
    assert await site.orders.paid_by([CustomerId(5)]) == [71, 72, 73, 74]
    assert await site.orders.paid_by([CustomerId(6), CustomerId(7)]) == [91]
    assert await site.orders.paid_by([]) == []


@pytest.mark.usefixtures("seven")
async def test_paid_orders_are_counted_without_reading_them(site: Reading) -> None:
    assert await site.orders.count_paid() == 5


async def test_a_count_of_orders_that_takes_too_long_is_given_up(database: str, shop: ShopRows) -> None:
    settings = source_settings(database, statement_timeout_s=0.1)
    async with Source.open(settings) as source, shop.connection.transaction():
        await shop.connection.execute("LOCK TABLE kiva.orders")
        assert await ShopOrders(source, 1).count_paid() is None


async def test_row_34_an_order_may_have_no_items_or_not_be_there(shop: ShopRows, site: Reading) -> None:
    await write_order(shop, 71)
    await write_item(shop, 71, removed_at=LONG_AGO)
    orders = await site.orders.orders([OrderId(71), OrderId(72)])
    assert [(order.id, order.items) for order in orders] == [(71, ())]


@pytest.mark.parametrize("total", [-1, 0, 2_147_483_647])
async def test_row_35_a_total_is_read_whatever_it_is(shop: ShopRows, site: Reading, total: int) -> None:
    await write_order(shop, 71, total_cents=total)
    assert (await site.one()).total_cents == total


async def test_row_37_a_category_and_a_name_are_read_whatever_they_are(shop: ShopRows, site: Reading) -> None:
    await write_order(shop, 71)
    for name, category in (("", "gift"), (None, None)):
        await write_item(shop, 71, name=name, category=category)
    assert [(item.name, item.category) for item in (await site.one()).items] == [("", "gift"), ("", "")]


async def test_row_38_a_quantity_is_read_whatever_it_is(shop: ShopRows, site: Reading) -> None:
    await shop.connection.execute("ALTER TABLE kiva.order_items ALTER qty TYPE numeric")
    await write_order(shop, 71)
    for qty in ("0", "1.5", "-2", "NaN", "Infinity", "-Infinity", None):
        await write_item(shop, 71, qty=qty)
    found = [str(item.qty) for item in (await site.one()).items]
    assert found == ["0", "1.5", "-2", "NaN", "Infinity", "-Infinity", "0"]


async def test_a_quantity_may_be_a_column_of_whole_numbers(shop: ShopRows, site: Reading) -> None:
    await shop.connection.execute("ALTER TABLE kiva.order_items ALTER qty TYPE int")
    await write_order(shop, 71)
    await write_item(shop, 71, qty=3)
    assert (await site.one()).items[0].qty == Decimal(3)


@pytest.mark.parametrize(
    ("moment", "year"),
    [("infinity", 9998), ("20000-01-01 00:00Z", 9998), ("-infinity", 2), ("4713-01-01Z BC", 2)],
)
async def test_moments_that_no_datetime_holds_stop_nothing(
    shop: ShopRows, site: Reading, moment: str, year: int
) -> None:
    await write_order(shop, 71, created_at=moment, paid_at=moment, updated_at=moment)
    order = await site.one()
    assert order.paid_at is not None
    assert (order.created_at.year, order.paid_at.year) == (year, year)
    assert ids(await site.orders.page(OrderId(0), 9)) == [71]


async def test_columns_that_a_view_leaves_empty_stop_no_order(shop: ShopRows, site: Reading) -> None:
    unknown = dict.fromkeys(
        ("status", "payment_status", "created_at", "paid_at", "total_cents", "discount_cents", "credit_cents")
    )
    await write_order(shop, 71, **unknown)
    await write_item(shop, 71, unit_price_cents=None)
    await write_order(shop, 72, customer_id=None)
    order = await site.one()
    assert (order.status, order.payment_status, order.paid_at, order.is_paid) == ("", "none", None, False)
    assert (order.total_cents, order.discount_cents, order.credit_cents) == (0, 0, 0)
    assert order.items[0].unit_price_cents == 0
    assert await site.orders.orders([OrderId(72)]) == []
    assert await site.orders.page(OrderId(0), 9) == []


# Weeks


async def open_week(shop: ShopRows, week: object, opened_at: object, site_id: int = 1) -> None:
    await shop.insert("delivery_weeks", site_id=site_id, week_start=week, opened_at=opened_at)


async def this_monday(shop: ShopRows, timezone: str) -> date:
    today: date = await shop.connection.fetchval("SELECT (now() AT TIME ZONE $1)::date", timezone)
    return today - timedelta(days=today.weekday())


async def test_the_current_week_is_the_one_opened_last(shop: ShopRows, site: Reading) -> None:
    await open_week(shop, MONDAY + 7 * DAY, "2018-11-30 18:00Z")
    await open_week(shop, MONDAY, "2018-11-23 18:00Z")
    await open_week(shop, MONDAY + 14 * DAY, "2018-11-16 18:00Z")  # out of turn
    assert await site.weeks.current() == MONDAY + 7 * DAY


async def test_a_week_that_is_still_to_be_opened_is_not_current(shop: ShopRows, site: Reading) -> None:
    await open_week(shop, MONDAY, LONG_AGO)
    await open_week(shop, MONDAY + 7 * DAY, datetime.now(UTC) + DAY)
    await open_week(shop, MONDAY + 14 * DAY, "infinity")
    await open_week(shop, MONDAY + 21 * DAY, None)
    assert await site.weeks.current() == MONDAY


async def test_row_47_a_week_opened_twice_is_the_same_week(shop: ShopRows, site: Reading) -> None:
    await shop.connection.execute(
        "ALTER TABLE kiva.delivery_weeks DROP CONSTRAINT delivery_weeks_site_id_week_start_key"
    )
    await open_week(shop, MONDAY - 7 * DAY, LONG_AGO)
    for moment in ("2018-11-23 18:00Z", "2018-11-23 19:00Z"):
        await open_week(shop, MONDAY, moment)
        assert await site.weeks.current() == MONDAY


@pytest.mark.parametrize("timezone", ["America/Denver", "Pacific/Kiritimati", "Etc/GMT+12"])
async def test_row_47_a_site_that_never_opened_a_week_has_the_calendars(
    shop: ShopRows, site: Reading, timezone: str
) -> None:
    """The last two are 26 hours apart, so on a Sunday or a Monday their weeks differ."""
    await open_week(shop, MONDAY, LONG_AGO, site_id=2)
    await shop.connection.execute("UPDATE kiva.sites SET timezone = $1 WHERE id = 1", timezone)
    before = await this_monday(shop, timezone)
    found = await site.weeks.current()
    assert found in {before, await this_monday(shop, timezone)}  # midnight may pass between
    assert found.weekday() == 0


@pytest.mark.parametrize("week", ["infinity", "-infinity", "20000-01-03", "0044-03-15 BC", None])
async def test_a_week_that_no_date_holds_is_passed_over(
    shop: ShopRows, site: Reading, week: str | None
) -> None:
    await open_week(shop, MONDAY, LONG_AGO)
    await open_week(shop, week, "2018-12-01Z")
    assert await site.weeks.current() == MONDAY


async def test_the_statuses_of_a_customers_orders_of_a_week_come_together(
    shop: ShopRows, site: Reading
) -> None:
    for order_id, customer_id, status in (
        (71, 5, "open"),
        (72, 5, "skipped"),
        (73, 5, "open"),
        (74, 6, "closed"),
        (75, 7, "open"),
        (76, 8, None),
    ):
        await write_order(shop, order_id, customer_id=customer_id, status=status)
    await write_order(shop, 81, site_id=2, status="cancelled")
    asked = [CustomerId(number) for number in (5, 6, 8, 9)]
    assert await site.weeks.statuses(asked, MONDAY) == {5: {"open", "skipped"}, 6: {"closed"}}
    assert await site.weeks.statuses([], MONDAY) == {}


async def test_row_48_of_two_weeks_open_at_once_only_the_last_counts(shop: ShopRows, site: Reading) -> None:
    await open_week(shop, MONDAY - 7 * DAY, "2018-11-16 18:00Z")
    await open_week(shop, MONDAY, "2018-11-23 18:00Z")
    await write_order(shop, 71, week_start=MONDAY - 7 * DAY, status="open")
    await write_order(shop, 72, week_start=MONDAY, status="closed")
    week = await site.weeks.current()
    assert await site.weeks.statuses([CustomerId(5)], week) == {5: {"closed"}}


# Changes


async def test_the_clock_is_the_databases(shop: ShopRows, site: Reading) -> None:
    before = await shop.connection.fetchval("SELECT clock_timestamp()")
    now = await site.changes.now()
    assert before <= now <= await shop.connection.fetchval("SELECT clock_timestamp()")


async def test_changed_customers_come_before_those_with_changed_orders(shop: ShopRows, site: Reading) -> None:
    for number in (5, 6, 7):
        await shop.customer(number, f"{number}@example.com", updated_at=OLD + number * DAY)
    await write_order(shop, 71, updated_at=OLD + 6 * DAY)
    await write_order(shop, 72, updated_at=OLD + 7 * DAY)
    await write_order(shop, 73, updated_at=OLD + 5 * DAY)
    await write_order(shop, 74, updated_at=OLD + 8 * DAY, customer_id=7)
    customers, orders = await site.changed(OLD + 6 * DAY)
    assert {(each.customer.id, each.changed_at, each.orders) for each in customers} == {
        (6, OLD + 6 * DAY, frozenset()),
        (7, OLD + 7 * DAY, frozenset()),
    }
    assert {(each.customer.id, each.changed_at, each.orders) for each in orders} == {
        (5, OLD + 7 * DAY, frozenset({71, 72})),
        (7, OLD + 8 * DAY, frozenset({74})),
    }
    assert {each.customer.email for each in customers} == {"6@example.com", "7@example.com"}


async def test_nothing_changed_is_nothing(shop: ShopRows, site: Reading) -> None:
    await shop.customer(5)
    await write_order(shop, 71)
    assert await site.changed(OLD + DAY) == []


async def test_changes_come_in_pages_without_gap_or_repeat(
    shop: ShopRows, site: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "PAGE_ROWS", 3)
    for number in range(1, 9):  # all but two at the same moment
        await shop.customer(number, updated_at=OLD + (number in {2, 5}) * DAY)
    pages = await site.changed(OLD)
    assert [sorted(each.customer.id for each in page) for page in pages] == [[1, 3, 4], [6, 7, 8], [2, 5]]


async def test_orders_without_a_customer_and_rows_of_other_sites_are_no_changes(
    shop: ShopRows, site: Reading
) -> None:
    await shop.customer(6, site_id=2)
    await write_order(shop, 71)  # of an erased customer
    await write_order(shop, 72, customer_id=6)  # of another site's
    await write_order(shop, 73, customer_id=None)
    await write_order(shop, 74, site_id=2)
    assert [change for page in await site.changed(OLD) for change in page] == []


@pytest.mark.parametrize("moment", ["infinity", "20000-01-01 00:00Z", "-infinity", None])
async def test_rows_changed_at_no_moment_that_can_be_are_left_to_the_sweep(
    shop: ShopRows, site: Reading, moment: str | None
) -> None:
    await shop.customer(5, updated_at=moment)
    await write_order(shop, 71, updated_at=moment)
    assert await site.changed(OLD) == []


# Gentle


@pytest.fixture
async def role(shop: ShopRows) -> AsyncIterator[str]:
    """A role that may look at the shop's tables, and nothing else."""
    name = f"kiva_test_{uuid4().hex}"
    await shop.connection.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA kiva TO {name};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA kiva TO {name}"
    )
    yield name
    await shop.connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_role_with_nothing_but_select_can_read_orders_weeks_and_changes(
    database: str, shop: ShopRows, role: str
) -> None:
    await shop.customer(5)
    await write_order(shop, 71)
    await write_item(shop, 71)
    await open_week(shop, MONDAY, LONG_AGO)
    async with Source.open(source_settings(as_role(database, role))) as source:
        site = reading(source, 1)
        assert len((await site.one()).items) == len(await site.orders.page(OrderId(0), 9)) == 1
        assert await site.orders.paid_by([CustomerId(5)]) == [71]
        assert await site.orders.count_paid() == 1
        assert await site.weeks.statuses([CustomerId(5)], await site.weeks.current()) == {5: {"complete"}}
        assert len(await site.changed(OLD)) == 2


PLANS: dict[str, tuple[str, str]] = {
    "paid_orders_after": ("1, 5000, 100", "order_items_order"),
    "orders": ("1, '{5000, 5001}'", "order_items_order"),
    "paid_by": ("1, '{50, 51}'", "orders_customer_week"),
    "week_statuses": ("1, '{50, 51}', '2018-11-26'", "orders_customer_week"),
    "changed_orders": ("1, '2018-11-26', 5000, 100", "orders_updated"),
    "changed_customers": ("1, '2018-11-26', 5000, 100", "customers_updated"),
    "customer_accounts": ("1, '{50, 51}'", "customers_pkey"),
}


@pytest.fixture
async def filled(shop: ShopRows) -> asyncpg.Connection:
    """A shop with 20,000 customers, two orders each, four items an order."""
    await shop.connection.execute(
        "INSERT INTO kiva.customers (id, site_id, created_at, updated_at)"
        "SELECT n, 1, now(), '2018-01-01'::timestamptz + n * interval '1 h' FROM generate_series(1, 20000) n;"
        "INSERT INTO kiva.orders (id, site_id, customer_id, week_start, delivery_date, status,"
        " payment_status, subtotal_cents, total_cents, created_at, paid_at, updated_at)"
        "SELECT n, 1, n / 2, '2018-11-26', '2018-11-27', 'complete', 'completed', 1, 1, now(), now(),"
        " '2018-01-01'::timestamptz + n * interval '1 hour' FROM generate_series(1, 40000) n;"
        "INSERT INTO kiva.order_items (order_id, name, category, qty, unit_price_cents)"
        "SELECT n / 4, 'Kale', 'menu', 1, 0 FROM generate_series(4, 160003) n;"
        "ANALYZE kiva.customers; ANALYZE kiva.orders; ANALYZE kiva.order_items"
    )
    return shop.connection


async def test_sets_are_read_along_indexes(filled: asyncpg.Connection) -> None:
    queries = sql_blocks.load("kiva_stream.source", "kiva", "queries.sql")
    for block, (arguments, index) in PLANS.items():
        await filled.execute(f"PREPARE {block} AS {queries[block]}")
        explained = await filled.fetch(f"EXPLAIN EXECUTE {block} ({arguments})")
        plan = "\n".join(row[0] for row in explained)
        assert index in plan, plan
        assert not re.search("Seq Scan on (customers|orders|order_items)", plan), plan


async def test_a_set_is_one_statement(shop: ShopRows, site: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    for order_id in range(1, 21):
        await write_order(shop, order_id)
        await write_item(shop, order_id)
    asked: list[Any] = []
    fetch = Source.fetch

    async def counted(source: Source, block: str, *arguments: object) -> list[asyncpg.Record]:
        asked.append(block)
        return await fetch(source, block, *arguments)

    monkeypatch.setattr(Source, "fetch", counted)
    assert len(await site.orders.page(OrderId(0), 20)) == 20
    assert len(await site.orders.orders([OrderId(number) for number in range(1, 21)])) == 20
    assert asked == ["paid_orders_after", "orders"]
