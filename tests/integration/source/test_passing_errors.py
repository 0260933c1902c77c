"""Errors of the shop's database that pass by themselves: what was read is read again, from its beginning."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from kiva_stream.errors import SourceError
from kiva_stream.source.source import WAITS_S
from tests.support.postgres import connected, database_name
from tests.support.shop_rows import ShopRows, opened_log, positions, read

# PostgreSQL's appendix A: https://www.postgresql.org/docs/current/errcodes-appendix.html
PASSING = (
    *("08000", "08003", "08006", "08001", "08004", "08007", "08P01"),  # connections
    *("25P03", "25P04"),  # a session or transaction that was ended for its age
    *("40000", "40001", "40003", "40P01"),  # a failed serialization, a deadlock
    *("53000", "53100", "53200", "53300", "53400"),  # disk, memory, connections
    "55P03",  # lock_timeout
    *("57000", "57014", "57P01", "57P02", "57P03", "57P04", "57P05"),  # a shutdown, a crash, a start
    "72000",  # a snapshot too old
)
LASTING = ("22012", "42501", "42703", "42P01", "XX001")
FAULT = """
CREATE TABLE kiva.fault (code text);
CREATE FUNCTION kiva.checked(text) RETURNS text STABLE COST 100000 LANGUAGE plpgsql AS $$
DECLARE state text;
BEGIN
  SELECT code INTO state FROM kiva.fault;
  IF FOUND THEN
    RAISE EXCEPTION 'it failed' USING ERRCODE = state;
  END IF;
  RETURN $1;
END $$;
ALTER TABLE kiva.system_log RENAME TO journal;
CREATE VIEW kiva.system_log AS
SELECT id, site_id, txid, occurred_at, inserted_at, action, actor_type, admin_user,
       CASE id WHEN 3 THEN kiva.checked(message) ELSE message END AS message, data, customer_id
FROM kiva.journal;
"""


class Waits:
    """A sleep in which something is done, at the second wait."""

    def __init__(self, work: Callable[[], Awaitable[object]]) -> None:
        self.waits: list[float] = []
        self._work = work

    async def __call__(self, seconds: float, /) -> None:
        self.waits.append(seconds)
        if len(self.waits) % 2 == 0:
            await self._work()


@pytest.mark.parametrize("code", PASSING)
async def test_an_error_that_passes_is_tried_again_and_loses_nothing(
    database: str, shop: ShopRows, code: str
) -> None:
    written = [await shop.entry(10) for _ in range(4)]
    await shop.connection.execute(FAULT)
    await shop.connection.execute("INSERT INTO kiva.fault VALUES ($1)", code)
    sleep = Waits(lambda: shop.connection.execute("DELETE FROM kiva.fault"))
    async with opened_log(database, sleep, page_rows=2) as opened:
        assert positions(await read(opened)) == written
    assert sleep.waits == list(WAITS_S[:2])


@pytest.mark.parametrize("code", LASTING)
async def test_an_error_that_lasts_is_not_tried_again(database: str, shop: ShopRows, code: str) -> None:
    for _ in range(4):
        await shop.entry(10)
    await shop.connection.execute(FAULT)
    await shop.connection.execute("INSERT INTO kiva.fault VALUES ($1)", code)
    sleep = Waits(lambda: shop.connection.execute("DELETE FROM kiva.fault"))
    async with opened_log(database, sleep, page_rows=2) as opened:
        with pytest.raises(SourceError, match="refuses a query; run `check`: it failed"):
            await read(opened)
    assert sleep.waits == []


async def test_a_lock_that_is_not_free_in_time_is_tried_again(database: str, shop: ShopRows) -> None:
    written = [await shop.entry(10) for _ in range(4)]
    await shop.connection.execute(f"ALTER DATABASE {database_name(database)} SET lock_timeout = '50ms'")
    async with connected(database) as migration:
        changing = migration.transaction()
        sleep = Waits(changing.commit)
        async with opened_log(database, sleep) as opened:
            mark = await opened.horizon.high_water_mark()
            await changing.start()
            await migration.execute("LOCK TABLE kiva.system_log IN ACCESS EXCLUSIVE MODE")
            assert positions(await read(opened, mark=mark)) == written
    assert sleep.waits == list(WAITS_S[:2])
