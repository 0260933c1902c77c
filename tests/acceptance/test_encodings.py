"""Databases that are not of UTF8: no row of a shop stops the log; a state holds every text or is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from kiva_stream.commands.check import check
from kiva_stream.model.positions import DAY1
from kiva_stream.sandbox.postgres import Server
from kiva_stream.settings import loading
from kiva_stream.settings.sections import SourceSettings
from kiva_stream.source.source import Source
from tests.acceptance.live_shop import FOLLOW, email, live_shop
from tests.support.postgres import connected, encoded_database
from tests.support.shop_rows import ShopRows

BACKFILL = ("backfill", "--since", "day1", "--yes")
OF_THE_STATE = (BACKFILL, FOLLOW, ("setup",), ("plan",), ("status",))
REFUSED = {"kind": "answer-before", "status": 422, "text": "Zły adres: żółw 大"}
CANNOT_BE_USED = 5  # the exit code of a state database


@pytest.fixture
async def sql_ascii(postgres: Server) -> AsyncIterator[str]:
    """Yield a database that takes any bytes."""
    async with encoded_database(postgres, "SQL_ASCII") as dsn:
        yield dsn


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_an_address_that_the_database_cannot_hold_is_not_found_and_stops_nothing(
    postgres: Server, encoding: str
) -> None:
    async with encoded_database(postgres, encoding) as dsn, ShopRows.create(dsn) as rows:
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


async def test_every_command_refuses_a_state_whose_database_cannot_hold_every_text(
    database: str, postgres: Server, tmp_path: Path
) -> None:
    async with live_shop(database, tmp_path, 1) as shop, encoded_database(postgres, "LATIN1") as state:
        shop.environ["KIVA_STREAM__STATE__DSN"] = state
        ended = [shop.ended(*command) for command in OF_THE_STATE]
        assert {each.code for each in ended} == {CANNOT_BE_USED}, ended
        [sentence] = {each.err.strip().splitlines()[-1] for each in ended}
        assert "(state.dsn) is of the encoding LATIN1" in sentence
        rows = {row.subject: row for row in (await check(loading.load(None, shop.environ))).rows}
        assert (rows["state"].ok, rows["state"].text) == (False, sentence)
        assert not (await shop.activecampaign.state())["contacts"]


async def test_a_state_in_a_database_of_sql_ascii_holds_every_text(
    database: str, sql_ascii: str, tmp_path: Path
) -> None:
    name, address = "Żółw 大", "józef@example.com"
    async with live_shop(database, tmp_path, 3) as shop, connected(database) as writer:
        shop.environ["KIVA_STREAM__STATE__DSN"] = sql_ascii
        await shop.set_up()
        await shop.activecampaign.change(invalid_values=[name], failing_emails=[address])
        await shop.activecampaign.fail({"path": "/contact/sync", "matching": address, **REFUSED})
        await writer.execute("UPDATE kiva.customers SET first_name = $1 WHERE id = 1", name)
        await writer.execute("UPDATE kiva.customers SET email = $1 WHERE id = 2", address)
        for customer in shop.customers:
            await shop.write(writer, customer)
        await shop.backfill(DAY1)
        status = shop.status()
        assert (status["equation"]["delivered"], status["equation"]["dead"]) == (2, {"ac_rejected": 1})
        assert status["notes"]["value_left_out"] == 1
        [letter] = msgspec.json.decode(shop.run("dead-letters", "list", "--json"))["letters"]
        assert REFUSED["text"] in letter["reply"]
        async with connected(sql_ascii) as look:
            [left_out] = await look.fetch("SELECT left_out FROM kiva_stream.contact WHERE left_out <> '{}'")
            assert "first_name" in left_out["left_out"]
