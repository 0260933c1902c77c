"""Entries arrive with their customers: found by id or address, cached, waited for; also from odd rows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

import pytest

from kiva_stream.model.customers import Customer, CustomerAccount
from kiva_stream.model.entries import Entry
from kiva_stream.model.ids import CustomerId, Email
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.source.customers import ShopCustomers
from kiva_stream.source.source import Source
from tests.support.shop_rows import OpenedLog, ShopRows, Sleeps, opened_log, read, source_settings

ANN = Email("ann@example.com")
NOW = "now"  # as PostgreSQL reads it
OneAccount = Callable[..., Awaitable[CustomerAccount]]
END = HighWaterMark(Position(2**62, 2**62), datetime.max.replace(tzinfo=UTC))


@pytest.fixture
async def shop(database: str) -> AsyncIterator[ShopRows]:
    async with ShopRows.create(database) as rows:
        yield rows


@pytest.fixture
async def opened(database: str, shop: ShopRows) -> AsyncIterator[OpenedLog]:
    async with opened_log(database) as log_of_site:
        yield log_of_site


@pytest.fixture
async def customers(database: str, shop: ShopRows) -> AsyncIterator[ShopCustomers]:
    async with Source.open(source_settings(database)) as source:
        yield ShopCustomers(source, 1, ["Test.example"])


async def one(opened: OpenedLog, mark: HighWaterMark | None = None) -> Entry:
    (entry,) = await read(opened, mark=mark)
    return entry


async def never(seconds: float, /) -> None:
    """Be a sleep that nobody may ask for."""
    pytest.fail(f"waits {seconds} s")


# By id


async def test_an_entry_comes_with_the_customer_of_its_id(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.customer(5, " Ann@Example.com", first_name="Ann ", last_name=" van  Lee")
    await shop.entry(10, customer_id=5)
    entry = await one(opened)
    assert entry.customer_id == 5
    assert entry.customer == Customer(CustomerId(5), 1, ANN, "Ann van Lee", is_test=False, erased=False)
    assert entry.notes == ()


async def test_a_customer_is_read_once(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.customer(5, ANN)
    first = await shop.entry(10, customer_id=5)
    await read(opened)
    await shop.connection.execute("DELETE FROM kiva.customers")
    await shop.entry(11, customer_id=5)
    (entry,) = await read(opened, first)
    assert entry.customer is not None
    assert entry.customer.email == ANN


async def test_forgotten_customers_are_read_again(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.customer(5, "old@example.com")
    first = await shop.entry(10, customer_id=5)
    await read(opened)
    await shop.connection.execute("UPDATE kiva.customers SET email = $1", ANN)
    await shop.entry(11, customer_id=5)
    opened.log.forget_customers()
    (entry,) = await read(opened, first)
    assert entry.customer is not None
    assert entry.customer.email == ANN


async def test_no_more_customers_are_cached_than_allowed(database: str, shop: ShopRows) -> None:
    for number in (5, 6, 7):
        await shop.customer(number, ANN)
        await shop.entry(10, customer_id=number)
    async with opened_log(database, customer_cache_rows=2) as opened:
        assert all(entry.customer for entry in await read(opened))
        await shop.connection.execute("DELETE FROM kiva.customers")
        assert sum(entry.customer is not None for entry in await read(opened)) == 2


async def test_the_customers_of_a_page_are_all_there_when_the_cache_is_smaller(
    database: str, shop: ShopRows
) -> None:
    for number in range(1, 10):
        await shop.customer(number, ANN)
        await shop.entry(10, customer_id=number)
    async with opened_log(database, customer_cache_rows=1) as opened:
        assert [entry.customer.id for entry in await read(opened) if entry.customer] == list(range(1, 10))


async def test_a_customer_that_was_not_found_is_looked_up_again(shop: ShopRows, opened: OpenedLog) -> None:
    first = await shop.entry(10, customer_id=5)
    entry = await one(opened)
    assert (entry.customer_id, entry.customer) == (5, None)
    await shop.customer(5, ANN)
    await shop.entry(11, customer_id=5)
    (entry,) = await read(opened, first)
    assert entry.customer is not None


async def test_a_customer_who_appears_shortly_after_the_entry_is_found(database: str, shop: ShopRows) -> None:
    waits = 0

    async def sleep(seconds: float, /) -> None:
        nonlocal waits
        waits += 1
        assert waits <= 3, "the customer is there, and is not looked for"
        if waits == 3:
            await shop.customer(5, ANN)

    await shop.entry(10, customer_id=5, inserted_at=NOW)
    async with opened_log(database, sleep) as opened:
        entry = await one(opened, END)
    assert entry.customer is not None
    assert waits == 3


async def test_an_old_entry_does_not_wait_for_its_customer(database: str, shop: ShopRows) -> None:
    await shop.entry(10, customer_id=5, inserted_at=datetime.now(UTC) - timedelta(seconds=61))
    async with opened_log(database, never) as opened:
        assert (await one(opened)).customer is None


async def test_the_youngest_entry_of_a_page_sets_the_wait(database: str, shop: ShopRows) -> None:
    sleep = Sleeps()
    await shop.entry(10, customer_id=5)
    await shop.entry(10, customer_id=6, inserted_at=NOW)
    async with opened_log(database, sleep, customer_settle_s=0.5) as opened:
        assert [entry.customer for entry in await read(opened, mark=END)] == [None, None]
        settled = await shop.connection.fetchval(
            "SELECT clock_timestamp() - max(inserted_at) FROM kiva.system_log"
        )
    assert settled > timedelta(seconds=0.5)
    assert sleep.waits


async def test_noise_does_not_wait_for_its_customer(database: str, shop: ShopRows) -> None:
    await shop.entry(10, customer_id=5, action="cron.start", inserted_at=NOW)
    async with opened_log(database, never) as opened:
        assert (await one(opened, END)).customer is None


async def test_an_erased_customer_says_so(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.customer(5, ANN, deleted_at=NOW)
    await shop.entry(10, customer_id=5)
    customer = (await one(opened)).customer
    assert customer is not None
    assert customer.erased


async def test_a_customer_of_another_site_comes_with_that_site(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.customer(5, ANN, site_id=2)
    await shop.entry(10, customer_id=5)
    customer = (await one(opened)).customer
    assert customer is not None
    assert customer.site_id == 2


@pytest.mark.parametrize("email", [None, "", "  ", "n/a", "none", "ann@example,com"])
async def test_a_customer_without_a_usable_address_has_none(
    shop: ShopRows, opened: OpenedLog, email: str | None
) -> None:
    await shop.customer(5, email)
    await shop.entry(10, customer_id=5)
    customer = (await one(opened)).customer
    assert customer is not None
    assert customer.email is None


async def test_of_several_addresses_the_first_counts_and_it_is_noted(
    shop: ShopRows, opened: OpenedLog
) -> None:
    await shop.customer(5, "ann@example.com; bea@example.com")
    await shop.entry(10, customer_id=5)
    entry = await one(opened)
    assert entry.customer is not None
    assert entry.customer.email == ANN
    assert entry.notes == ("several_addresses",)


# By text and by data


async def test_an_id_in_the_text_names_the_customer(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.customer(5123, ANN)
    await shop.entry(10, message="Customer #5123 (Ann Lee) logged in with password")
    entry = await one(opened)
    assert entry.customer_id == 5123
    assert entry.customer is not None


async def test_an_id_in_the_text_without_a_customer_is_kept_without_one(
    shop: ShopRows, opened: OpenedLog
) -> None:
    await shop.entry(10, message="Customer #5123 (Ann Lee) logged in with password")
    await shop.entry(11, message=f"Customer #{'9' * 19} (Ann Lee) logged in with password")
    assert [(entry.customer_id, entry.customer) for entry in await read(opened)] == [
        (5123, None),
        (None, None),
    ]


async def test_the_rows_own_id_precedes_the_id_in_its_text(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.customer(5, ANN)
    await shop.customer(6, "bea@example.com")
    await shop.entry(10, customer_id=5, action="login.password", data='{"email": "bea@example.com"}')
    assert (await one(opened)).customer_id == 5


async def test_an_address_in_the_data_names_the_customer(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.customer(5, " ANN@example.com ")
    await shop.entry(10, action="login.password", data='{"email": "Ann@Example.com"}')
    entry = await one(opened)
    assert entry.customer_id == 5
    assert entry.notes == ()


async def test_an_address_in_an_events_text_names_the_customer(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.customer(5, ANN)
    await shop.entry(10, message="New customer signup: Ann Lee, ann@example.com")
    assert (await one(opened)).customer_id == 5


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        ("Dot@example.com.", "dot@example.com"),
        ("dot@example.com", "dot@example.com."),
        (" Ann@Müller.example ", "ann@müller.example"),
        ("ann@müller.example.", "ann@xn--mller-kva.example"),
        ("ann@xn--mller-kva.example", "Ann@MÜLLER.example"),
    ],
)
async def test_an_address_names_the_customer_however_the_two_are_spelled(
    shop: ShopRows, opened: OpenedLog, stored: str, named: str
) -> None:
    await shop.customer(5, stored)
    await shop.entry(10, action="login.password", data=json.dumps({"email": named}))
    assert (await one(opened)).customer_id == 5


async def test_two_accounts_of_an_address_are_ambiguous_and_the_lower_id_counts(
    shop: ShopRows, opened: OpenedLog
) -> None:
    await shop.customer(7, ANN)
    await shop.customer(6, "Ann@example.com")
    await shop.customer(5, ANN, deleted_at=NOW)
    await shop.entry(10, action="login.password", data='{"email": "ann@example.com"}')
    entry = await one(opened)
    assert entry.customer_id == 6  # 5 is no longer here
    assert entry.notes == ("ambiguous",)


async def test_an_address_of_another_site_names_no_customer(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.customer(5, ANN, site_id=2)
    await shop.entry(10, action="login.password", data='{"email": "ann@example.com"}')
    entry = await one(opened)
    assert (entry.customer_id, entry.customer) == (None, None)


# Odd rows


async def test_data_over_64_kb_is_not_used_and_noted(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.entry(10, action="login.password", data=json.dumps("d" * 65_534))
    await shop.entry(
        11, action="login.password", data=json.dumps({"email": "ann@example.com", "d": "d" * 65_536})
    )
    fits, does_not = await read(opened)
    assert (len(fits.data or ""), fits.notes) == (65_536, ())
    assert (does_not.data, does_not.notes) == (None, ("bad_data",))


async def test_only_the_first_2000_characters_of_a_message_are_read(
    shop: ShopRows, opened: OpenedLog
) -> None:
    await shop.entry(10, message="ü" * 20_000)
    assert (await one(opened)).message == "ü" * 2000


async def test_odd_text_arrives_as_it_is(shop: ShopRows, opened: OpenedLog) -> None:
    odd = "JosÃ© \\u0000 \x01\x1f\x7f 🥕\u2028\ufeff\r\n' \"$1 {schema}"
    await shop.entry(10, message=odd, action="login.password", admin_user=odd)
    entry = await one(opened)
    assert (entry.message, entry.admin_user) == (odd, odd)


async def test_json_that_jsonb_would_refuse_stops_nothing(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.connection.execute("ALTER TABLE kiva.system_log ALTER data TYPE json")
    for email in ("\\u0000", "ann\\u0000@example.com", "\\ud800@example.com", "🥕@example.com"):
        await shop.entry(10, action="login.password", data=f'{{"email": "{email}"}}')
    assert [entry.customer for entry in await read(opened)] == [None] * 4


@pytest.mark.parametrize("data", ["null", '"a string"', "[]", '{"email": 5}', '{"email": ["a@example.com"]}'])
async def test_data_of_another_shape_names_no_customer(shop: ShopRows, opened: OpenedLog, data: str) -> None:
    await shop.entry(10, action="login.password", data=data)
    entry = await one(opened)
    assert (entry.customer_id, entry.customer) == (None, None)


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "20000-01-01 00:00Z", "0044-03-15 00:00Z BC"])
async def test_a_moment_that_no_datetime_holds_stops_no_entry(
    shop: ShopRows, opened: OpenedLog, moment: str
) -> None:
    await shop.entry(10, occurred_at=moment)
    entry = await one(opened)
    assert entry.occurred_at.year in {2, 9998}
    assert entry.occurred_at.tzinfo is UTC


@pytest.mark.parametrize("moment", ["infinity", "20000-01-01 00:00Z"])
async def test_a_row_inserted_in_the_far_future_stops_reading(
    shop: ShopRows, opened: OpenedLog, moment: str
) -> None:
    before = await shop.entry(10)
    await shop.entry(11, inserted_at=moment)
    await shop.entry(12)
    assert [entry.position for entry in await read(opened)] == [before]


async def test_a_row_inserted_before_time_began_is_old(shop: ShopRows, opened: OpenedLog) -> None:
    await shop.entry(10, inserted_at="-infinity")
    assert (await one(opened)).inserted_at.year == 2


async def test_columns_that_a_view_leaves_empty_stop_no_entry(shop: ShopRows, opened: OpenedLog) -> None:
    for column in ("occurred_at", "inserted_at", "message"):
        await shop.connection.execute(f"ALTER TABLE kiva.system_log ALTER {column} DROP NOT NULL")
    moment = datetime(2018, 3, 4, 17, tzinfo=UTC)
    inserted = await shop.entry(10, message=None, occurred_at=None, inserted_at=moment)
    occurred = await shop.entry(11, message=None, occurred_at=moment, inserted_at=None)
    await shop.entry(12, message=None, occurred_at=None, inserted_at=None)
    entries = await read(opened)
    assert [(entry.occurred_at, entry.inserted_at) for entry in entries[:2]] == [(moment, moment)] * 2
    assert (entries[2].occurred_at.year, entries[2].inserted_at.year) == (2, 2)
    assert [entry.message for entry in entries] == [""] * 3
    assert await opened.positions.first_since(moment) == inserted
    await shop.connection.execute("DELETE FROM kiva.system_log WHERE inserted_at IS NOT NULL")
    assert await opened.positions.first_since(moment) == occurred


async def test_a_row_whose_only_moment_lies_in_the_future_stops_reading_and_says_so(
    shop: ShopRows, opened: OpenedLog
) -> None:
    await shop.connection.execute("ALTER TABLE kiva.system_log ALTER inserted_at DROP NOT NULL")
    await shop.entry(10, occurred_at="infinity", inserted_at=None)
    assert "lies in the future" in str(await opened.horizon.obstacle(DAY1))
    assert await read(opened) == []


# Customers as they are now


async def test_customers_come_in_pages_by_id(shop: ShopRows, customers: ShopCustomers) -> None:
    for number in (9, 5, 7):
        await shop.customer(number, f"{number}@example.com")
    await shop.customer(6, ANN, site_id=2)
    assert [each.id for each in await customers.page(CustomerId(0), 2)] == [5, 7]
    assert [each.id for each in await customers.page(CustomerId(7), 2)] == [9]
    assert await customers.page(CustomerId(9), 2) == []


async def test_a_test_account_is_flagged_or_of_a_domain_to_skip(
    shop: ShopRows, customers: ShopCustomers
) -> None:
    await shop.customer(5, ANN)
    await shop.customer(6, ANN, is_test=True)
    await shop.customer(7, "Ann@TEST.example")
    await shop.customer(8, "ann@not-test.example")
    assert [each.id for each in await customers.page(CustomerId(0), 9) if each.is_test] == [6, 7]


async def test_an_account_is_the_row_as_it_is_now(shop: ShopRows, customers: ShopCustomers) -> None:
    await shop.customer(5, ANN, first_name="Ann", status="paused", email_opt_in=False, email_blacklisted=True)
    await shop.customer(6, ANN, site_id=2)
    newest = datetime(2018, 3, 2, tzinfo=UTC)
    await order(shop, 71, 5, created_at=newest)
    await order(shop, 72, 5, created_at="2018-03-01 00:00Z")
    await order(shop, 73, 5, created_at="2018-03-03 00:00Z", site_id=2)
    await shop.connection.execute("UPDATE kiva.customers SET phone = '+1 555' WHERE id = 5")
    assert await customers.accounts([CustomerId(5), CustomerId(6), CustomerId(99)]) == [
        CustomerAccount(
            customer=Customer(CustomerId(5), 1, ANN, "Ann", is_test=False, erased=False),
            first_name="Ann",
            last_name="",
            phone="+1 555",
            status="paused",
            newest_order_at=newest,
            email_opt_in=False,
            email_blacklisted=True,
            joined_at=datetime(2018, 3, 4, 17, 2, 10, tzinfo=UTC),
        )
    ]


@pytest.fixture
async def one_account(shop: ShopRows, customers: ShopCustomers) -> OneAccount:
    """Write customer 5 with some columns, and return the account."""

    async def write_and_read(**columns: object) -> CustomerAccount:
        await shop.customer(5, ANN, **columns)
        (account,) = await customers.accounts([CustomerId(5)])
        return account

    return write_and_read


@pytest.mark.parametrize(
    ("cancelled_at", "site_id", "day"),
    [
        ("2018-11-30 06:59Z", 1, date(2018, 11, 29)),  # Denver is 7 hours behind
        ("2018-11-30 07:00Z", 1, date(2018, 11, 30)),
        ("2018-07-01 05:59Z", 1, date(2018, 6, 30)),  # in summer 6
        ("2018-11-30 23:59Z", 2, date(2018, 11, 30)),  # London
    ],
)
async def test_the_cancel_date_is_the_sites(
    database: str, shop: ShopRows, cancelled_at: str, site_id: int, day: date
) -> None:
    await shop.customer(5, ANN, cancelled_at=cancelled_at, site_id=site_id)
    async with Source.open(source_settings(database)) as source:
        (account,) = await ShopCustomers(source, site_id, []).accounts([CustomerId(5)])
    assert account.cancel_date == day


@pytest.mark.parametrize(
    "birthday", [date(1904, 5, 2), date(1984, 2, 29), date(2318, 5, 2), date(1, 1, 1), date(9999, 12, 31)]
)
async def test_row_39_a_birthday_is_read_whatever_date_it_is(one_account: OneAccount, birthday: date) -> None:
    account = await one_account(birthday=birthday, next_delivery=birthday)
    assert (account.birthday, account.next_delivery) == (birthday, birthday)


@pytest.mark.parametrize("wild", ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "294276-12-31"])
async def test_dates_that_no_calendar_here_holds_are_none(one_account: OneAccount, wild: str) -> None:
    account = await one_account(birthday=wild, next_delivery=wild, cancelled_at=wild)
    assert (account.birthday, account.next_delivery, account.cancel_date) == (None, None, None)


async def test_an_account_without_dates_and_without_a_box_has_none(one_account: OneAccount) -> None:
    account = await one_account()
    assert (account.birthday, account.next_delivery, account.cancel_date) == (None, None, None)
    assert account.box_type == ""


@pytest.mark.parametrize("active", [True, False])
async def test_row_41_an_inactive_box_type_still_has_its_name(
    shop: ShopRows, one_account: OneAccount, active: bool
) -> None:
    await shop.insert("box_types", id=3, site_id=1, code="m", name="Medium Box", price_cents=1, active=active)
    assert (await one_account(box_type_id=3)).box_type == "Medium Box"


async def test_row_41_of_a_box_type_whose_row_is_gone_nothing_is_known(
    shop: ShopRows, one_account: OneAccount
) -> None:
    await shop.connection.execute("ALTER TABLE kiva.customers DROP CONSTRAINT customers_box_type_id_fkey")
    assert (await one_account(box_type_id=3)).box_type is None


async def test_a_box_type_of_another_site_is_as_good_as_gone(shop: ShopRows, one_account: OneAccount) -> None:
    await shop.insert("box_types", id=3, site_id=2, code="m", name="Medium Box", price_cents=1)
    assert (await one_account(box_type_id=3)).box_type is None


async def test_the_newest_order_may_be_of_any_time_or_missing(
    shop: ShopRows, customers: ShopCustomers
) -> None:
    for number in (5, 6, 7):
        await shop.customer(number, ANN)
    await order(shop, 71, 6, created_at="infinity")
    await order(shop, 72, 7, created_at="20000-01-01 00:00Z")
    newest = [each.newest_order_at for each in await customers.accounts([CustomerId(n) for n in (5, 6, 7)])]
    assert [moment and moment.year for moment in newest] == [None, 9998, 9998]


async def order(shop: ShopRows, order_id: int, customer_id: int, **columns: object) -> None:
    columns = {"site_id": 1, "updated_at": NOW, "week_start": NOW, "delivery_date": NOW} | columns
    columns |= {"status": "open", "subtotal_cents": 1, "total_cents": 1}
    await shop.insert("orders", id=order_id, customer_id=customer_id, **columns)


async def test_the_reachable_are_counted_without_reading_them(
    shop: ShopRows, customers: ShopCustomers
) -> None:
    await shop.customer(5, ANN)
    await shop.customer(6, "n/a")
    await shop.customer(7, ANN, is_test=True)
    await shop.customer(8, ANN, deleted_at=NOW)
    await shop.customer(9, ANN, site_id=2)
    assert await customers.count_reachable() == 1


async def test_a_sample_and_pages_read_again_wait_for_no_stranger(database: str, shop: ShopRows) -> None:
    row = await shop.entry(10, customer_id=5, inserted_at="infinity")
    async with opened_log(database, never) as opened:
        assert [entry.customer for entry in await opened.log.sample(DAY1, row)] == [None]
        pages = opened.log.pages(DAY1, HighWaterMark(row, END.inserted_before), settle=False)
        assert [[entry.customer for entry in page] async for page in pages] == [[None]]
