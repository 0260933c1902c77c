"""Positions in the log of a real PostgreSQL: of dates, before others, and how many entries lie between."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta

import anyio
import pytest

from kiva_stream.errors import SourceError
from kiva_stream.model.positions import DAY1, HighWaterMark, Position
from kiva_stream.source.site import read_site
from tests.support.shop_rows import ShopRows, Sleeps, opened_log, positions, read

FOREVER = datetime.max.replace(tzinfo=UTC)
END = HighWaterMark(Position(2**62, 2**62), FOREVER)  # above everything there can be
HOUR = timedelta(hours=1)


# The last rows, dates, counts


async def test_after_the_position_before_lie_the_last_rows_up_to_another(
    database: str, shop: ShopRows
) -> None:
    late = await shop.entry(30)
    a, b, c = [await shop.entry(txid) for txid in (10, 11, 12)]
    async with opened_log(database) as opened:
        assert await opened.positions.before(c, 2) == a
        assert await opened.positions.before(late, 2) == b
        assert positions(await read(opened, b, HighWaterMark(late, FOREVER))) == [c, late]
        assert await opened.positions.before(late, 4) == await opened.positions.before(late, 9) == DAY1
        assert await opened.positions.before(DAY1, 9) == DAY1


async def test_first_since_is_the_lowest_position_not_the_earliest_row(database: str, shop: ShopRows) -> None:
    await shop.entry(10, inserted_at="2018-03-04 11:00Z")
    lowest = await shop.entry(11, inserted_at="2018-03-04 12:30Z")
    earliest = await shop.entry(12, inserted_at="2018-03-04 12:00Z")
    async with opened_log(database) as opened:
        assert await opened.positions.first_since(datetime(2018, 3, 4, 12, tzinfo=UTC)) == lowest
        assert await opened.positions.first_since(datetime(2018, 3, 4, 13, tzinfo=UTC)) is None
        assert earliest > lowest


@pytest.mark.parametrize(
    ("quick_s", "statement_timeout_s"), [(5, 0.1), (0.1, 30)], ids=["for a statement", "for a transaction"]
)
async def test_a_count_that_takes_too_long_is_the_distance_of_the_ids(
    database: str, shop: ShopRows, monkeypatch: pytest.MonkeyPatch, quick_s: float, statement_timeout_s: float
) -> None:
    monkeypatch.setattr("kiva_stream.source.source.QUICK_S", quick_s)
    first, *_, last = [await shop.entry(10) for _ in range(3)]
    sleep = Sleeps()
    async with opened_log(database, sleep, statement_timeout_s=statement_timeout_s) as opened:
        assert await opened.positions.count_or_distance(first, last) == 2
        async with shop.connection.transaction():
            await shop.connection.execute("LOCK TABLE kiva.system_log")
            with anyio.fail_after(10):
                assert (
                    await opened.positions.count_or_distance(first, last._replace(id=1_000_000))
                    == 1_000_000 - first.id
                )
                assert await opened.positions.count_or_distance(last, first._replace(txid=11)) == 0
    assert sleep.waits == []


async def test_an_exact_count_may_take_longer_than_one_that_has_another_way(
    database: str, shop: ShopRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kiva_stream.source.source.QUICK_S", 0.1)
    first, *_, last = [await shop.entry(10) for _ in range(3)]
    async with opened_log(database) as opened:
        async with shop.connection.transaction():
            await shop.connection.execute("LOCK TABLE kiva.system_log")
            exact = asyncio.create_task(opened.positions.count(first, last))
            for _ in range(2):  # the first may have begun before it; both are given up
                assert await opened.positions.count_or_distance(first, last) == last.id - first.id
        assert await exact == 2


@pytest.mark.parametrize(
    ("day", "hour"), [(date(2018, 3, 11), 7), (date(2018, 3, 12), 6)]
)  # the night from the 11th to the 12th is the first of summer time
async def test_a_day_begins_at_midnight_in_the_sites_timezone(
    database: str, shop: ShopRows, day: date, hour: int
) -> None:
    async with opened_log(database) as opened:
        assert await opened.positions.midnight(day) == datetime(
            day.year, day.month, day.day, hour, tzinfo=UTC
        )


async def test_row_36_the_site_is_read_with_its_currency_trimmed_and_upper_case(
    database: str, shop: ShopRows
) -> None:
    await shop.connection.execute("UPDATE kiva.sites SET currency = ' zr'")
    async with opened_log(database) as opened:
        site = await read_site(opened.pool, 1)
    assert (site.id, site.name, site.timezone, site.currency) == (1, "Green Box", "America/Denver", "ZR")
    assert site.launched_at == datetime(2018, 1, 1, 7, tzinfo=UTC)


async def test_a_site_that_does_not_exist_is_one_sentence(database: str, shop: ShopRows) -> None:
    async with opened_log(database) as opened:
        with pytest.raises(SourceError, match=r"^There is no site 9 .* set source\.site_id"):
            await read_site(opened.pool, 9)
