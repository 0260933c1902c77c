"""The row of a site, whatever it holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from kiva_stream.errors import SourceError
from kiva_stream.model.site import Site
from kiva_stream.source.site import read_site, read_site_in_any_timezone
from kiva_stream.source.source import Source
from tests.support.shop_rows import ShopRows, quoted, source_settings

LOOSE = "ALTER TABLE kiva.sites ALTER {0} DROP NOT NULL; UPDATE kiva.sites SET {0} = NULL"
PLAIN = Site(
    id=1,
    name="Green Box",
    timezone="America/Denver",
    currency="USD",
    admin_base_url="https://box.example",
    launched_at=datetime(2018, 1, 1, 7, tzinfo=UTC),
)


@pytest.fixture
async def shop(database: str) -> AsyncIterator[ShopRows]:
    async with ShopRows.create(database) as rows:
        yield rows


@pytest.fixture
async def source(database: str, shop: ShopRows) -> AsyncIterator[Source]:
    async with Source.open(source_settings(database)) as opened:
        yield opened


async def test_a_site_is_its_row(source: Source) -> None:
    assert await read_site(source, 1) == PLAIN


@pytest.mark.parametrize(
    "timezone",
    ["", "Mars/Olympus", "america/denver", "America", "../etc/passwd", "-07:00", "PDT", "America/Denver "],
)
async def test_an_unknown_timezone_is_named_with_its_column(
    shop: ShopRows, source: Source, timezone: str
) -> None:
    await shop.connection.execute(f"UPDATE kiva.sites SET timezone = {quoted(timezone)}")
    with pytest.raises(SourceError, match=f"sites.timezone is '{timezone}', which is no name of the IANA"):
        await read_site(source, 1)
    site, obstacle = await read_site_in_any_timezone(source, 1)
    assert (site.timezone, site.launched_at) == ("UTC", datetime(2018, 1, 1, tzinfo=UTC))
    assert "sites.timezone" in str(obstacle)


async def test_a_timezone_that_is_missing_is_named_with_its_column(shop: ShopRows, source: Source) -> None:
    await shop.connection.execute(LOOSE.format("timezone"))
    with pytest.raises(SourceError, match=r"sites\.timezone is ''"):
        await read_site(source, 1)


@pytest.mark.parametrize("column", ["name", "currency", "admin_base_url"])
async def test_a_text_that_is_missing_is_empty(shop: ShopRows, source: Source, column: str) -> None:
    await shop.connection.execute(LOOSE.format(column))
    assert getattr(await read_site(source, 1), column) == ""


@pytest.mark.parametrize(("day", "year"), [("infinity", 9998), ("-infinity", 2), ("0044-03-15 BC", 2)])
async def test_a_day_of_launch_that_no_date_holds_is_the_first_or_the_last(
    shop: ShopRows, source: Source, day: str, year: int
) -> None:
    await shop.connection.execute(f"UPDATE kiva.sites SET launched_on = '{day}'")
    assert (await read_site(source, 1)).launched_at.year in {year, year + 1}
