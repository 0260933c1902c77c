"""A shop's database that is not of UTF8: no row stops the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from kiva_stream.commands.check import check
from kiva_stream.sandbox.postgres import Server
from kiva_stream.settings import loading
from kiva_stream.settings.sections import SourceSettings
from kiva_stream.source.source import Source
from tests.acceptance.live_shop import email, live_shop
from tests.support.postgres import connected
from tests.support.shop_rows import ShopRows


@asynccontextmanager
async def created(server: Server, encoding: str) -> AsyncIterator[str]:
    """Give a database of an encoding."""
    name = f"kiva_encoded_{uuid4().hex}"
    async with connected(server.dsn()) as connection:
        await connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
    yield server.dsn(name)
    await server.drop_database(name)


@pytest.fixture
async def sql_ascii(postgres: Server) -> AsyncIterator[str]:
    """Yield a database that takes any bytes."""
    async with created(postgres, "SQL_ASCII") as dsn:
        yield dsn


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_an_address_that_the_database_cannot_hold_is_not_found_and_stops_nothing(
    postgres: Server, encoding: str
) -> None:
    async with created(postgres, encoding) as dsn, ShopRows.create(dsn) as rows:
        await rows.customer(1, email(1))
        async with Source.open(SourceSettings(dsn=dsn, site_id=1)) as source:
            texts = ["b@żółw.pl", email(1), "大@example.com"]
            assert [row["id"] for row in await source.look_up("customers_by_email", 1, texts)] == [1]


async def test_text_of_any_bytes_is_read_and_stops_nothing(
    database: str, sql_ascii: str, tmp_path: Path
) -> None:
    async with live_shop(sql_ascii, tmp_path, 3) as shop, connected(sql_ascii) as writer:
        shop.environ["KIVA_STREAM__STATE__DSN"] = database
        await shop.set_up()
        rows = {row.subject: row for row in (await check(loading.load(None, shop.environ))).rows}
        assert rows["encoding"].text.startswith("warning: SQL_ASCII")
        for customer in shop.customers:
            await shop.write(writer, customer)
        await writer.execute(r"UPDATE kiva.customers SET first_name = E'Jos\351' WHERE id = 1")  # Latin-1
        await writer.execute(r"UPDATE kiva.customers SET first_name = E'Jos\303' WHERE id = 2")  # a cut é
        await writer.execute(r"UPDATE kiva.system_log SET message = E'Gr\374n, \303\251, \360\237'")
        shop.run("backfill", "--since", "day1", "--yes")
        assert len(await shop.arrivals()) == 3
        contacts = await shop.contacts()
        assert [contacts[email(each)]["first_name"] for each in (1, 2)] == ["José", "Jos"]


async def test_check_names_a_state_whose_database_cannot_hold_every_text(
    database: str, postgres: Server, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 1) as shop, created(postgres, "LATIN1") as state:
        rows = {row.subject: row for row in (await check(loading.load(None, shop.environ))).rows}
        assert rows["state"].ok
        shop.environ["KIVA_STREAM__STATE__DSN"] = state
        await shop.set_up()
        rows = {row.subject: row for row in (await check(loading.load(None, shop.environ))).rows}
        assert not rows["state"].ok
        assert "LATIN1" in rows["state"].text
